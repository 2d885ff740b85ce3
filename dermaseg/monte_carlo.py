"""Monte-Carlo dropout: predict several times with dropout left on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dermaseg.uncertainty import collect_members, join_spreads

__all__ = ["activate_dropout", "monte_carlo_dropout"]


def monte_carlo_dropout(
    model: keras.Model, images: np.ndarray, *, samples: int = 20, seed: int = 0, batch_size: int = 16
) -> Any:
    """Predict several times with dropout left on, as if each time with another network.

    Everything else stays as in prediction: batch normalisation uses its moving statistics and does not change them.

    Args:
        model: A functional or sequential model with dropout layers, from photographs to an array or a dict of them, or what
            `activate_dropout` made of one: that is quicker for more than one call, for it is traced once.
        images: `(images, height, width, 3)`, values 0 to 255.
        samples: Predictions of each image, at least 2.
        seed: The same seed, images and batch size give the same result on the same backend and machine.
        batch_size: Images per step; another one draws other units, as another seed does.

    Returns:
        A `Spread`, or a dict of them under the names of the model's outputs.

    Raises:
        ValueError: If the model has no dropout, or an argument is outside its range.

    Examples:
        >>> from dermaseg.models import build_cnn
        >>> model = build_cnn(num_classes=7, filters=(8, 16), dropout=0.5)
        >>> spread = monte_carlo_dropout(model, np.zeros((2, 32, 32, 3)), samples=3)
        >>> spread.probability.shape, spread.mutual_information.shape
        ((2, 7), (2,))

    References:
        Gal and Ghahramani, 2016, "Dropout as a Bayesian approximation", equation 6 (the mean). Houlsby et al., 2011,
        "Bayesian active learning for classification and preference learning", equation 2 (the mutual information).
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2, for one prediction has no spread; got {samples!r}.")
    if np.ndim(images) != 4 or not len(images):
        raise ValueError(f"images must be (images, height, width, channels), one or more; got the shape {np.shape(images)}.")
    if not _active(model):
        model = activate_dropout(model)
    layers = _active(model)
    for layer, drawn in zip(layers, np.random.SeedSequence(seed).generate_state(len(layers)), strict=True):
        # Half the range: the seed's type is signed on some backends.
        layer.dropout.seed_generator.state.assign([int(drawn) // 2, 0])
    parts = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        parts.append(collect_members((model.predict_on_batch(batch) for _ in range(samples)), batch.shape[:3]))
    return (
        {name: join_spreads([part[name] for part in parts]) for name in parts[0]}
        if isinstance(parts[0], dict)
        else join_spreads(parts)
    )


def activate_dropout(model: keras.Model) -> keras.Model:
    """Return a model whose dropout layers always drop; all other layers, and so the weights, are the given model's own.

    `model(images, training=True)` would not do: it would also normalise by the batch, and move the stored statistics.

    Args:
        model: Functional or sequential; dropout in nested models of these kinds counts too, that inside a layer does not.

    Raises:
        ValueError: If the model has no dropout layer with a rate above 0, or is neither functional nor sequential.

    Examples:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5)])
        >>> bool(np.any(activate_dropout(model).predict_on_batch(np.ones((4, 8))) == 0))
        True
    """
    active = _activate(model)
    if not _active(active):
        raise ValueError("model has no dropout layer with a rate above 0: build it with dropout, 0.2 say, and train it so.")
    return active


@keras.saving.register_keras_serializable(package="dermaseg")
class _ActiveDropout(keras.layers.Layer):
    """Drop in prediction too."""

    def __init__(self, dropout: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A layer of its own, with random numbers of its own: the given model's stay where they were.
        config = dropout.get_config()
        if config["seed"] is None:
            config["seed"] = 0  # whose state is assigned before use; PyTorch draws without one what cannot be repeated
        self.dropout = type(dropout).from_config(config)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        # Not through __call__, which tells the layers around that this is training.
        return self.dropout.call(inputs, training=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dropout": keras.saving.serialize_keras_object(self.dropout)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _ActiveDropout:
        return cls(keras.saving.deserialize_keras_object(config.pop("dropout")), **config)


def _activate(model: keras.Model) -> keras.Model:
    def replace(layer: Any) -> Any:
        if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):
            return _activate(layer)
        return _ActiveDropout(layer, name=layer.name, dtype=layer.dtype_policy) if _drops(layer) else layer

    if isinstance(model, keras.Sequential) and model.built:
        inputs, outputs = model.inputs[0], model.outputs[0]
    elif hasattr(model, "operations"):
        inputs, outputs = model.input, model.output
    else:
        raise ValueError(f"model must be functional, or sequential with a known input shape; got {type(model).__name__}.")
    # A model of its own first: the clone of a compiled one would want to compile too, and fail at a loss it can't rebuild.
    return keras.models.clone_model(keras.Model(inputs, outputs, name=model.name), clone_function=replace)


def _drops(layer: keras.layers.Layer) -> bool:
    kinds = (keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout)  # spatial dropout is a Dropout
    return isinstance(layer, kinds) and layer.rate > 0


def _active(model: keras.Model) -> list[_ActiveDropout]:
    """Return the layers that always drop, also of nested models, each once."""
    found: dict[int, _ActiveDropout] = {}
    for layer in model.layers:
        inner = _active(layer) if isinstance(layer, keras.Model) else [layer]
        found |= {id(one): one for one in inner if isinstance(one, _ActiveDropout)}
    return list(found.values())
