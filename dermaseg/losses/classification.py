"""Losses for classes of very different sizes: logit-adjusted cross-entropy, class-balanced focal loss, class weights.

Two thirds of HAM10000 are nevi. A network trained with plain cross-entropy learns that, and calls doubtful melanomas nevi;
each loss here is one published way to train for balanced accuracy instead. Use one of them, not two: each corrects for the
same imbalance. Label smoothing is Keras's own (`keras.losses.CategoricalCrossentropy(label_smoothing=...)`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from dermaseg.losses.base import EPSILON, FunctionLoss

__all__ = [
    "ClassBalancedFocal",
    "LogitAdjustedCrossentropy",
    "class_balanced_focal_loss",
    "class_weights",
    "logit_adjusted_crossentropy",
]


def logit_adjusted_crossentropy(
    y_true: Any, y_pred: Any, *, priors: Sequence[float], tau: float = 1.0, from_logits: bool = False
) -> Any:
    """Return the cross-entropy of softmax(log p + tau log prior) for each picture.

    Training adds the log of each class's share to its logit, so the network itself need not learn the shares; without the
    addition at prediction it answers as if all classes were equally common, which at tau = 1 is consistent for balanced
    accuracy. tau = 0 is plain cross-entropy. The probabilities it predicts are those of a balanced world: to have them for
    the training data's shares again, multiply by prior^tau and normalise.

    Args:
        y_true: Classes `(batch,)` or `(batch, 1)`, or probabilities of classes (one-hot, smoothed, mixed up)
            `(batch, classes)`.
        y_pred: Softmax probabilities, or logits, `(batch, classes)`.
        priors: Share of each class in the training part, above 0; counts do as well, they are normalised.
        tau: Strength, at least 0.
        from_logits: Whether `y_pred` are logits, which are used exactly; probabilities are held above 1e-7.

    Returns:
        Losses of shape `(batch,)`, float32, in nats, at least 0.

    Raises:
        ValueError: If a prior is not above 0, tau is negative, or the shapes do not fit.

    Examples:
        >>> loss = logit_adjusted_crossentropy([1], [[0.5, 0.5]], priors=[0.75, 0.25])
        >>> round(float(loss[0]), 4)  # -ln 0.25: the rare class must win by more
        1.3863

    References:
        Menon et al., 2021, "Long-tail learning via logit adjustment", equation 10.
    """
    _check_adjustment(priors, tau)
    targets, log_probabilities = _targets_and_log_probabilities(y_true, y_pred, len(priors), from_logits)
    shares = np.asarray(priors, dtype="float64") / np.sum(priors)
    adjustment = ops.convert_to_tensor(tau * np.log(shares), dtype="float32")
    adjusted = ops.log_softmax(log_probabilities + adjustment, axis=-1)
    return -ops.sum(targets * adjusted, axis=-1)


def class_balanced_focal_loss(
    y_true: Any,
    y_pred: Any,
    *,
    class_counts: Sequence[int],
    beta: float = 0.999,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> Any:
    """Return -sum_c w_c t_c (1 - p_c)^gamma log p_c for each picture, with w_c proportional to (1 - beta) / (1 - beta^n_c).

    (1 - beta^n) / (1 - beta) is the effective number of n samples that overlap: beta = 0 weighs all classes alike, beta
    towards 1 by 1 / n. The weights sum to the number of classes. gamma lowers the loss of pictures that are already right.

    Args:
        y_true: As for `logit_adjusted_crossentropy`.
        y_pred: As for `logit_adjusted_crossentropy`.
        class_counts: Pictures n_c of each class in the training part, at least 1.
        beta: At least 0 and below 1.
        gamma: At least 0; 0 is weighted cross-entropy.
        from_logits: As for `logit_adjusted_crossentropy`.

    Returns:
        Losses of shape `(batch,)`, float32, at least 0.

    Raises:
        ValueError: If a parameter is outside its range, or the shapes do not fit.

    Examples:
        >>> loss = class_balanced_focal_loss([0], [[0.5, 0.5]], class_counts=[10, 10])
        >>> round(float(loss[0]), 4)  # 0.5^2 ln 2
        0.1733

    References:
        Cui et al., 2019, "Class-balanced loss based on effective number of samples", equations 2 and 10. Lin et al., 2017,
        "Focal loss for dense object detection", equation 4. Deviation: softmax in place of one sigmoid per class.
    """
    _check_focal(class_counts, beta, gamma)
    weights = _effective_weights(np.asarray(class_counts), beta)
    targets, log_probabilities = _targets_and_log_probabilities(y_true, y_pred, len(class_counts), from_logits)
    log_probabilities = ops.minimum(log_probabilities, -EPSILON)  # the slope of (1 - p)^gamma is infinite at p = 1
    focus = ops.power(-ops.expm1(log_probabilities), gamma)
    weighted = targets * ops.convert_to_tensor(weights * len(weights) / weights.sum(), dtype="float32")
    return -ops.sum(weighted * focus * log_probabilities, axis=-1)


def class_weights(
    labels: Any, num_classes: int, *, scheme: Literal["inverse", "effective"] = "inverse", beta: float = 0.999
) -> dict[int, float]:
    """Return weights for Keras's `fit(class_weight=...)` that count rare classes more.

    Args:
        labels: Classes of the training part, integers `(samples,)`.
        num_classes: Number of classes.
        scheme: `"inverse"`, 1 / n_c, or `"effective"`, (1 - beta) / (1 - beta^n_c), which spares the rarest classes the
            largest weights.
        beta: For `"effective"`, at least 0 and below 1.

    Returns:
        Class to weight. The mean weight over the samples is 1, so that a learning rate keeps its meaning.

    Raises:
        ValueError: If a class has no sample, a label is no class, or a parameter is outside its range.

    Examples:
        >>> class_weights([0, 0, 0, 1], 2)
        {0: 0.6666666666666666, 1: 2.0}

    References:
        Cui et al., 2019, "Class-balanced loss based on effective number of samples", equation 2.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers of shape (samples,), got {labels.dtype} of shape {labels.shape}.")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels must lie between 0 and {num_classes - 1}, got {labels.min()} to {labels.max()}.")
    counts = np.bincount(labels, minlength=num_classes)
    _check_focal(counts.tolist(), beta, 0.0)
    if scheme not in ("inverse", "effective"):
        raise ValueError(f"scheme must be 'inverse' or 'effective', got {scheme!r}.")
    weights = 1.0 / counts if scheme == "inverse" else _effective_weights(counts, beta)
    return dict(enumerate((weights * len(labels) / (weights @ counts)).tolist()))


