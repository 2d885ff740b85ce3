"""How sure a network is of one photograph: repeated predictions, and figures read from one prediction.

None of these figures knows the truth. `dermaseg.metrics.area_under_risk_coverage` says, on photographs with a reference, how
well a figure ranks the errors; `dermaseg.conformal` turns such a part into statements that hold for new photographs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermaseg.metrics.calibration import check_probabilities

__all__ = [
    "TRANSFORMS",
    "Spread",
    "dihedral_average",
    "entropy_bits",
    "expected_jaccard",
    "lesion_entropy",
]

# Each element of the dihedral group: first mirror left and right or not, then so many quarter turns against the clock.
_ELEMENTS = {
    "identity": (False, 0),
    "flip_horizontal": (True, 0),
    "flip_vertical": (True, 2),
    "rotate_180": (False, 2),
    "rotate_90": (False, 1),
    "rotate_270": (False, 3),
    "transpose": (True, 1),
    "anti_transpose": (True, 3),
}

TRANSFORMS: dict[str, tuple[str, ...]] = {"flips": tuple(_ELEMENTS)[:4], "dihedral": tuple(_ELEMENTS)}
"""Names of the transforms: `flips`, the 4 that keep the shape of a rectangle, and `dihedral`, all 8."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What several predictions of the same photographs say together.

    The members' mean p has the entropy H(p). What remains of it on average within a member, E[H(p_k)], is doubt that all
    members share; the rest, H(p) - E[H(p_k)], is their disagreement: the mutual information of outcome and member.

    Args:
        probability: Mean over the members, float32: `(images, height, width, channels)` of a mask, `(images, classes)` of
            labels.
        entropy: H(p) of each pixel or label, in bits: `probability` without its last axis, 0 to 1 for one channel, which is
            the probability of an event, and 0 to log2 of their number for several.
        mutual_information: The disagreement of the members, in bits, 0 to `entropy`.
        members: How many predictions.

    References:
        Depeweg et al., 2018, "Decomposition of uncertainty in Bayesian deep learning", equation 2.
    """

    probability: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    members: int

    @property
    def image_entropy(self) -> np.ndarray:
        """Entropy of each image, `(images,)`: of a one-channel mask as for `lesion_entropy`, else the mean over its pixels."""
        return self._per_image(self.entropy)

    @property
    def image_mutual_information(self) -> np.ndarray:
        """Disagreement about each image, `(images,)`, summed up as `image_entropy`."""
        return self._per_image(self.mutual_information)

    def _per_image(self, values: np.ndarray) -> np.ndarray:
        if values.ndim == 1:
            return values
        if self.probability.shape[-1] == 1:
            return _per_lesion_pixel(values, self.probability)
        return values.mean(axis=(1, 2))


def dihedral_average(
    predict: Callable[[np.ndarray], Any], images: np.ndarray, *, transforms: str | Sequence[str] = "flips"
) -> Any:
    """Predict mirrored and turned photographs, turn the masks back, and average.

    A dermoscope may be held any way round: an answer that depends on it is doubtful. The transforms run one after the other,
    and only running sums are kept.

    Args:
        predict: From `(images, height, width, 3)` to probabilities: an array, or a dict of them. Four axes are a mask, which
            is turned back, two are classes. `model.predict_on_batch` is one.
        images: `(images, height, width, 3)`, in the values and the type that `predict` takes.
        transforms: `"flips"`, the 4 elements that keep the shape of a rectangle; `"dihedral"`, all 8, of which 4 give
            `predict` the photographs with height and width exchanged; or some names of `TRANSFORMS["dihedral"]`.

    Returns:
        A `Spread`, or a dict of them under the names that `predict` gave.

    Raises:
        ValueError: If a transform is unknown or named twice, or what `predict` returns is no probability or does not fit
            the photographs.

    Examples:
        >>> brightness = lambda images: images.mean(axis=-1, keepdims=True) / 255
        >>> spread = dihedral_average(brightness, np.full((2, 4, 6, 3), 51.0), transforms="dihedral")
        >>> spread.probability.shape, round(float(spread.probability.mean()), 3), spread.members
        ((2, 4, 6, 1), 0.2, 8)

    References:
        Wang et al., 2019, "Aleatoric uncertainty estimation with test-time augmentation for medical image segmentation",
        section 2.3. Deviation: a fixed group in place of random draws, so that the answer is the same each time.
    """
    if np.ndim(images) != 4:
        raise ValueError(f"images must be (images, height, width, channels), got the shape {np.shape(images)}.")
    names = TRANSFORMS.get(transforms, (transforms,)) if isinstance(transforms, str) else tuple(transforms)
    if not names or len(set(names)) < len(names) or not set(names) <= set(_ELEMENTS):
        raise ValueError(
            f"transforms must be 'flips', 'dihedral', or different names of {', '.join(_ELEMENTS)}; got {transforms!r}."
        )

    def members() -> Iterator[Any]:
        for name in names:
            mirrored, turns = _ELEMENTS[name]
            turned = np.rot90(images[:, :, ::-1] if mirrored else images, turns, axes=(1, 2))
            outputs = predict(np.ascontiguousarray(turned))
            yield _map(functools.partial(_turn_back, mirrored=mirrored, turns=turns), outputs)

    return collect_members(members(), np.shape(images)[:3])


def entropy_bits(probabilities: Any) -> np.ndarray:
    """Return the entropy along the last axis: 0 where one outcome is certain, largest where all are alike.

    Args:
        probabilities: `(..., 1)`, the probability of an event, or `(..., classes)`, which sum to 1.

    Returns:
        Bits, float64, `probabilities` without its last axis: 0 to 1 for an event, 0 to log2(classes) for classes.

    Raises:
        ValueError: If a probability is outside 0 to 1, or classes do not sum to 1.

    Examples:
        >>> entropy_bits([[0.5], [1.0]]).tolist(), entropy_bits([[0.25] * 4]).tolist()
        ([1.0, 0.0], [2.0])

    References:
        Shannon, 1948, "A mathematical theory of communication", section 6.
    """
    probabilities = _check(probabilities)
    if probabilities.shape[-1] == 1:
        event = probabilities[..., 0]
        return _surprise(event) + _surprise(1.0 - event)
    if not np.allclose(probabilities.sum(axis=-1), 1.0, atol=1e-2):
        raise ValueError("probabilities of several classes must sum to 1 along the last axis.")
    return _surprise(probabilities).sum(axis=-1)


def _surprise(probabilities: np.ndarray) -> np.ndarray:
    """Return -p log2 p, 0 at p = 0."""
    return 0.0 - probabilities * np.log2(np.where(probabilities > 0, probabilities, 1.0))  # not -0.0


def lesion_entropy(probabilities: Any) -> np.ndarray:
    """Return the entropy of each mask in bits per pixel of expected lesion: sum_i H(p_i) / sum_i p_i.

    The mean over the picture would call every small lesion sure, for most of the picture is skin. A Jaccard index counts wrong
    pixels against the lesion's area; so does this, wherever the doubt lies.

    Args:
        probabilities: Masks, `(images, height, width)` or `(images, height, width, 1)`, 0 to 1.

    Returns:
        `(images,)`, at least 0 and without bound where next to nothing was found; 0 where all probabilities are 0.

    Raises:
        ValueError: If the shape is another, or a probability is outside 0 to 1.

    Examples:
        >>> lesion_entropy([[[1.0, 1.0, 1.0, 0.5]], [[0.5, 0.5, 0.0, 0.0]]]).round(3).tolist()
        [0.286, 2.0]
    """
    masks = _check_masks(probabilities)
    return _per_lesion_pixel(entropy_bits(masks[..., np.newaxis]), masks)


def expected_jaccard(probabilities: Any, *, threshold: float = 0.5) -> np.ndarray:
    """Return the Jaccard index that a network expects of its own mask.

    With the mask M of the pixels above the threshold, and each pixel lesion with its own probability whatever the others are,
    the expected overlap is sum_M p and the expected union |M| + sum_(not M) p. Their ratio is close to the expected index
    where the lesion has many pixels. Neighbouring pixels are not independent, and networks are too sure: take it as a rank,
    or calibrate it, before calling it an index. An empty mask is right if there is no lesion at all: the product of 1 - p.

    Args:
        probabilities: Masks, `(images, height, width)` or `(images, height, width, 1)`, 0 to 1.
        threshold: Where the probability becomes the mask, 0 to 1.

    Returns:
        `(images,)`, 0 to 1, larger for what the network is surer of.

    Raises:
        ValueError: If the shape is another, or a probability or the threshold is outside 0 to 1.

    Examples:
        >>> round(float(expected_jaccard([[[1.0, 0.8, 0.2]]])[0]), 4)
        0.8182

    References:
        Borges et al., 2024, "Soft Dice confidence: a near-optimal confidence estimator for selective prediction in semantic
        segmentation". Deviation: the Jaccard index in the Dice score's place, which keeps the order D = 2 J / (1 + J).
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}.")
    masks = _check_masks(probabilities)
    inside = masks > threshold
    area, overlap = inside.sum(axis=(1, 2)), np.sum(masks, axis=(1, 2), where=inside)
    union = area + np.sum(masks, axis=(1, 2), where=~inside)
    with np.errstate(divide="ignore"):  # at a threshold of 1 a sure pixel is outside too: log 0, and the product is 0
        nothing = np.exp(np.sum(np.log1p(-np.where(inside, 0.0, masks)), axis=(1, 2)))
    return np.where(area > 0, np.divide(overlap, union, out=np.ones(len(masks)), where=area > 0), nothing)


