"""Streaming Keras metrics of masks. How the batches are cut never changes a value.

`average="per_image"` is the mean over pictures of each picture's figure, which is what papers and challenges call IoU or Dice;
`"dataset"` pools the pixels of all pictures into one ratio, in which large lesions count for more. With more than one channel,
each is a mask of its own, cut at the threshold: `"per_image"` averages a picture's channels, `"dataset"` pools them.

Nothing over nothing (an empty mask predicted empty; for sensitivity any empty mask, for specificity any full one) scores
`empty_score`: 1 by default, as ISIC's scorer has it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from dermaseg.reduction import pixel_sum

__all__ = ["DiceScore", "JaccardIndex", "PixelSensitivity", "PixelSpecificity", "ThresholdedJaccard"]

Average = Literal["per_image", "dataset"]


class _PixelRatio(keras.metrics.Metric):
    """Mean of part / whole, where a subclass counts the pixels of both in each picture and channel.

    Args:
        average: `"per_image"` or `"dataset"`.
        threshold: Probability above which a pixel is lesion, between 0 and 1.
        empty_score: What nothing over nothing scores, as an empty mask predicted empty.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.
    """

    def __init__(
        self,
        average: Average = "per_image",
        threshold: float = 0.5,
        empty_score: float = 1.0,
        from_logits: bool = False,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in ("per_image", "dataset"):
            raise ValueError(f"average must be 'per_image' or 'dataset', got {average!r}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}.")
        self.average = average
        self.threshold = threshold
        self.empty_score = empty_score
        self.from_logits = from_logits
        self.part = self.add_weight(name="part", initializer="zeros")
        self.whole = self.add_weight(name="whole", initializer="zeros")

    def count(self, true: Any, pred: Any) -> tuple[Any, Any]:
        """Return part and whole of each picture and channel, `(batch, channels)`, from 0/1 masks."""
        raise NotImplementedError

    def score(self, part: Any, whole: Any) -> Any:
        """Return part / whole, or the empty score, from counts of at least one pixel or none."""
        return ops.where(whole > 0, part / ops.maximum(whole, 1.0), self.empty_score)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
            y_pred: Probabilities of the same shape, or logits.
            sample_weight: `(batch,)` or None.
        """
        true = ops.cast(ops.cast(y_true, "float32") > 0.5, "float32")
        pred = ops.cast(y_pred, "float32")
        if self.from_logits:
            pred = ops.sigmoid(pred) if pred.shape[-1] == 1 else ops.softmax(pred, axis=-1)
        pred = ops.cast(pred > self.threshold, "float32")
        _check_shapes(self.name, tuple(true.shape), tuple(pred.shape))
        part, whole = self.count(true, pred)
        if self.average == "per_image":
            part = ops.mean(self.score(part, whole), axis=-1)
            whole = ops.ones_like(part)
        else:
            part, whole = ops.sum(part, axis=-1), ops.sum(whole, axis=-1)
        if sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
            if math.prod(weight.shape[1:]) != 1:
                raise ValueError(
                    f"{self.name}: sample_weight must be one weight per picture, (batch,), got {tuple(weight.shape)}."
                )
            weight = ops.reshape(weight, (-1,))
            part, whole = part * weight, whole * weight
        self.part.assign_add(ops.cast(ops.sum(part), self.part.dtype))
        self.whole.assign_add(ops.cast(ops.sum(whole), self.whole.dtype))

    def result(self) -> Any:
        """Return the figure over all that was added, a float32 scalar; the empty score before anything was."""
        # Tensors first: jax.numpy.where takes no Keras variable. Not `score`: the weights of samples may sum to less than 1.
        part, whole = ops.convert_to_tensor(self.part), ops.convert_to_tensor(self.whole)
        return ops.where(whole > 0, part / ops.where(whole > 0, whole, 1.0), self.empty_score)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the metric."""
        return {
            **super().get_config(),
            "average": self.average,
            "threshold": self.threshold,
            "empty_score": self.empty_score,
            "from_logits": self.from_logits,
        }


def _check_shapes(name: str, true: tuple[int | None, ...], pred: tuple[int | None, ...]) -> None:
    # Broadcasting would give a figure for two masks of different size, too.
    agree = len(true) == len(pred) == 4 and all(a == b or None in (a, b) for a, b in zip(true, pred, strict=True))
    if not agree:
        raise ValueError(f"{name}: masks must be (batch, height, width, channels) and agree, got {true} and {pred}.")


@keras.saving.register_keras_serializable(package="dermaseg")
class JaccardIndex(_PixelRatio):
    """Hard Jaccard index (IoU), TP / (TP + FP + FN).

    Args:
        average: `"per_image"` or `"dataset"`.
        threshold: Probability above which a pixel is lesion, between 0 and 1.
        empty_score: What an empty mask predicted empty scores.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    Examples:
        >>> metric = JaccardIndex()
        >>> metric.update_state(ops.ones((2, 4, 4, 1)), ops.ones((2, 4, 4, 1)))
        >>> float(metric.result())
        1.0
    """

    def count(self, true: Any, pred: Any) -> tuple[Any, Any]:
        """Return intersection and union."""
        both = pixel_sum(true * pred)
        return both, pixel_sum(true) + pixel_sum(pred) - both


@keras.saving.register_keras_serializable(package="dermaseg")
class ThresholdedJaccard(JaccardIndex):
    """Jaccard index of each picture, 0 where it is below a cutoff: a mask that an expert would redraw has no worth.

    Args:
        cutoff: Cutoff of the index, 0 to 1.
        threshold: Probability above which a pixel is lesion.
        empty_score: What an empty mask predicted empty scores.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    References:
        Codella et al., 2019, "Skin lesion analysis toward melanoma detection 2018".
    """

    def __init__(
        self,
        cutoff: float = 0.65,
        threshold: float = 0.5,
        empty_score: float = 1.0,
        from_logits: bool = False,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("per_image", threshold, empty_score, from_logits, name=name, dtype=dtype)
        if not 0 <= cutoff <= 1:
            raise ValueError(f"cutoff must lie between 0 and 1, got {cutoff!r}.")
        self.cutoff = cutoff

    def score(self, part: Any, whole: Any) -> Any:
        """Return the index where it reaches the cutoff, else 0."""
        index = super().score(part, whole)
        return ops.where(index >= self.cutoff, index, 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the metric."""
        config = {**super().get_config(), "cutoff": self.cutoff}
        del config["average"]
        return config


