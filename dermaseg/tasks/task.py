"""What a task is, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.data.mix import MIXES
from dermaseg.data.on_device import DEVICES
from dermaseg.data.samples import Samples
from dermaseg.precision import PRECISIONS

if TYPE_CHECKING:
    import keras

__all__ = ["IMBALANCE", "Settings", "Task"]

IMBALANCE = ("none", "logits", "sampling", "weights", "focal")
"""Ways to train for rare classes: see `Settings.imbalance`."""

SMALLEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a task is trained. Every field can be set from the shell and from `train`.

    Args:
        size: Side in pixels of a square with the area that images are trained at; other shapes keep their aspect.
        batch_size: Photographs a step.
        steps: Steps of the whole training, from which the number of epochs follows: a small data set is seen more often.
        max_epochs: At most so many passes, however small the data set.
        minutes: What training may take on this machine, from decoding the photographs of its parts to the finished model; None
            for whatever it takes. Looking for copies before and scoring the test part after it come on top. A rehearsal of a
            few steps finds out how many of `steps` fit, and so many are planned: the learning rate still falls to its end. The
            run's settings hold their number, by which another machine repeats it.
        learning_rate: Peak of the rate; it warms up linearly over the first twentieth and falls along a cosine.
        head_epochs: Passes that train the classifier's last layer alone, before all else, on the frozen base's features, which
            are computed once. For networks on a base that knows something already, as that of `classify-9`; left out with
            `model={"weights": None}`, whose base knows nothing.
        weight_decay: Decoupled decay of AdamW (Loshchilov and Hutter, 2019), of the kernels of convolutions and dense layers.
        ema: Decay of an exponential moving average of the trained weights, 0 for none, 0.999 for about the last thousand
            steps (Polyak and Juditsky, 1992). The average is what is validated and saved; batch normalisation's statistics
            are moving averages already and stay those of training.
        augment: One of `dermaseg.data.augment.AUGMENTATIONS`; the training part alone is augmented.
        augment_on: Where they are, and where they are mixed: `"processor"`, `"accelerator"` (of JAX), or `"auto"` for the
            accelerator where Keras runs on JAX with one GPU. A run's settings hold what was taken, since the pixels of a seed
            depend on it.
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
        seed: Seeds the split, the first weights, the order and the augmentation; 0 to 4294967295.
        model: Further arguments of the task's builder.

    Raises:
        ValueError: If a field is outside its range.
    """

    size: int = 128
    batch_size: int = 32
    steps: int = 3200
    max_epochs: int = 100
    minutes: float | None = None
    learning_rate: float = 2e-3
    head_epochs: int = 0
    weight_decay: float = 1e-3
    ema: float = 0.0
    augment: str = "light"
    augment_on: str = "auto"
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
        if self.size < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST} pixels, got {self.size!r}: nothing is to be seen in fewer.")
        if not isinstance(self.head_epochs, int) or isinstance(self.head_epochs, bool) or self.head_epochs < 0:
            raise ValueError(f"head_epochs must be an integer of at least 0, got {self.head_epochs!r}.")
        if self.minutes is not None and not (_is_number(self.minutes) and 0 < self.minutes < float("inf")):
            raise ValueError(f"minutes must be a number above 0, or None, got {self.minutes!r}.")
        if not (_is_number(self.learning_rate) and 0 < self.learning_rate < float("inf")):
            raise ValueError(f"learning_rate must be a number above 0, as 1e-3, got {self.learning_rate!r}.")
        if not (_is_number(self.weight_decay) and 0 <= self.weight_decay < float("inf")):
            raise ValueError(f"weight_decay must be a number of at least 0, as 1e-3, got {self.weight_decay!r}.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be an integer from 0 to {2**32 - 1}, got {self.seed!r}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema!r}.")
        choices = {
            "augment": AUGMENTATIONS,
            "augment_on": DEVICES,
            "mix": MIXES,
            "imbalance": IMBALANCE,
            "precision": PRECISIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if not isinstance(self.jit_compile, bool) and self.jit_compile != "auto":
            raise ValueError(f"jit_compile must be True, False or 'auto', got {self.jit_compile!r}.")
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
