"""Mix each photograph of a training batch with another one, and what is known of the two: mixup and CutMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["MIXES", "Mix", "blend"]

MIXES = ("none", "mixup", "cutmix")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Mix a batch: every photograph with a partner of the same batch, by a share of its own.

    A network that sees halves of two lesions under two halves of a label has fewer photographs to learn by heart. What it then
    is sure of should be validated on photographs as they are: mix the training part alone.

    Args:
        kind: `"mixup"` blends the two pictures, their masks and their classes by one share, drawn from Beta(alpha, alpha).
            `"cutmix"` pastes a rectangle of the partner, at the same place, into the photograph and into its mask; the
            classes are mixed by the area that was pasted. The rectangle would have the share 1 - Beta(alpha, alpha) of the
            picture if it did not end at its edges.
        alpha: Above 0. Below 1 most mixtures are nearly one photograph; 1 draws all shares alike.

    Raises:
        ValueError: If `kind` is neither, or `alpha` is not above 0.

    Examples:
        >>> images = np.zeros((2, 8, 8, 3), np.uint8)
        >>> images[1] = 200
        >>> mixed, _, classes = Mix(kind="cutmix", alpha=1.0)(images, labels=np.eye(2), rng=np.random.default_rng(3))
        >>> bool(np.allclose((mixed[0] == 200).mean(), classes[0, 1]))  # class 1 has the share of its pixels
        True

    References:
        Zhang et al., 2018, "mixup: beyond empirical risk minimization"; Yun et al., 2019, "CutMix: regularization strategy to
        train strong classifiers with localizable features", equations 1 and 2. Deviations: a share for each photograph, where
        the authors' programs draw one per batch; mixed pixels are rounded to 8 bits.
    """

    kind: Literal["mixup", "cutmix"]
    alpha: float

    def __post_init__(self) -> None:
        if self.kind not in MIXES[1:]:
            raise ValueError(f"kind must be one of {', '.join(MIXES[1:])}, got {self.kind!r}.")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha!r}.")

    @classmethod
    def preset(cls, name: str) -> Mix | None:
        """Return mixup with alpha 0.2 or CutMix with alpha 1, as their authors chose for photographs; None for `"none"`.

        Raises:
            ValueError: If the name is not in `MIXES`.
        """
        if name not in MIXES:
            raise ValueError(f"mix must be one of {', '.join(MIXES)}, got {name!r}.")
        if name == "none":
            return None
        return cls(kind="mixup", alpha=0.2) if name == "mixup" else cls(kind="cutmix", alpha=1.0)

    def __call__(
        self,
        images: np.ndarray,
        masks: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        kinds: np.ndarray | None = None,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Mix one batch.

        Args:
            images: `(batch, height, width, 3)`, uint8.
            masks: `(batch, height, width, 1)`, zeros and ones, or None.
            labels: The share of each class, `(batch, classes)`, or None.
            kinds: `(batch,)`; only photographs of one kind are mixed, as those with a mask. None mixes all.
            rng: The only source of chance.

        Returns:
            New images, masks and labels of the same shapes. Images are uint8, labels float32; masks are float32 after mixup and
            as they came after CutMix.
        """
        partners, shares, boxes = self.draw(len(images), images.shape[1:3], kinds=kinds, rng=rng)
        if boxes is None:
            images = blend(images, partners, shares).round().astype(np.uint8)
            masks = None if masks is None else blend(masks, partners, shares)
        else:
            images = _paste(images, partners, boxes)
            masks = None if masks is None else _paste(masks, partners, boxes)
        return images, masks, None if labels is None else blend(labels, partners, shares)

    def draw(
        self, count: int, size: tuple[int, ...], *, kinds: np.ndarray | None = None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Draw how a batch is mixed.

        Args:
            count: Photographs in it.
            size: Their height and width.
            kinds: As for a call.
            rng: The only source of chance.

        Returns:
            Each photograph's partner, `(batch,)`; the share that it keeps, `(batch,)` float32; and for CutMix the rectangles
            that its partner fills, `(batch, 4)`: top, bottom, left, right.
        """
        partners = _partners(np.zeros(count) if kinds is None else kinds, rng)
        shares = rng.beta(self.alpha, self.alpha, count).astype(np.float32)
        if self.kind == "mixup":
            return partners, shares, None
        boxes = _boxes(shares, size, rng)
        pasted = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        return partners, (1 - pasted / np.prod(size)).astype(np.float32), boxes


def _partners(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation, `(batch,)`, that keeps each position within its kind."""
    partners = np.arange(len(kinds))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        partners[members] = rng.permutation(members)
    return partners


def blend(values: np.ndarray, partners: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return float32 values, `(batch, ...)`, of which each keeps its share and takes the rest from its partner."""
    shares = shares.reshape(-1, *(1,) * (values.ndim - 1))
    values = values.astype(np.float32)
    return shares * values + (1 - shares) * values[partners]


def _boxes(shares: np.ndarray, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw rectangles, `(batch, 4)`: top, bottom, left, right. Centres fall anywhere; what lies outside is cut off."""
    centres = rng.uniform(0, size, (len(shares), 2))
    halves = np.sqrt(1 - shares)[:, None] * size / 2
    ends = [np.rint(centres + sign * halves).clip(0, size).astype(int) for sign in (-1, 1)]
    return np.stack(ends, axis=-1).reshape(-1, 4)


def _paste(values: np.ndarray, partners: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    pasted = values.copy()
    for row, (top, bottom, left, right) in enumerate(boxes):
        pasted[row, top:bottom, left:right] = values[partners[row], top:bottom, left:right]
    return pasted
