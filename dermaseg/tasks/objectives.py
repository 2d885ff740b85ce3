"""What a training minimises and what is watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.data.samples import Samples
from dermaseg.errors import DataError
from dermaseg.tasks.task import Settings

if TYPE_CHECKING:
    import keras

__all__ = ["fuzzy_options", "hybrid_options", "label_options", "mask_options", "prior_factors", "sampling_weights"]


def mask_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    """Watch the Jaccard index, and minimise it with cross-entropy."""
    from dermaseg.losses import OverlapCrossentropy
    from dermaseg.metrics import JaccardIndex

    return {"loss": OverlapCrossentropy(overlap="jaccard"), "metrics": [JaccardIndex(name="jaccard")]}


def fuzzy_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    """Do the same towards borders as soft as experts disagree about them."""
    from dermaseg.losses import FuzzySegmentation

    # 1.5 px at 256 pixels, wherever the training happens.
    return {**mask_options(samples, plan), "loss": FuzzySegmentation(tau_px=1.5 * plan.size / 256)}


def label_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    """Watch accuracies, and minimise the cross-entropy that `plan.imbalance` asks for.

    Raises:
        DataError: If a class to be weighed has no photograph.
    """
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


def sampling_weights(samples: Samples, plan: Settings) -> np.ndarray | None:
    """Return how likely each training photograph is to be drawn, or None where each is taken once an epoch.

    Raises:
        ValueError: If rare classes shall be drawn more often and no photograph has a class.
    """
    if plan.imbalance != "sampling":
        return None
    labels = samples.labels
    if not (labels >= 0).any():
        raise ValueError(
            "imbalance='sampling' draws rare classes more often, and no training photograph has a class; take 'none'."
        )
    counts = np.bincount(labels[labels >= 0], minlength=samples.num_classes).astype(float)
    rarity = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0) ** plan.imbalance_strength
    known = rarity[np.maximum(labels, 0)]
    return np.where(labels >= 0, known, known[labels >= 0].mean())  # a photograph without a class is drawn as an average one


def prior_factors(samples: Samples, plan: Settings, options: Mapping[str, Any] | None = None) -> tuple[float, ...]:
    """Return what brings back the classes' shares in a training part that loss or sampling evened out; see `Decisions`.

    Of `ClassBalancedFocal` it undoes the weights alone, not the focus. Any loss but that and `LogitAdjustedCrossentropy` is
    taken for one that evens nothing out.

    Args:
        samples: The training part.
        plan: How it was trained, which says whether rare classes were drawn more often.
        options: What the network was compiled with, as `Task.compile_options` returns it; None for `label_options`.

    Returns:
        A factor a class, the largest 1; empty where nothing was evened out.

    Raises:
        DataError: As `label_options`, where `options` are None.
    """
    labelled = samples.with_labels()
    loss = (label_options(labelled, plan) if options is None else options).get("loss")
    if isinstance(loss, Mapping):
        loss = loss.get("label")
    factors = np.ones(samples.num_classes) * _evened_out_by(loss)
    if plan.imbalance == "sampling":
        counts = np.bincount(labelled.labels, minlength=samples.num_classes)
        factors *= (counts / counts.sum()) ** plan.imbalance_strength
    if (factors == factors[0]).all():
        return ()
    return tuple((factors / factors.max()).tolist())


def _evened_out_by(loss: Any) -> np.ndarray | float:
    """Return by what a loss teaches the network to divide the probability of each class, up to a common factor."""
    from dermaseg.losses import ClassBalancedFocal, LogitAdjustedCrossentropy

    if isinstance(loss, LogitAdjustedCrossentropy):
        priors = np.array(loss.parameters["priors"])
        return (priors / priors.sum()) ** loss.parameters["tau"]
    if isinstance(loss, ClassBalancedFocal):
        return 1.0 - loss.parameters["beta"] ** np.array(loss.parameters["class_counts"], dtype=float)
    return 1.0


def hybrid_options(samples: Samples, plan: Settings) -> dict[str, Any]:
    """Do both, with the weight 0 for what a sample lacks."""
    mask, label = mask_options(samples, plan), label_options(samples.with_labels(), plan)
    # Weighted: a sample without a mask has the weight 0 there, and must not count as one with an empty mask.
    return {
        "loss": {"mask": mask["loss"], "label": label["loss"]},
        "weighted_metrics": {"mask": mask["metrics"], "label": label["metrics"]},
    }
