"""Inception-ResNet-V2, pre-trained on ImageNet and fine-tuned in two phases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from dermaseg.models.blocks import dense_head
from dermaseg.optimizers import AdamW

__all__ = ["build_inception_resnet", "cache_features", "fine_tune", "set_trainable", "split_head"]

Part = Literal["head", "top", "all"]

_BASE = "inception_resnet_v2"
_TOP_STARTS_AFTER = "mixed_7a"
_MIN_SIDE = 75
_IMAGENET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/inception_resnet_v2/"
_IMAGENET_FILE = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"


def build_inception_resnet(
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int,
    weights: str | os.PathLike[str] | None = "imagenet",
    trainable: Part = "head",
    dropout: float = 0.2,
    classifier_activation: str | None = "auto",
    name: str | None = None,
) -> keras.Model:
    """Build a classifier on Inception-ResNet-V2 of keras.applications, with its preprocessing inside.

    The base is one layer, `inception_resnet_v2`; average pooling and a dense layer follow. Its batch normalisation always uses
    the statistics it came with, also when the base is trained: a few small batches of skin would spoil them, and with them the
    features (see `set_trainable`).

    Args:
        input_shape: Height and width may be None, and are at least 75 pixels; the weights were trained at 299.
        num_classes: 1 for a yes or no (sigmoid), more for exclusive classes (softmax).
        weights: Weights of the base: `"imagenet"` (Keras downloads 219 MB once), the path of a weights file, or None for
            random ones.
        trainable: The part that learns, as for `set_trainable`.
        dropout: Rate, 0 to 1, before the last dense layer.
        classifier_activation: `"auto"`, the name of an activation, or None for logits.
        name: Name of the model.

    Returns:
        An uncompiled model from `(batch, height, width, 3)`, 0 to 255, to `(batch, num_classes)` float32.

    Raises:
        ValueError: If an argument is outside its range, or the weights can't be had.

    References:
        Szegedy et al., 2017, "Inception-v4, Inception-ResNet and the impact of residual connections on learning".
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}.")
    images = keras.Input(input_shape, name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(images)
    x = _build_base(input_shape, weights)(x)
    # float32: bfloat16 has three digits, too few for a sum over every place.
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    outputs = dense_head(x, num_classes=num_classes, dropout=dropout, classifier_activation=classifier_activation, name="label")
    model = keras.Model(images, outputs, name=name or "inception_resnet")
    set_trainable(model, trainable)
    return model


def set_trainable(model: keras.Model, part: Part) -> None:
    """Choose which part of a `build_inception_resnet` model learns; compile the model afterwards.

    Batch normalisation in the base stays frozen whatever the part. `training=False` in the call of the base, the usual
    advice, would not do: in Keras 3.15 `fit` overrides it inside a functional model, and the statistics move.

    Args:
        model: As built by `build_inception_resnet`, also after loading.
        part: `"head"`: the dense layer; `"top"`: also the blocks after the last reduction, 8x8 at 299 pixels; `"all"`.

    Raises:
        ValueError: If `part` is none of these, or the model has no such base.
    """
    if part not in ("head", "top", "all"):
        raise ValueError(f"trainable must be 'head', 'top' or 'all', got {part!r}.")
    base = _base_of(model)
    base.trainable = True
    learns = part == "all"
    for layer in base.layers:
        layer.trainable = learns and not isinstance(layer, layers.BatchNormalization)
        learns = learns or (part == "top" and layer.name == _TOP_STARTS_AFTER)


def split_head(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a `build_inception_resnet` model where it pools: pixels to features, and features to probabilities.

    Both parts share their layers with the model, so that training the head on stored features trains the model.

    Args:
        model: As built by `build_inception_resnet`, also after loading.

    Returns:
        A model from images to `(batch, 1536)`, and one from there to `(batch, num_classes)`.

    Raises:
        ValueError: If the model has no such base.
    """
    _base_of(model)
    features = model.get_layer("pool").output
    return keras.Model(model.input, features, name="features"), keras.Model(features, model.output, name="head")


def cache_features(
    model: keras.Model,
    images: np.ndarray,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Compute the base's pooled features of every image once, and keep them in a file.

    The file's name is a hash of the pixels, the base's weights, the precision that its layers compute in and the backend:
    whatever changes the features has a file of its own, and features that are out of date are never read.

    Args:
        model: As built by `build_inception_resnet`.
        images: `(images, height, width, 3)`, values 0 to 255; an array or a memory map.
        folder: Where the file is, or will be; created if need be.
        batch_size: Images per step; it does not change the features.
        progress: Called with (done, all) while features are computed.

    Returns:
        `(images, 1536)` float32, mapped from the file, read-only.

    Raises:
        ValueError: If the model has no such base.
        OSError: If the file can't be written.
    """
    extractor, _ = split_head(model)
    path = Path(folder) / f"features_{_fingerprint(images, extractor)}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and moved: an interrupt leaves no half file that is taken for whole.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.save(file, _extract(extractor, images, batch_size, progress))
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return np.load(path, mmap_mode="r")


def fine_tune(
    model: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    loss: Any,
    metrics: Sequence[Any] = ("accuracy",),
    part: Literal["top", "all"] = "top",
    head_epochs: int = 20,
    epochs: int = 10,
    head_learning_rate: float = 1e-3,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
    cache: str | os.PathLike[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[keras.callbacks.History, keras.callbacks.History]:
    """Train the head on the frozen base, then the base's top with it at a lower rate.

    A random head sends random gradients: on an unfrozen base they would destroy first what the head is to learn from.

    Args:
        model: As built by `build_inception_resnet`; trained in place.
        train: `(images, labels)` as arrays, or a dataset that `fit` takes.
        validation: The same, or None.
        loss: Loss for `compile`.
        metrics: Metrics for `compile`.
        part: What learns in the second phase, as for `set_trainable`.
        head_epochs: Passes of the first phase.
        epochs: Passes of the second phase; 0 leaves it out.
        head_learning_rate: Adam's learning rate in the first phase.
        learning_rate: Adam's learning rate in the second phase.
        batch_size: Images per step, where arrays are given.
        cache: A folder for `cache_features`: the first phase then computes the base once instead of at each pass. Needs
            arrays, for augmented images have other features at each pass.
        callbacks: Callbacks for `fit`: in both phases without `cache`, in the second only with it.

    Returns:
        What `fit` recorded in each phase.

    Raises:
        TypeError: If `cache` is given and the images are not arrays.
        ValueError: If the model has no such base.
    """
    set_trainable(model, "head")
    network, phase_train, phase_validation = model, train, validation
    if cache is not None:
        phase_train, phase_validation = (_with_features(model, data, cache, batch_size) for data in (train, validation))
        _, network = split_head(model)
    history = _fit(
        network,
        phase_train,
        phase_validation,
        epochs=head_epochs,
        learning_rate=head_learning_rate,
        loss=loss,
        metrics=metrics,
        batch_size=batch_size,
        callbacks=callbacks if network is model else (),
    )
    set_trainable(model, part)
    return history, _fit(
        model,
        train,
        validation,
        epochs=epochs,
        learning_rate=learning_rate,
        loss=loss,
        metrics=metrics,
        batch_size=batch_size,
        callbacks=callbacks,
    )


def _fit(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    epochs: int,
    learning_rate: float,
    loss: Any,
    metrics: Sequence[Any],
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.History:
    optimizer = AdamW(learning_rate)
    optimizer.build(model.trainable_variables)  # or TensorFlow traces the first step twice
    model.compile(optimizer, loss=loss, metrics=list(metrics))
    data = {"x": train[0], "y": train[1], "batch_size": batch_size} if isinstance(train, tuple) else {"x": train}
    return model.fit(**data, validation_data=validation, epochs=epochs, callbacks=list(callbacks))


def _extract(
    extractor: keras.Model, images: np.ndarray, batch_size: int, progress: Callable[[int, int], None] | None
) -> np.ndarray:
    """Compute features of some batches at a time: `predict` would hold all of a memory map in memory."""
    some = 8 * batch_size
    parts = []
    for start in range(0, len(images), some):
        parts.append(extractor.predict(images[start : start + some], batch_size=batch_size, verbose=0))
        if progress is not None:
            progress(min(start + some, len(images)), len(images))
    return np.concatenate(parts)


def _with_features(
    model: keras.Model, data: Any, folder: str | os.PathLike[str], batch_size: int
) -> tuple[np.ndarray, Any] | None:
    if data is None:
        return None
    if not isinstance(data, tuple) or not isinstance(data[0], np.ndarray):
        raise TypeError(f"cache needs (images, labels) as NumPy arrays, got {type(data).__name__}; leave cache=None.")
    images, labels = data
    return cache_features(model, images, folder, batch_size=batch_size), labels


def _fingerprint(images: np.ndarray, extractor: keras.Model) -> str:
    precision = [layer.compute_dtype for layer in (*extractor.layers, *_base_of(extractor).layers)]
    digest = hashlib.blake2b(f"{images.shape} {images.dtype} {precision} {keras.backend.backend()}".encode(), digest_size=16)
    for array in (*images, *extractor.get_weights()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def has_base(model: keras.Model) -> bool:
    """Tell whether the model is one of `build_inception_resnet`, with a base and a head apart."""
    return any(layer.name == _BASE for layer in model.layers)


def check_sides(model: keras.Model, height: int, width: int) -> None:
    """Refuse photographs that shrink to nothing within the base; other models take any.

    Raises:
        ValueError: If a side is too short.
    """
    if has_base(model) and min(height, width) < _MIN_SIDE:
        raise ValueError(
            f"size is too small: it makes photographs of {height} x {width} pixels, "
            f"and Inception-ResNet-V2 needs {_MIN_SIDE} per side."
        )


def _base_of(model: keras.Model) -> keras.Model:
    base = next((layer for layer in model.layers if layer.name == _BASE), None)
    if base is None:
        raise ValueError(f"model must be one of build_inception_resnet: {model.name!r} has no layer {_BASE!r}.")
    return base


def _build_base(input_shape: tuple[int | None, int | None, int], weights: str | os.PathLike[str] | None) -> keras.Model:
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise ValueError(f"weights must be 'imagenet', None or the path of a weights file; there is no file {str(weights)!r}.")
    source = weights if weights is None else os.fspath(weights)
    try:
        return keras.applications.InceptionResNetV2(include_top=False, weights=source, input_shape=input_shape, name=_BASE)
    except Exception as error:
        if weights is None:
            raise
        if weights != "imagenet":
            raise ValueError(f"{source} does not hold weights of Inception-ResNet-V2 without its top: {error}") from error
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
        raise ValueError(
            f"The ImageNet weights could not be loaded: {error} Without a network, download {_IMAGENET_URL}{_IMAGENET_FILE} "
            f"elsewhere and put it at {folder / _IMAGENET_FILE}; or pass the path of a weights file, or weights=None."
        ) from error