def _turn_back(output: Any, mirrored: bool, turns: int) -> np.ndarray:
    output = np.asarray(output)
    if output.ndim != 4:
        return output
    output = np.rot90(output, -turns, axes=(1, 2))
    return output[:, :, ::-1] if mirrored else output


def _map(function: Callable[[Any], Any], output: Any) -> Any:
    return {name: function(value) for name, value in output.items()} if isinstance(output, Mapping) else function(output)


def collect_members(members: Iterable[Any], shape: tuple[int, ...]) -> Any:
    """Sum up probabilities and entropies, one member after the other."""
    sums: dict[str | None, _Sums] = {}
    for member in members:
        for name, output in (member if isinstance(member, Mapping) else {None: member}).items():
            _check_output(np.shape(output), shape)
            sums.setdefault(name, _Sums()).add(np.asarray(output, dtype=np.float64))
    spreads = {name: one.spread() for name, one in sums.items()}
    return spreads.get(None, spreads)


class _Sums:
    # In float64: the mutual information is a small difference of large numbers.
    def __init__(self) -> None:
        self.probability: Any = 0.0
        self.entropy: Any = 0.0
        self.members = 0

    def add(self, probability: np.ndarray) -> None:
        self.entropy = self.entropy + entropy_bits(probability)
        self.probability = self.probability + probability
        self.members += 1

    def spread(self) -> Spread:
        mean = np.minimum(self.probability / self.members, 1.0)
        total = entropy_bits(mean)
        # Entropy is concave, so the difference is negative by rounding alone.
        disagreement = np.maximum(total - self.entropy / self.members, 0.0)
        return Spread(mean.astype(np.float32), total.astype(np.float32), disagreement.astype(np.float32), self.members)


