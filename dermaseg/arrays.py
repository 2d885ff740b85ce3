"""Pixels that a caller holds in memory: checked at the door, and of one type behind it."""

from __future__ import annotations

import numpy as np

__all__ = ["check_image", "check_image_and_mask", "check_mask", "check_plane"]


def check_image(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8.

    Raises:
        ValueError: If it is no RGB image of 0 to 255, or one that was scaled to 1.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}: (height, width, 3) is needed.")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf" or not (image.min() >= 0 and image.max() <= 255):  # a NaN fails both comparisons
        raise ValueError(f"image must hold numbers from 0 to 255, got {image.dtype} from {image.min()} to {image.max()}.")
    if image.dtype.kind == "f" and image.max() <= 1 and (image % 1).any():
        raise ValueError("image holds fractions from 0 to 1, and 0 to 255 is needed: multiply it by 255.")
    return np.rint(image).astype(np.uint8)


def check_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the mask of an image as bool, `(height, width)`.

    Raises:
        ValueError: If it has another shape, or values other than 0 and 1.
    """
    inside = check_plane(mask)
    if inside.shape != image.shape[:2]:
        raise ValueError(f"mask is {inside.shape}, its image {image.shape[:2]} (height, width): resize one to the other.")
    return inside


def check_plane(mask: np.ndarray) -> np.ndarray:
    """Return a mask as bool, `(height, width)`.

    Raises:
        ValueError: If it has another shape, or values other than 0 and 1.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"mask has shape {mask.shape}: (height, width) or (height, width, 1) is needed.")
    if mask.dtype != bool and not np.all((mask == 0) | (mask == 1)):
        raise ValueError(f"mask must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}. Cut it at 0.5 or 127.")
    return mask.astype(bool)


def check_image_and_mask(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Do what `check_image` and `check_mask` do, where a mask may be missing."""
    image = check_image(image)
    return image, None if mask is None else check_mask(mask, image)
