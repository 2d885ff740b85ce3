"""Networks that Keras runs: dermaseg's, medicai's, and those of keras-unet-collection."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.peers.contestants import CLASSES, FAMILY, PLAIN_FILTERS, Contestant
from benchmarks.peers.learners import CLIP_NORM, labels_of
from dermaseg.layers import CropLike, PadToStride
from dermaseg.losses import OverlapCrossentropy
from dermaseg.models import build_cnn, build_fuzzy_unet, build_hybrid, build_inception_resnet, build_unet
from dermaseg.optimizers import AdamW
from dermaseg.precision import dtype_policy

__all__ = ["KerasLearner", "build_network", "forward_flops", "trainable_parameters"]

_PEER_STRIDE = 32


class KerasLearner:
    """A `Learner` by `train_on_batch` and `predict_on_batch`; arguments are those of `build_learner`."""

    def __init__(
        self, contestant: Contestant, size: tuple[int, int], *, seed: int, learning_rate: float, weight_decay: float
    ) -> None:
        keras.utils.set_random_seed(seed)
        self._precision = contestant.precision
        with dtype_policy("mixed_bfloat16" if contestant.precision == "bfloat16" else "float32"):
            self.model = build_network(contestant, size)
        options: dict[str, Any] = {"global_clipnorm": CLIP_NORM}
        if contestant.network.startswith("dermaseg"):  # as its own trainings, and another's users would take Keras's
            optimizer = AdamW(learning_rate, weight_decay=weight_decay, **options)
        else:
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **options)
        optimizer.build(self.model.trainable_variables)  # or TensorFlow traces the step twice, of whatever network
        self.model.compile(optimizer, _losses(self.model), jit_compile=contestant.engine == "xla")
        self.parameters = trainable_parameters(self.model)
        self.forward_flops = forward_flops(contestant, size)
        backend = contestant.framework
        self.versions = {name: importlib.metadata.version(name) for name in ("keras", backend)}
        if (device := _accelerator(backend)) is not None:
            self.versions["GPU"] = device.device_kind
        self._device = device
        if not contestant.network.startswith("dermaseg"):
            self.versions[contestant.network] = importlib.metadata.version(contestant.network)

    def train(self, images: np.ndarray, masks: np.ndarray) -> float:
        """Make one step."""
        # With several outputs their own losses follow.
        return float(np.ravel(self.model.train_on_batch(images, self._targets(masks)))[0])

    def train_steps(self, images: np.ndarray, masks: np.ndarray, steps: int) -> None:
        """Make several steps on the same pictures: by `fit` on an accelerator, where a call a step costs more than the step."""
        if self._device is None:
            for _ in range(steps):
                self.train(images, masks)
        elif steps:
            self.model.fit(_Same((images, self._targets(masks)), steps), shuffle=False, verbose=0)

    def _targets(self, masks: np.ndarray) -> Any:
        found = {"mask": masks, "label": labels_of(masks)}
        names = self.model.output_names
        return found[_output(names[0])] if len(names) == 1 else found

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities: of the mask where there is one; the diagnosis is computed and fetched as well."""
        outputs = self.model.predict_on_batch(images)
        return np.asarray(outputs["mask"] if isinstance(outputs, dict) else outputs, np.float32)

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of the steps to come."""
        self.model.optimizer.learning_rate = rate

    def multiply(self, size: int) -> Callable[[], object]:
        """Return a function that multiplies two matrices."""
        square = keras.ops.ones((size, size), dtype=self._precision)
        corner = keras.ops.matmul(square, square)[:1, :1]
        keras.ops.convert_to_numpy(keras.ops.cast(corner, "float32"))

        def run() -> np.ndarray:
            product = keras.ops.matmul(square, square)
            return keras.ops.convert_to_numpy(keras.ops.cast(product[:1, :1], "float32"))

        return run

    def card_memory_mb(self) -> float | None:
        """Return what JAX's allocator has held at most."""
        return None if self._device is None else self._device.memory_stats()["peak_bytes_in_use"] / 1e6


class _Same(keras.utils.PyDataset):
    """The same batch, again and again."""

    def __init__(self, batch: Any, count: int) -> None:
        super().__init__()
        self.batch = batch
        self.count = count

    @property
    def num_batches(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.batch


def _accelerator(backend: str) -> Any | None:
    """Return JAX's device where it is no processor; TensorFlow is not measured on any."""
    if backend != "jax":
        return None
    import jax

    device = jax.devices()[0]
    return None if device.platform == "cpu" else device


def build_network(contestant: Contestant, size: tuple[int | None, int | None]) -> keras.Model:
    """Build a network from raw pixels to mask probabilities; dermaseg's own takes any size whatever `size` says.

    Raises:
        ImportError: If a peer's library is missing.
    """
    if contestant.network == "dermaseg":
        return build_unet(**contestant.options)
    if contestant.network in FAMILY:
        return _of_family(contestant.network, size)
    inputs = keras.Input((*size, 3))
    padded = PadToStride(_PEER_STRIDE)(layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    network = _peer(contestant.network, tuple(padded.shape[1:3]))
    return keras.Model(inputs, CropLike()([network(padded), inputs]))


def _of_family(network: str, size: tuple[int | None, int | None]) -> keras.Model:
    shape = (*size, 3)
    if network == "dermaseg-cnn":
        return build_cnn(num_classes=CLASSES, input_shape=shape)
    if network == "dermaseg-fuzzy":
        return build_fuzzy_unet(input_shape=shape)
    if network == "dermaseg-inception":
        return build_inception_resnet(num_classes=CLASSES, input_shape=shape, weights=None, trainable="all")
    return build_hybrid(num_classes=CLASSES, input_shape=shape, learned_weights=False)


def _losses(model: keras.Model) -> Any:
    losses = {"mask": OverlapCrossentropy(overlap="jaccard"), "label": keras.losses.SparseCategoricalCrossentropy()}
    names = model.output_names
    return losses[_output(names[0])] if len(names) == 1 else losses


def _output(name: str) -> str:
    """Return what a network's only output is; peers call their mask by other names."""
    return "label" if name == "label" else "mask"


def _peer(name: str, size: tuple[int | None, ...]) -> Callable[[Any], Any]:
    if name == "medicai":
        from medicai.models import UNet

        return UNet(input_shape=(*size, 3), encoder_name="resnet18", num_classes=1)
    from keras_unet_collection.models import unet_2d

    model = unet_2d(
        (*size, 3),
        list(PLAIN_FILTERS),
        n_labels=1,
        output_activation="Sigmoid",
        batch_norm=True,
    )

    def call(images: Any) -> Any:
        outputs = model(images)
        return outputs[0] if isinstance(outputs, list) else outputs

    return call


def trainable_parameters(model: keras.Model) -> int:
    """Count the weights that gradients change: what PyTorch calls parameters, the running means of norms left out."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def forward_flops(contestant: Contestant, size: tuple[int, int]) -> float:
    """Count the operations of all convolutions of a twin of known size; those of norms and additions are left out."""
    if contestant.network == "dermaseg":
        model = build_unet(**contestant.options, input_shape=(*size, 3))
    else:
        model = build_network(contestant, size)
    return sum(_layer_flops(layer) for layer in _flat(model))


def _flat(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer


def _layer_flops(layer: keras.layers.Layer) -> float:
    if isinstance(layer, layers.Conv2DTranspose):
        _, height, width, _ = layer.input.shape  # every input pixel meets the whole kernel
    elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        _, height, width, _ = layer.output.shape
    else:
        return 0.0
    return 2.0 * float(np.prod(layer.kernel.shape)) * height * width
