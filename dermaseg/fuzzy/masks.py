"""Fuzzy masks: a border as soft as experts disagree about it, exactly for a data pipeline or inside a graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops
from scipy import ndimage, special

__all__ = ["check_tau", "fuzzify_mask", "soften_mask"]


def fuzzify_mask(mask: Any, tau_px: float) -> np.ndarray:
    """Blur the border of a mask by its distance: mu = sigmoid(-phi / tau_px).

    phi is the signed distance to the border in pixels, negative inside: the distance to the nearest pixel of the other
    class, less the half pixel from there to the border. Two experts who outline one lesion differ by a few pixels along its
    border and nowhere else; mu says so. mu > 1/2 is the mask again, the complement of a mask gets the complement of mu,
    and an empty or full mask has no border and stays as it is.

    Args:
        mask: 0 and 1 of any type, `(height, width)`, `(height, width, channels)` or `(n, height, width, channels)`; each
            channel of each image on its own.
        tau_px: Softness in pixels, at least 0 (crisp). mu goes from 0.12 to 0.88 within 2 tau_px on either side.

    Returns:
        float32 memberships in the shape of `mask`.

    Raises:
        ValueError: If `tau_px` is negative, the shape is another, or a value is neither 0 nor 1.

    Examples:
        >>> print(fuzzify_mask(np.array([[0, 0, 1, 1]]), tau_px=1.0).round(2))
        [[0.18 0.38 0.62 0.82]]
    """
    check_tau(tau_px)
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3, 4):
        raise ValueError(f"mask must be (h, w), (h, w, channels) or (n, h, w, channels), got the shape {mask.shape}.")
    if not np.all((mask == 0) | (mask == 1)):
        raise ValueError(f"mask must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}.")
    memberships = mask.astype("float32")
    if tau_px == 0:
        return memberships
    stack = memberships.reshape((-1, *mask.shape[-3:])) if mask.ndim > 2 else memberships[None, :, :, None]
    for image, channel in np.ndindex(stack.shape[0], stack.shape[3]):
        plane = stack[image, :, :, channel]
        if plane.min() < plane.max():
            inside = ndimage.distance_transform_edt(plane)
            outside = ndimage.distance_transform_edt(1 - plane)
            # At every pixel one of the two distances is 0, so this is -phi on both sides.
            plane[...] = special.expit((inside - outside - (plane - 0.5)) / tau_px)
    return memberships


def soften_mask(masks: Any, tau_px: float) -> Any:
    """Approximate `fuzzify_mask` by a fixed Gaussian convolution, inside a graph and differentiably.

    Along a straight border a Gaussian of standard deviation sigma turns the step into Phi(-phi / sigma), whose slope at the
    border, 1 / (sigma sqrt(2 pi)), is the sigmoid's 1 / (4 tau_px) for sigma = 4 tau_px / sqrt(2 pi). The two then differ
    by at most 0.018. Where the outline bends within sigma the convolution averages over the bend, and mu > 1/2 need not be
    the mask: use `fuzzify_mask` in a data pipeline, this where only the crisp mask reaches the loss.

    Args:
        masks: `(batch, height, width, channels)`, values in [0, 1].
        tau_px: Softness in pixels, at least 0 (unchanged), fixed when the graph is built.

    Returns:
        float32 memberships in [0, 1], the shape of `masks`.

    Raises:
        ValueError: If `tau_px` is negative.

    Examples:
        >>> crisp = np.repeat([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]], 6, axis=0).reshape(1, 6, 6, 1)
        >>> print(ops.convert_to_numpy(soften_mask(crisp, tau_px=0.5))[0, 3, :, 0].round(2))
        [0.   0.03 0.27 0.73 0.97 1.  ]
    """
    check_tau(tau_px)
    masks = ops.cast(masks, "float32")
    if tau_px == 0:
        return masks
    sigma = 4.0 * tau_px / math.sqrt(2.0 * math.pi)
    radius = math.ceil(3.0 * sigma)
    # Each tap integrates the Gaussian over its pixel: an axis-parallel step then gives Phi exactly, for small sigma too.
    taps = np.diff(special.ndtr(np.arange(-radius - 0.5, radius + 1.0) / sigma)).astype("float32")
    taps /= taps.sum()
    for axis in (1, 2):
        size = ops.shape(masks)[axis]
        phase = ops.mod(ops.arange(-radius, size + radius), 2 * size)
        # Mirrored as ... b a | a b c | c b ... as often as the radius needs, so that a mask may be smaller than it.
        masks = ops.take(masks, ops.minimum(phase, 2 * size - 1 - phase), axis=axis)
        # Shifted sums, not ops.conv: XLA on a CPU runs a convolution over one channel ten times slower.
        shifts = [masks[:, k : k + size] if axis == 1 else masks[:, :, k : k + size] for k in range(len(taps))]
        masks = sum(tap * shift for tap, shift in zip(taps, shifts, strict=True))
    return ops.clip(masks, 0.0, 1.0)


def check_tau(tau_px: float) -> None:
    """Refuse a softness that is negative, infinite or NaN.

    Raises:
        ValueError: Naming the value.
    """
    if not 0 <= tau_px < math.inf:
        raise ValueError(f"tau_px must be a finite number of pixels, at least 0, got {tau_px!r}.")
