"""Start a network from the weights of another one, or its head on a base that knows something already."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg.callbacks import StopOnNaN
from dermaseg.data import Split
from dermaseg.data.cache import PixelCache
from dermaseg.data.samples import Samples
from dermaseg.models.inception_resnet import cache_features, split_head
from dermaseg.optimizers import AdamW
from dermaseg.presets import load_preset
from dermaseg.pretrained import find_preset, is_preset, read_card
from dermaseg.runs import read_json
from dermaseg.saving import load_model
from dermaseg.tasks import Settings, Task

__all__ = ["lend_weights"]

HEAD_LEARNING_RATE = 1e-3
LABEL_HEAD = "label_logits"
"""The layer with a column for each class, in every network of `dermaseg.models` that names classes."""


def lend_weights(lender: keras.Model, borrower: keras.Model, *, skip: Collection[str] = ()) -> int:
    """Copy the weights of every layer that both models have under one name and with the same shapes.

    Args:
        lender: Where weights come from.
        borrower: Where they go; its other layers keep their own.
        skip: Names of layers that keep their own in any case, as `"label_logits"`, the head, where the two name other classes:
            of as many, or in another order, it has the same shape.

    Returns:
        How many layers were copied.

    Raises:
        ValueError: If no layer fits.

    Examples:
        >>> from dermaseg.models import build_cnn, build_unet
        >>> lend_weights(build_unet(filters=(8, 16)), build_cnn(num_classes=2, filters=(8, 16))) > 0
        True
    """
    lent = {layer.name: layer.get_weights() for layer in lender.layers if layer.weights and layer.name not in skip}
    copied = 0
    for layer in borrower.layers:
        weights = lent.get(layer.name, [])
        if weights and [array.shape for array in weights] == [tuple(own.shape) for own in layer.weights]:
            layer.set_weights(weights)
            copied += 1
    if not copied:
        raise ValueError(
            f"start: no layer of {lender.name!r} has the name and shape of one of {borrower.name!r}. "
            "Build both with the same filters, or leave start out."
        )
    return copied


def names_others(lender: str, class_names: Sequence[str]) -> bool:
    """Tell whether the card of a preset, a run folder or a saved model names other classes, or the same in another order.

    A checkpoint has the names of its run. A model without a card is taken for one that names these.
    """
    card = read_card(lender)
    if not card and not is_preset(lender) and (settings := _run_around(lender) / "settings.json").is_file():
        card = read_json(settings)
    return "class_names" in card and list(card["class_names"]) != list(class_names)


def renew_head(model: keras.Model) -> None:
    """Give the head that names classes the random weights that it was built with."""
    for layer in model.layers:
        if layer.name == LABEL_HEAD and isinstance(layer, keras.layers.Dense):
            for weight, initial in ((layer.kernel, layer.kernel_initializer), (layer.bias, layer.bias_initializer)):
                if weight is not None:
                    weight.assign(initial(weight.shape, dtype=weight.dtype))


def open_lender(start: str) -> keras.Model:
    """Open a preset by its name, a run folder or a saved model.

    Raises:
        DataError: If there is none.
    """
    return load_preset(start) if is_preset(start) else load_model(start)


def _run_around(start: str | Path) -> Path:
    """Return the run folder that a model or a checkpoint is in; where it is in none, the folder of the file."""
    path = Path(start).absolute()
    return next((folder for folder in (path, *path.parents[:2]) if (folder / "settings.json").is_file()), path.parent)


def warn_of_lent_knowledge(start: str | Path, split: Split, samples: Samples) -> None:
    """Warn where the network that lends its weights was trained on what this run would judge by."""
    folder = _run_around(start)
    if is_preset(start):
        if any(sample.image.name.startswith("ISIC_") for sample in samples):  # so are the photographs of every preset named
            warnings.warn(
                f"the preset {start} was trained on photographs of {find_preset(str(start)).card['data']}. If these are some "
                "of them, this run's figures will be too good, unless its split is that of the preset's card: read them on "
                "other data.",
                stacklevel=3,
            )
    elif all((folder / name).is_file() for name in ("settings.json", "split.json")):
        known = set(Split.load(folder / "split.json").parts.get("train", ()))
        judged = {sample.id for name, part in split.apply(samples).items() if name != "train" for sample in part}
        if known & judged:
            warnings.warn(
                f"{folder}: was trained on {len(known & judged)} of the {len(judged)} photographs that validate and test this "
                "run, whose figures will be too good. Give split=Split.load(...) of that run, or the same data and seed.",
                stacklevel=3,
            )


def head_comes_first(plan: Settings) -> bool:
    """Tell whether the head is trained first: it is asked for, and the base has weights that are worth freezing."""
    return plan.head_epochs > 0 and ("weights" not in plan.model or plan.model["weights"] is not None)


def train_head(
    model: keras.Model,
    task: Task,
    plan: Settings,
    parts: tuple[Samples, Samples],
    *,
    size: tuple[int, int],
    weights: np.ndarray | None,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train the last layer on features of the frozen base, which looks at each photograph once, as it is.

    A random head sends random gradients: on an unfrozen base they would destroy first what the head is to learn from.
    Photographs are neither augmented nor mixed, for then they would have other features at each pass. The features are kept
    in the cache, so that a run that was interrupted computes them no second time.

    Args:
        model: As built by `build_inception_resnet`; its head is trained in place.
        task: Gives the loss and the metrics.
        plan: Gives the passes.
        parts: Those that train and validate.
        size: Height and width in pixels.
        weights: How likely each training photograph would be drawn, which here counts it more, or None.
        cache: The run's folder for pixels and features.
        progress: Called with (done, all).

    Returns:
        A row an epoch: its number, loss and metrics, also on the validation part.
    """
    _, head = split_head(model)
    inputs, targets = [], []
    for part in parts:
        images = PixelCache(part, size=size, folder=cache, progress=progress).map_images()
        inputs.append(np.array(cache_features(model, images, cache, batch_size=plan.batch_size, progress=progress)))
        one_hot = np.eye(part.num_classes, dtype=np.float32)
        targets.append(part.labels if plan.mix == "none" else one_hot[part.labels])
    head.compile(AdamW(HEAD_LEARNING_RATE), **task.compile_options(parts[0], plan))
    head.optimizer.build(head.trainable_variables)
    history = head.fit(
        inputs[0],
        targets[0],
        sample_weight=None if weights is None else weights / weights.mean(),
        validation_data=(inputs[1], targets[1]),
        batch_size=plan.batch_size,
        epochs=plan.head_epochs,
        callbacks=[StopOnNaN()],
        verbose=0,
    ).history
    return [
        {"epoch": epoch + 1, **{name: float(row[epoch]) for name, row in history.items()}} for epoch in range(plan.head_epochs)
    ]
