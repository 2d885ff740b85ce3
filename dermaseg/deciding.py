"""Settle on the validation part how a finished network's output is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from dermaseg.data import group_samples, make_dataset
from dermaseg.data.samples import Samples
from dermaseg.decisions import Decisions, fit_label_decisions, fit_mask_rejection
from dermaseg.distribution import replica_count
from dermaseg.metrics import segmentation_scores
from dermaseg.prediction import clean_mask
from dermaseg.prediction.outputs import named_outputs
from dermaseg.tasks import Settings, Task, prior_factors

__all__ = ["decide"]


def decide(
    model: keras.Model,
    task: Task,
    plan: Settings,
    train_part: Samples,
    validation_part: Samples,
    common: Mapping[str, Any],
) -> Decisions:
    """Read the validation photographs once more, as the finished model sees them, and settle how to read its output.

    Args:
        model: A finished model of the task.
        task: The task.
        plan: How it was trained.
        train_part: The samples that trained it, whose shares of classes are restored.
        validation_part: The samples that decide.
        common: What else `make_dataset` takes: the size, the target, where decoded pixels are kept.

    Returns:
        Temperature, thresholds, conformal sets and levels of doubt, as far as the task has them.
    """
    found: dict[str, Any] = {}
    labelled = validation_part.with_labels()
    if task.target != "mask" and len(labelled):
        dataset = make_dataset(labelled, batch_size=plan.batch_size, **{**common, "target": None})
        outputs = named_outputs(model.predict(dataset, verbose=0))
        found = fit_label_decisions(
            labelled.labels,
            outputs["label"],
            labelled.class_names,
            prior_factors=prior_factors(train_part, plan) if outputs["label"].shape[1] > 1 else (),
            sensitivity=plan.sensitivity,
            groups=group_samples(labelled),
        )
    masked = validation_part.with_masks()
    if task.target != "label" and len(masked):
        dataset = make_dataset(masked, batch_size=plan.batch_size, **{**common, "target": "mask"})
        predicted = ((masks, _predict(model, np.asarray(images))) for images, masks in dataset)
        pairs = ((np.asarray(masks), named_outputs(outputs)["mask"]) for masks, outputs in predicted)
        tidiness = _Tidiness()
        found["mask_rejection"] = fit_mask_rejection(tidiness.watch(pairs))
        found["tidy_masks"] = tidiness.helps
    return Decisions(**found)


class _Tidiness:
    """Find out whether masks are better with the largest region alone and its holes filled, by the mean Jaccard index."""

    def __init__(self) -> None:
        self._gain = 0.0

    def watch(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hand on batches of true masks and probabilities, `(batch, height, width, 1)`, and look at them."""
        for true, probabilities in pairs:
            for inside, probability in zip(true[..., 0] > 0, probabilities[..., 0], strict=True):
                found = (probability > 0.5).astype(np.uint8)
                tidy = clean_mask(found, largest_component=True, fill_holes=True)
                self._gain += segmentation_scores(inside, tidy)["jaccard"] - segmentation_scores(inside, found)["jaccard"]
            yield true, probabilities

    @property
    def helps(self) -> bool:
        """Whether the masks so far were better tidy."""
        return self._gain > 0


def _predict(model: keras.Model, images: np.ndarray) -> Any:
    """Return the outputs for one batch; under tf.distribute `predict_on_batch` gives those of one replica alone."""
    if replica_count() > 1:
        return model.predict(images, batch_size=len(images), verbose=0)
    return model.predict_on_batch(images)
