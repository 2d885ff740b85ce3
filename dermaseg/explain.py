"""Show which part of a photograph spoke for a class."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from dermaseg.layers.padding import PadToStride, covered_size

__all__ = ["GradCAM", "overlay_heatmap"]

# Five colours of the "inferno" map: brightness rises with the value, also in grey and for colour-blind eyes.
_INFERNO = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32)


class GradCAM:
    """Weigh a feature map's channels by how much each raises a class score.

    With the map A, `(height, width, channels)`, and the score z of the class before its softmax or sigmoid,
    alpha_k = sum_ij dz / dA_ijk, and the heat is max(0, sum_k alpha_k A_ijk) over its largest value in the image. It says
    where the network looked, not that it was right to.

    The model is not changed: its layers are called in a second graph, which adds a shift to the map, one value a channel. The
    gradient with respect to the shift is alpha itself, on any backend, whatever other paths lead from the pixels to the score.
    It may be called from many threads, which wait for each other.

    Of a single sigmoid z is the score of class 1, as for `Predictor`, and -z that of class 0.

    Args:
        model: A functional or sequential classifier; of a model with several outputs, the one named `label` is explained.
        layer: Name of the layer whose output is the map, also one inside a nested network; None takes the map that the
            classifier pools, and where it pools several the finest.

    Raises:
        ValueError: If the model has more than one input, no class output, no such layer, or no map to explain.

    Examples:
        >>> from dermaseg.models import build_cnn
        >>> model = build_cnn(num_classes=7, filters=(8, 16))
        >>> GradCAM(model)(np.zeros((2, 32, 48, 3), "uint8")).shape
        (2, 32, 48)

    References:
        Selvaraju et al., 2017, "Grad-CAM", equations 1 and 2. Deviation: a head that applies softmax inside its dense layer
        is explained by the logarithm of its probability, for the score before it can't be reached.
    """

    def __init__(self, model: keras.Model, *, layer: str | None = None) -> None:
        if len(model.inputs) != 1:
            raise ValueError(f"model must have one input, the images; it has {len(model.inputs)}.")
        classifier = keras.Model(model.inputs[0], _class_output(model))
        self.layer = layer or _pooled_map(classifier)
        self._tap = _Tap()
        self._lock = threading.Lock()  # the tap holds the shift and the map of one call
        self._scores = self._rebuild(classifier)
        self._takes_logarithm = _activation(classifier.layers[-1]) in ("softmax", "sigmoid") and not _is_activation(
            classifier.layers[-1]
        )
        self._pads = any(isinstance(layer, PadToStride) for layer in model.layers)

    def _rebuild(self, classifier: keras.Model) -> keras.Model:
        last = classifier.layers[-1]

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if layer is last and _is_activation(layer):
                return args[0]
            outputs = layer(*args, **kwargs)
            return self._tap(outputs) if layer.name == self.layer else outputs

        nested = self.layer not in {operation.name for operation in classifier.operations}
        scores = keras.models.clone_model(classifier, clone_function=lambda layer: layer, call_function=call, recursive=nested)
        if not self._tap.built:
            raise ValueError(f"layer must name a layer of the model, on the way to its class output; got {self.layer!r}.")
        return scores

    def __call__(self, images: Any, class_index: Any = None, *, batch_size: int = 32) -> np.ndarray:
        """Return one heatmap an image.

        Args:
            images: `(images, height, width, 3)`, values 0 to 255.
            class_index: The class to explain: one for all, or one an image; None takes the class that the model predicts. A
                single sigmoid has the classes 0 and 1.
            batch_size: Images a step; it does not change the result.

        Returns:
            `(images, height, width)` float32, 0 to 1; all 0 where nothing in the map speaks for the class.

        Raises:
            ValueError: If `images` is not four-dimensional, or a class does not exist.
        """
        if np.ndim(images) != 4:
            raise ValueError(f"images must be (images, height, width, channels), got the shape {np.shape(images)}.")
        classes = max(2, self._scores.output_shape[-1])
        if class_index is not None:
            class_index = np.broadcast_to(np.asarray(class_index, dtype="int32"), len(images))
            if class_index.size and not (class_index.min() >= 0 and class_index.max() < classes):
                raise ValueError(
                    f"class_index must be from 0 to {classes - 1}, got {class_index.min()} to {class_index.max()}."
                )
        heatmaps = np.zeros(np.shape(images)[:3], dtype=np.float32)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            with self._lock:
                heatmaps[part] = self._explain(images[part], None if class_index is None else class_index[part])
        return heatmaps

    def _explain(self, images: Any, class_index: np.ndarray | None) -> np.ndarray:
        batch = ops.convert_to_tensor(np.asarray(images, dtype=np.float32))

        def score(shift: Any) -> tuple[Any, Any]:
            self._tap.shift = shift
            try:
                scores = self._class_scores(batch)
                chosen = ops.argmax(scores, axis=-1) if class_index is None else ops.convert_to_tensor(class_index)
                return ops.sum(scores * ops.one_hot(chosen, scores.shape[-1], dtype="float32")), self._tap.features
            finally:
                self._tap.shift = self._tap.features = None

        alpha, features = _gradient(score, ops.zeros((len(images), 1, 1, self._tap.channels)))
        heat = ops.relu(ops.sum(alpha * ops.cast(features, "float32"), axis=-1, keepdims=True))
        height, width = images.shape[1:3]
        covered = covered_size((height, width), heat.shape[1:3]) if self._pads else (height, width)
        heat = ops.convert_to_numpy(ops.image.resize(heat, covered, interpolation="bilinear"))[:, :height, :width, 0]
        largest = heat.max(axis=(1, 2), keepdims=True)
        return np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0)

    def _class_scores(self, batch: Any) -> Any:
        """Return one score a class, `(images, classes)`, float32; of a single output, those of the classes 0 and 1."""
        scores = ops.cast(self._scores(batch, training=False), "float32")
        single = scores.shape[-1] == 1
        if self._takes_logarithm:
            probabilities = ops.concatenate([1.0 - scores, scores], axis=-1) if single else scores
            return ops.log(ops.maximum(probabilities, keras.config.epsilon()))
        return ops.concatenate([-scores, scores], axis=-1) if single else scores


def overlay_heatmap(images: np.ndarray, heatmaps: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """Paint heatmaps over photographs, in the colours of "inferno".

    The colour covers a place by `opacity` times its heat, so that the skin stays visible where nothing was found.

    Args:
        images: `(height, width, 3)` or `(images, height, width, 3)`, values 0 to 255.
        heatmaps: The same without the channels, values 0 to 1.
        opacity: 0 to 1, of the hottest place.

    Returns:
        RGB, uint8, of the shape of `images`.

    Raises:
        ValueError: If the shapes do not belong together, or `opacity` is outside its range.

    Examples:
        >>> overlay_heatmap(np.full((2, 2, 3), 200), np.array([[0.0, 0.0], [0.0, 1.0]]), opacity=1.0)[:, :, 0]
        array([[200, 200],
               [200, 252]], dtype=uint8)
    """
    if np.shape(images) != (*np.shape(heatmaps), 3):
        raise ValueError(
            f"images must have the shape of heatmaps and 3 channels, got {np.shape(images)} and {np.shape(heatmaps)}."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, got {opacity!r}.")
    heat = np.clip(np.asarray(heatmaps, dtype=np.float32), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_INFERNO))
    colours = np.stack([np.interp(heat, stops, channel) for channel in _INFERNO.T], axis=-1)
    cover = opacity * heat[..., np.newaxis]
    return np.rint((1.0 - cover) * images + cover * colours).astype(np.uint8)


class _Tap(keras.layers.Layer):
    """Let the map that passes be read, and shifted, while the graph runs."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.shift: Any = None
        self.features: Any = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4:
            raise ValueError(f"layer must give (batch, height, width, channels), its output has the shape {input_shape}.")
        self.channels = input_shape[-1]

    def call(self, features: Any) -> Any:
        if self.shift is None:
            return features
        self.features = features
        return features + ops.cast(self.shift, features.dtype)


