"""The tasks that dermaseg trains from a folder: what each predicts, with which model, loss and defaults.

A task is data, not a class hierarchy: `training`, `evaluation` and the command line read its fields. Nothing here loads
Keras before a task is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.data.ham10000 import HAM10000_CLASSES, to_benign_malignant
from dermaseg.data.mix import MIXES
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError

if TYPE_CHECKING:
    import keras

__all__ = ["IMBALANCE", "TASKS", "Settings", "Task", "get_task", "prior_factors"]

IMBALANCE = ("none", "logits", "sampling", "weights", "focal")
"""Ways to train for rare classes: see `Settings.imbalance`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a task is trained. Every field can be set from the shell and from `train`.

    Args:
        size: Side in pixels of a square with the area that images are trained at; other shapes keep their aspect.
        batch_size: Photographs a step.
        steps: Steps of the whole training, from which the number of epochs follows: a small data set is seen more often.
        max_epochs: At most so many passes, however small the data set.
        learning_rate: Peak of the rate; it warms up linearly over the first twentieth and falls along a cosine.
        head_epochs: Passes that train the classifier's last layer alone, before all else, on the frozen base's features, which
            are computed once. For networks on a base that knows something already, as that of `classify-9`; left out with
            `model={"weights": None}`, whose base knows nothing.
        weight_decay: Decoupled decay of AdamW (Loshchilov and Hutter, 2019).
        ema: Decay of an exponential moving average of the trained weights, 0 for none, 0.999 for about the last thousand
            steps (Polyak and Juditsky, 1992). The average is what is validated and saved; batch normalisation's statistics
            are moving averages already and stay those of training.
        augment: One of `dermaseg.data.augment.AUGMENTATIONS`; the training part alone is augmented.
        mix: One of `dermaseg.data.mix.MIXES`: photographs of a training batch are mixed, with their masks and classes. Training
            figures then take the class with the largest share for the true one.
        imbalance: What is done, in the training part alone, for rare classes: `"none"`; `"logits"`,
            `LogitAdjustedCrossentropy`; `"sampling"`, drawing them more often; `"weights"`, counting them more, and
            `"focal"`, also counting doubtful photographs more, both `ClassBalancedFocal`.
        imbalance_strength: For `"logits"` and `"sampling"`: 1 treats all classes as equally common, 0 as they come.
        sensitivity: The share of each class's validation photographs, above 0 and at most 1, that its threshold must reach; see
            `dermaseg.decisions.Decisions`. It changes how the trained network is read, not the training.
        precision: One of `dermaseg.precision.PRECISIONS`.
        jit_compile: `"auto"` compiles with XLA on accelerators and with JAX; True and False force it.
        seed: Seeds the split, the first weights, the order and the augmentation.
        model: Further arguments of the task's builder.

    Raises:
        ValueError: If a field is outside its range.
    """

    size: int = 128
    batch_size: int = 32
    steps: int = 3200
    max_epochs: int = 100
    learning_rate: float = 2e-3
    head_epochs: int = 0
    weight_decay: float = 1e-3
    ema: float = 0.0
    augment: str = "light"
    mix: str = "none"
    imbalance: str = "none"
    imbalance_strength: float = 1.0
    sensitivity: float = 0.9
    precision: str = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "steps", "max_epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        if not isinstance(self.head_epochs, int) or isinstance(self.head_epochs, bool) or self.head_epochs < 0:
            raise ValueError(f"head_epochs must be an integer of at least 0, got {self.head_epochs!r}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema!r}.")
        for name, known in (("augment", AUGMENTATIONS), ("mix", MIXES), ("imbalance", IMBALANCE)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if not 0 <= self.imbalance_strength <= 2:
            raise ValueError(f"imbalance_strength must lie between 0 and 2, got {self.imbalance_strength!r}.")
        if not 0 < self.sensitivity <= 1:
            raise ValueError(f"sensitivity must be above 0 and at most 1, as 0.9, got {self.sensitivity!r}.")

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
        monitor: The validation figures whose mean chooses the best epoch; higher is better.
        select: Keeps the samples that say what the task predicts, and names their classes as the task does.
        require: Raises `DataError` for selected samples that cannot train it. A finished model is evaluated on fewer.
        build: From a prepared table and the builder's further arguments to an uncompiled model.
        compile_options: From a prepared training table and the settings to the loss and metrics that `Model.compile` takes.
        settings: The defaults.
    """

    name: str
    summary: str
    target: Literal["mask", "label", "both"]
    monitor: tuple[str, ...]
    select: Callable[[Samples], Samples]
    require: Callable[[Samples], None]
    build: Callable[[Samples, Mapping[str, Any]], keras.Model]
    compile_options: Callable[[Samples, Settings], dict[str, Any]]
    settings: Settings = Settings()

    def prepare(self, samples: Samples) -> Samples:
        """Return the samples that train the task, with the classes that it names, or raise `DataError`."""
        chosen = self.select(samples)
        self.require(chosen)
        return chosen


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

    return build_unet(**options)