def join_spreads(parts: Sequence[Spread]) -> Spread:
    """Put the images of several batches one behind the other."""
    return Spread(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.entropy for part in parts]),
        np.concatenate([part.mutual_information for part in parts]),
        parts[0].members,
    )


def _per_lesion_pixel(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    area = masks.reshape(len(masks), -1).sum(axis=1, dtype=np.float64)
    total = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    return np.divide(total, area, out=np.zeros(len(masks)), where=area > 0)


def _check(probabilities: Any) -> np.ndarray:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not probabilities.ndim or not probabilities.shape[-1]:
        raise ValueError(f"probabilities must have a last axis of classes, got the shape {probabilities.shape}.")
    return check_probabilities(probabilities)


def _check_masks(probabilities: Any) -> np.ndarray:
    shape = np.shape(probabilities)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] != 1) or 0 in shape[1:]:
        raise ValueError(f"probabilities must be (images, height, width) or (images, height, width, 1), got the shape {shape}.")
    return _check(np.reshape(probabilities, shape[:3]))


def _check_output(shape: tuple[int, ...], images: tuple[int, ...]) -> None:
    if not (len(shape) == 4 and shape[:3] == images) and not (len(shape) == 2 and shape[:1] == images[:1]):
        raise ValueError(
            f"predict must give (images, height, width, channels) or (images, classes) for images {images}, got {shape}."
        )