def _gradient(function: Callable[[Any], tuple[Any, Any]], x: Any) -> tuple[Any, Any]:
    """Return d function(x)[0] / dx and function(x)[1]."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                value, extra = function(x)
            return tape.gradient(value, x), extra
        case "jax":
            import jax

            return jax.grad(function, has_aux=True)(x)
        case "torch":
            import torch

            x = x.requires_grad_()
            value, extra = function(x)
            return torch.autograd.grad(value, x)[0], extra.detach()
        case backend:
            raise NotImplementedError(f"GradCAM needs gradients: tensorflow, jax or torch, not {backend}.")


def _class_output(model: keras.Model) -> Any:
    # A sequential model that was never called has outputs, but no output.
    output = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    if isinstance(output, dict):
        output = output.get("label")
    if getattr(output, "ndim", None) != 2:
        raise ValueError(f"model must have an output (batch, classes), alone or named 'label'; it gives {model.output_shape}.")
    return output


def _pooled_map(classifier: keras.Model) -> str:
    """Return the layer whose map the head pools: from the last layer back to the last one that still gives a map."""
    maps = []
    for layer in reversed(classifier.layers):
        if len(getattr(layer.output, "shape", ())) == 4:
            break
        maps += [source for source in keras.tree.flatten(layer.input)[:1] if len(source.shape) == 4]
    if not maps:
        raise ValueError("layer must be named: the model's class output comes from no pooled map.")
    images = keras.KerasTensor((1, *(size or 256 for size in classifier.input.shape[1:])))
    traced = keras.Model(classifier.input, maps).compute_output_spec(images)
    areas = [spec.shape[1] * spec.shape[2] for spec in traced]
    return maps[int(np.argmax(areas))]._keras_history.operation.name


def _activation(layer: keras.layers.Layer) -> str | None:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return keras.activations.serialize(layer.activation) if hasattr(layer, "activation") else None


def _is_activation(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation | keras.layers.Softmax)