def _build_fuzzy_unet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_fuzzy_unet

    return build_fuzzy_unet(**options)


def _build_cnn(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_cnn

    return build_cnn(**{"num_classes": samples.num_classes, "dropout": 0.2, **options})


def _build_inception_resnet(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_inception_resnet

    # Random features are worth neither keeping nor freezing.
    trainable = "top" if options.get("weights", "imagenet") is not None else "all"
    return build_inception_resnet(**{"num_classes": samples.num_classes, "trainable": trainable, **options})


def _build_hybrid(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    from dermaseg.models import build_hybrid

    return build_hybrid(**{"num_classes": samples.num_classes, "dropout": 0.2, **options})


# Losses and what is watched


def _mask_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    from dermaseg.losses import OverlapCrossentropy
    from dermaseg.metrics import JaccardIndex

    return {"loss": OverlapCrossentropy(overlap="jaccard"), "metrics": [JaccardIndex(name="jaccard")]}


def _fuzzy_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    from dermaseg.losses import FuzzySegmentation

    # 1.5 px at 256 pixels, wherever the training happens.
    return {**_mask_options(samples, plan), "loss": FuzzySegmentation(tau_px=1.5 * plan.size / 256)}


def _label_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    import keras

    from dermaseg.losses import ClassBalancedFocal, LogitAdjustedCrossentropy
    from dermaseg.metrics import BalancedAccuracy

    counts = [samples.labels.tolist().count(label) for label in range(samples.num_classes)]
    if plan.imbalance in ("logits", "weights", "focal") and not all(counts):
        missing = [name for name, count in zip(samples.class_names, counts, strict=True) if not count]
        raise DataError(
            f"{samples.source}: the training part has no photograph of {', '.join(missing)}, "
            f"so imbalance={plan.imbalance!r} cannot weigh it. Use imbalance='none' or leave the class out."
        )
    loss: keras.losses.Loss
    if plan.imbalance == "logits":
        loss = LogitAdjustedCrossentropy(priors=counts, tau=plan.imbalance_strength)
    elif plan.imbalance in ("weights", "focal"):
        loss = ClassBalancedFocal(class_counts=counts, gamma=0.0 if plan.imbalance == "weights" else 2.0)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy() if plan.mix == "none" else keras.losses.CategoricalCrossentropy()
    accuracy = keras.metrics.SparseCategoricalAccuracy if plan.mix == "none" else keras.metrics.CategoricalAccuracy
    return {"loss": loss, "metrics": [accuracy(name="accuracy"), BalancedAccuracy(samples.num_classes)]}


def prior_factors(samples: Samples, plan: Settings) -> tuple[float, ...]:
    """Return what brings back the classes' shares in a training part that `plan.imbalance` has evened out; see `Decisions`.

    Empty where nothing was evened out. For `"focal"` it undoes the weights alone, not the focus.
    """
    from dermaseg.losses import class_weights

    counts = np.bincount(samples.with_labels().labels, minlength=samples.num_classes).astype(float)
    if plan.imbalance in ("logits", "sampling"):
        factors = (counts / counts.sum()) ** plan.imbalance_strength
    elif plan.imbalance in ("weights", "focal"):
        weights = class_weights(samples.with_labels().labels, samples.num_classes, scheme="effective")
        factors = np.array([1 / weights[label] for label in range(samples.num_classes)])
    else:
        return ()
    return tuple((factors / factors.max()).tolist())


def _hybrid_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    mask, label = _mask_options(samples, plan), _label_options(samples.with_labels(), plan)
    # Weighted: a sample without a mask has the weight 0 there, and must not count as one with an empty mask.
    return {
        "loss": {"mask": mask["loss"], "label": label["loss"]},
        "weighted_metrics": {"mask": mask["metrics"], "label": label["metrics"]},
    }


_OUTLINES = Settings(steps=7200)
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
            compile_options=_mask_options,
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
            compile_options=_fuzzy_options,
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
            compile_options=_label_options,
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
            compile_options=_label_options,
        ),
        Task(
            name="classify-7",
            summary=f"HAM10000's seven diagnoses ({', '.join(HAM10000_CLASSES)}): a residual CNN.",
            target="label",
            monitor=("val_accuracy", "val_balanced_accuracy"),
            select=Samples.with_labels,
            require=_need_count(7),
            build=_build_cnn,
            compile_options=_label_options,
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
            compile_options=_label_options,
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
            compile_options=_hybrid_options,
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