def _targets_and_log_probabilities(y_true: Any, y_pred: Any, classes: int, from_logits: bool) -> tuple[Any, Any]:
    """Return both as float32 `(batch, classes)`."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if len(y_pred.shape) != 2 or y_pred.shape[-1] != classes:
        raise ValueError(f"y_pred must be (batch, {classes}), one column per class, got {tuple(y_pred.shape)}.")
    if len(y_true.shape) == 1 or (len(y_true.shape) == 2 and y_true.shape[-1] == 1):
        targets = ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), classes, dtype="float32")
    elif len(y_true.shape) == 2 and y_true.shape[-1] == classes:
        targets = ops.cast(y_true, "float32")
    else:
        raise ValueError(f"y_true must be (batch,), (batch, 1) or (batch, {classes}), got {tuple(y_true.shape)}.")
    y_pred = ops.cast(y_pred, "float32")
    if from_logits:
        return targets, ops.log_softmax(y_pred, axis=-1)
    return targets, ops.log(ops.maximum(y_pred, EPSILON))


def _effective_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    return (1.0 - beta) / (1.0 - np.power(beta, counts))


def _check_adjustment(priors: Sequence[float], tau: float) -> None:
    if len(priors) < 2 or not all(0 < prior < np.inf for prior in priors):
        raise ValueError(f"priors must be the shares of two or more classes, each above 0, got {priors!r}.")
    if not tau >= 0:
        raise ValueError(f"tau must be at least 0, got {tau!r}.")


def _check_focal(class_counts: Sequence[int], beta: float, gamma: float) -> None:
    if len(class_counts) < 2 or not all(count >= 1 for count in class_counts):
        raise ValueError(f"two or more classes must have at least one picture each, got the counts {class_counts!r}.")
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be at least 0 and below 1, got {beta!r}.")
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma!r}.")


@keras.saving.register_keras_serializable(package="dermaseg")
class LogitAdjustedCrossentropy(FunctionLoss):
    """`logit_adjusted_crossentropy` as a Keras loss.

    Args:
        priors: As for `logit_adjusted_crossentropy`.
        tau: As for `logit_adjusted_crossentropy`.
        from_logits: As for `logit_adjusted_crossentropy`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    def __init__(
        self,
        priors: Sequence[float],
        tau: float = 1.0,
        from_logits: bool = False,
        name: str = "logit_adjusted_crossentropy",
        **kwargs: Any,
    ) -> None:
        priors = [float(prior) for prior in priors]
        _check_adjustment(priors, tau)
        parameters = {"priors": priors, "tau": tau, "from_logits": from_logits}
        super().__init__(logit_adjusted_crossentropy, parameters, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class ClassBalancedFocal(FunctionLoss):
    """`class_balanced_focal_loss` as a Keras loss.

    Args:
        class_counts: As for `class_balanced_focal_loss`.
        beta: As for `class_balanced_focal_loss`.
        gamma: As for `class_balanced_focal_loss`.
        from_logits: As for `class_balanced_focal_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    def __init__(
        self,
        class_counts: Sequence[int],
        beta: float = 0.999,
        gamma: float = 2.0,
        from_logits: bool = False,
        name: str = "class_balanced_focal",
        **kwargs: Any,
    ) -> None:
        class_counts = [int(count) for count in class_counts]
        _check_focal(class_counts, beta, gamma)
        parameters = {"class_counts": class_counts, "beta": beta, "gamma": gamma, "from_logits": from_logits}
        super().__init__(class_balanced_focal_loss, parameters, name=name, **kwargs)
