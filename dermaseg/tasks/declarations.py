"""What each task takes from a folder, and with which model it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dermaseg.data.ham10000 import HAM10000_CLASSES, to_benign_malignant
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError
from dermaseg.tasks.objectives import fuzzy_options, hybrid_options, label_options, mask_options
from dermaseg.tasks.task import Settings, Task

if TYPE_CHECKING:
    import keras

__all__ = ["TASKS", "get_task"]

# What each task takes from a folder, and what its training needs


def _with_malignancy(samples: Samples) -> Samples:
    chosen = samples.with_labels()
    if not set(chosen.class_names) <= set(HAM10000_CLASSES):
        return chosen
    return to_benign_malignant(chosen.with_class_names(HAM10000_CLASSES))


def _with_either(samples: Samples) -> Samples:
    return samples.filter(lambda sample: sample.mask is not None or sample.label is not None)


def _need_masks(samples: Samples) -> None:
    if not len(samples.with_masks()):
        raise DataError(f"{samples.source}: no sample has a mask, and segmentation learns from masks.")


def _need_classes(samples: Samples) -> None:
    present = len(set(samples.with_labels().labels.tolist()))
    if present < 2:
        raise DataError(f"{samples.source}: classification needs two or more classes with photographs, found {present}.")


def _need_both(samples: Samples) -> None:
    _need_masks(samples)
    _need_classes(samples)


def _need_count(count: int) -> Callable[[Samples], None]:
    def need(samples: Samples) -> None:
        _need_classes(samples)
        if samples.num_classes != count:
            raise DataError(
                f"{samples.source}: found {samples.num_classes} classes ({', '.join(samples.class_names)}), not {count}. "
                "The task classify takes any number."
            )

    return need


# Models


def _build_unet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_unet

    return _call(build_unet, options)


def _build_fuzzy_unet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_fuzzy_unet

    return _call(build_fuzzy_unet, options)


def _build_cnn(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_cnn

    return _call(build_cnn, {"num_classes": samples.num_classes, "dropout": 0.2, **options})


def _build_inception_resnet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_inception_resnet

    # Random features are worth neither keeping nor freezing.
    trainable = "top" if options.get("weights", "imagenet") is not None else "all"
    return _call(build_inception_resnet, {"num_classes": samples.num_classes, "trainable": trainable, **options})


def _build_hybrid(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_hybrid

    return _call(build_hybrid, {"num_classes": samples.num_classes, "dropout": 0.2, **options})


def _call(builder: Callable[..., keras.Model], arguments: Mapping[str, Any]) -> keras.Model:
    """Build, and take an argument that the builder does not know, or of another type, for the caller's mistake."""
    try:
        return builder(**arguments)
    except TypeError as error:
        raise ValueError(f"model: {error}. See dermaseg.models.{builder.__name__}.") from error


_OUTLINES = Settings(steps=7200, minutes=25)
_CLASSIFIER = Settings(imbalance="logits", imbalance_strength=0.5)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="segment",
            summary="Outline the lesion: a U-Net from photographs and masks.",
            target="mask",
            monitor=("val_jaccard",),
            select=Samples.with_masks,
            require=_need_masks,
            build=_build_unet,
            compile_options=mask_options,
            settings=_OUTLINES,
        ),
        Task(
            name="segment-fuzzy",
            summary="Outline the lesion: a Fuzzy U-Net, trained towards fuzzy borders.",
            target="mask",
            monitor=("val_jaccard",),
            select=Samples.with_masks,
            require=_need_masks,
            build=_build_fuzzy_unet,
            compile_options=fuzzy_options,
            settings=_OUTLINES,
        ),
        Task(
            name="classify",
            summary="Name the lesion: a residual CNN for the classes that the folder has.",
            target="label",
            monitor=("val_accuracy", "val_balanced_accuracy"),
            select=Samples.with_labels,
            require=_need_classes,
            build=_build_cnn,
            compile_options=label_options,
            settings=_CLASSIFIER,
        ),
        Task(
            name="classify-2",
            summary="Benign or malignant: a residual CNN. HAM10000's seven diagnoses are joined to the two.",
            target="label",
            monitor=("val_accuracy", "val_balanced_accuracy"),
            select=_with_malignancy,
            require=_need_count(2),
            build=_build_cnn,
            compile_options=label_options,
        ),
        Task(
            name="classify-7",
            summary=f"HAM10000's seven diagnoses ({', '.join(HAM10000_CLASSES)}): a residual CNN.",
            target="label",
            monitor=("val_accuracy", "val_balanced_accuracy"),
            select=Samples.with_labels,
            require=_need_count(7),
            build=_build_cnn,
            compile_options=label_options,
            settings=_CLASSIFIER,
        ),
        Task(
            name="classify-9",
            summary="Nine classes, a folder each: Inception-ResNet-V2 with ImageNet's weights, first the head, then the top.",
            target="label",
            monitor=("val_accuracy", "val_balanced_accuracy"),
            select=Samples.with_labels,
            require=_need_count(9),
            build=_build_inception_resnet,
            compile_options=label_options,
            settings=Settings(
                size=224, batch_size=16, steps=2000, learning_rate=3e-4, head_epochs=20, model={"weights": "imagenet"}
            ),
        ),
        Task(
            name="hybrid",
            summary="Outline the lesion and name it, with one network; masks or classes may be missing.",
            target="both",
            monitor=("val_mask_jaccard", "val_label_balanced_accuracy"),
            select=_with_either,
            require=_need_both,
            build=_build_hybrid,
            compile_options=hybrid_options,
            settings=_CLASSIFIER,
        ),
    )
}
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
