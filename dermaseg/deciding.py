"""Settle on the validation part how a finished network's output is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from dermaseg.data import group_samples, make_dataset
from dermaseg.data.samples import Samples
from dermaseg.decisions import Decisions, fit_label_decisions, fit_mask_decisions
from dermaseg.distribution import replica_count, undistributed
from dermaseg.prediction.outputs import class_probabilities, named_outputs
from dermaseg.tasks import Settings, Task, prior_factors

__all__ = ["decide"]


@undistributed()  # the last batch may be of any size, and each of several processes reads all
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
            class_probabilities(outputs["label"]),
            labelled.class_names,
            prior_factors=prior_factors(train_part, plan, task.compile_options(train_part, plan)),
            sensitivity=plan.sensitivity,
            groups=group_samples(labelled),
        )
    masked = validation_part.with_masks()
    if task.target != "label" and len(masked):
        dataset = make_dataset(masked, batch_size=plan.batch_size, **{**common, "target": "mask"})
        predicted = ((masks, _predict(model, np.asarray(images))) for images, masks in dataset)
        pairs = ((np.asarray(masks), named_outputs(outputs)["mask"]) for masks, outputs in predicted)
        found |= fit_mask_decisions(pairs)
    return Decisions(**found)


def _predict(model: keras.Model, images: np.ndarray) -> Any:
    """Return the outputs for one batch; under tf.distribute `predict_on_batch` gives those of one replica alone."""
    if replica_count() > 1:
        return model.predict(images, batch_size=len(images), verbose=0)
    return model.predict_on_batch(images)
