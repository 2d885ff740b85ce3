"""The tasks that dermaseg trains from a folder: what each predicts, with which model, loss and defaults.

A task is data, not a class hierarchy: `training`, `evaluation` and the command line read its fields. Nothing here loads
Keras before a task is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError

if TYPE_CHECKING:
    import keras

__all__ = ["TASKS", "Settings", "Task", "get_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a task is trained. Every field can be set from the shell and from `train`.

    Args:
        size: Side in pixels of a square with the area that images are trained at; other shapes keep their aspect.
        batch_size: Photographs a step.
        steps: Steps of the whole training, from which the number of epochs follows: a small data set is seen more often.
        max_epochs: At most so many passes, however small the data set.
        learning_rate: Peak of the rate; it warms up linearly over the first twentieth and falls along a cosine.
        weight_decay: Decoupled decay of AdamW (Loshchilov and Hutter, 2019).
        augment: One of `dermaseg.data.augment.AUGMENTATIONS`; the training part alone is augmented.
        precision: One of `dermaseg.precision.PRECISIONS`.
        jit_compile: `"auto"` compiles with XLA on accelerators and with JAX; True and False force it.
        seed: Seeds the split, the first weights, the order and the augmentation.
        model: Further arguments of the task's builder.
    """

    size: int = 128
    batch_size: int = 32
    steps: int = 6000
    max_epochs: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    augment: str = "medium"
    precision: str = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "steps", "max_epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}.")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {self.augment!r}.")

    def epochs(self, images: int) -> int:
        """Return how many passes over `images` photographs make `steps` steps."""
        return max(1, min(self.max_epochs, round(self.steps / self.steps_per_epoch(images))))

    def steps_per_epoch(self, images: int) -> int:
        """Return the whole batches in one pass; fewer photographs than a batch make one smaller batch."""
        return max(1, images // self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to learn from a table of samples.

    Args:
        name: Its name in the shell.
        summary: One line for people.
        target: What the pipeline delivers beside the images.
        monitor: The validation figure that chooses the best model; higher is better.
        prepare: Keeps the samples that the task can use and names its classes, or raises `DataError`.
        build: From a prepared table and the builder's further arguments to an uncompiled model.
        compile_options: From a prepared training table to the loss and metrics that `Model.compile` takes.
        settings: The defaults.
    """

    name: str
    summary: str
    target: Literal["mask", "label", "both"]
    monitor: str
    prepare: Callable[[Samples], Samples]
    build: Callable[[Samples, Mapping[str, Any]], keras.Model]
    compile_options: Callable[[Samples], dict[str, Any]]
    settings: Settings = Settings()


def _with_masks(samples: Samples) -> Samples:
    chosen = samples.with_masks()
    if not len(chosen):
        raise DataError(f"{samples.source}: no sample has a mask, and segmentation learns from masks.")
    return chosen


def _build_unet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_unet

    return build_unet(**options)


def _segmentation_options(samples: Samples) -> dict[str, Any]:
    from dermaseg.losses import OverlapCrossentropy
    from dermaseg.metrics import JaccardIndex

    return {"loss": OverlapCrossentropy(overlap="jaccard"), "metrics": [JaccardIndex(name="jaccard")]}


def _build_fuzzy_unet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_fuzzy_unet

    return build_fuzzy_unet(**options)


def _fuzzy_options(samples: Samples) -> dict[str, Any]:
    from dermaseg.losses import FuzzySegmentation
    from dermaseg.metrics import JaccardIndex

    # 1.5 px at 256 pixels, at the default size.
    return {"loss": FuzzySegmentation(tau_px=0.75), "metrics": [JaccardIndex(name="jaccard")]}


_SEGMENT = Task(
    name="segment",
    summary="Outline the lesion: a U-Net from photographs and masks.",
    target="mask",
    monitor="val_jaccard",
    prepare=_with_masks,
    build=_build_unet,
    compile_options=_segmentation_options,
)

_SEGMENT_FUZZY = Task(
    name="segment-fuzzy",
    summary="Outline the lesion: a Fuzzy U-Net, trained towards fuzzy borders.",
    target="mask",
    monitor="val_jaccard",
    prepare=_with_masks,
    build=_build_fuzzy_unet,
    compile_options=_fuzzy_options,
)

TASKS: Mapping[str, Task] = {task.name: task for task in (_SEGMENT, _SEGMENT_FUZZY)}
"""Every task by its name in the shell."""


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        ValueError: If there is none.

    Examples:
        >>> get_task("segment").target
        'mask'
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}.")
    return TASKS[name]