@keras.saving.register_keras_serializable(package="dermaseg")
class DiceScore(_PixelRatio):
    """Hard Dice score, 2 TP / (2 TP + FP + FN).

    Args:
        average: `"per_image"` or `"dataset"`.
        threshold: Probability above which a pixel is lesion, between 0 and 1.
        empty_score: What an empty mask predicted empty scores.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    Raises:
        ValueError: If `average` is unknown, or `threshold` outside its range.
    """

    def count(self, true: Any, pred: Any) -> tuple[Any, Any]:
        """Return twice the intersection, and both areas."""
        return 2.0 * pixel_sum(true * pred), pixel_sum(true) + pixel_sum(pred)


@keras.saving.register_keras_serializable(package="dermaseg")
class PixelSensitivity(_PixelRatio):
    """Share of the lesion that was found, TP / (TP + FN).

    Args:
        average: `"per_image"` or `"dataset"`.
        threshold: Probability above which a pixel is lesion, between 0 and 1.
        empty_score: What any empty mask scores: there is nothing to find.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    Raises:
        ValueError: If `average` is unknown, or `threshold` outside its range.
    """

    def count(self, true: Any, pred: Any) -> tuple[Any, Any]:
        """Return the lesion found, and the lesion."""
        return pixel_sum(true * pred), pixel_sum(true)


@keras.saving.register_keras_serializable(package="dermaseg")
class PixelSpecificity(_PixelRatio):
    """Share of the skin that was left alone, TN / (TN + FP).

    Args:
        average: `"per_image"` or `"dataset"`.
        threshold: Probability above which a pixel is lesion, between 0 and 1.
        empty_score: What any full mask scores: there is no skin to spare.
        from_logits: Whether predictions are logits (sigmoid for one channel, else softmax).
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    Raises:
        ValueError: If `average` is unknown, or `threshold` outside its range.
    """

    def count(self, true: Any, pred: Any) -> tuple[Any, Any]:
        """Return the skin left alone, and the skin."""
        return pixel_sum((1.0 - true) * (1.0 - pred)), pixel_sum(1.0 - true)
