"""From a photograph to a mask at its own size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dermaseg.data.geometry import fit_area
from dermaseg.data.images import read_image, resize_image
from dermaseg.runs import read_json, write_atomically
from dermaseg.saving import load_model

__all__ = ["Prediction", "Predictor"]

Photo = str | Path | Image.Image | np.ndarray

NOT_A_DIAGNOSIS = "Research software: not a medical device, and no substitute for a dermatologist."


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says of one photograph.

    Args:
        photo: Where the photograph was read from; None for one given as pixels.
        image: Its pixels, `(height, width, 3)`, uint8 RGB.
        probability: Probability of lesion, `(height, width)`, float32, 0 to 1, at the photograph's own size.
        threshold: Where the probability becomes the mask.
    """

    photo: Path | None
    image: np.ndarray = field(repr=False)
    probability: np.ndarray = field(repr=False)
    threshold: float = 0.5

    @property
    def mask(self) -> np.ndarray:
        """The lesion, `(height, width)`, uint8, 0 or 1."""
        return (self.probability > self.threshold).astype(np.uint8)

    def summary(self) -> dict[str, Any]:
        """Figures for a table or a JSON line: size and lesion area in pixels, share of the picture, mean confidence."""
        mask = self.mask
        height, width = mask.shape
        certainty = np.abs(2 * self.probability - 1)
        return {
            "photo": None if self.photo is None else str(self.photo),
            "width_px": width,
            "height_px": height,
            "lesion_px": int(mask.sum()),
            "lesion_share": round(float(mask.mean()), 6),
            "mean_certainty": round(float(certainty.mean()), 6),
            "note": NOT_A_DIAGNOSIS,
        }

    def save(self, folder: str | Path, name: str) -> dict[str, str]:
        """Write `<name>_mask.png` (0 and 255) and `<name>_overlay.png` (the outline on the photograph).

        Returns:
            The two paths, by `mask` and `overlay`.
        """
        from dermaseg.plots import overlay

        pictures = {
            "mask": Image.fromarray(self.mask * 255),
            "overlay": Image.fromarray(overlay(self.image, self.mask)),
        }
        written = {}
        for kind, picture in pictures.items():
            path = Path(folder) / f"{name}_{kind}.png"
            write_atomically(path, picture.save)
            written[kind] = str(path)
        return written


class Predictor:
    """Segment photographs of any size with a trained model.

    A photograph is brought to the area that the model was trained at, keeping its shape; the probabilities are brought
    back to its own size before the threshold, so that outlines stay smooth.

    Args:
        model: A run folder, a saved `.keras` file, or a model. A run folder knows its training size; a file does if a
            `.json` of the same name stands beside it.
        size: Side in pixels of the square with the area that the model works at; None takes the training size.
        threshold: Probability above which a pixel is lesion; None takes the model's own, or 0.5.

    Raises:
        DataError: If the model cannot be found or read.
        ValueError: If the size is not known, or the threshold is not between 0 and 1.
    """

    def __init__(self, model: str | Path | keras.Model, *, size: int | None = None, threshold: float | None = None) -> None:
        card: dict[str, Any] = {}
        if isinstance(model, keras.Model):
            self.model = model
        else:
            self.model, card = _load(Path(model))
        known_size = size or card.get("size")
        if not known_size:
            raise ValueError("size is not known for this model: give the side, in pixels, that it was trained at.")
        self.size = int(known_size)
        self.threshold = float(card.get("threshold", 0.5) if threshold is None else threshold)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold!r}.")

    def __call__(self, photo: Photo) -> Prediction:
        """Segment one photograph: a path, a PIL image, or an RGB array `(height, width, 3)`, uint8."""
        return next(self.predict([photo]))

    def predict(self, photos: Iterable[Photo], *, batch_size: int = 16) -> Iterator[Prediction]:
        """Segment photographs one after the other, in order, holding one batch in memory.

        Photographs that follow each other and share a shape share a batch.

        Raises:
            DataError: If a file cannot be read; the message names it.
        """
        with ThreadPoolExecutor(2) as readers:
            for chunk in _chunks(photos, batch_size):
                loaded = list(readers.map(_read, chunk))
                for _, group in itertools.groupby(loaded, key=lambda item: item[1].shape):
                    yield from self._predict_group(list(group))

    def _predict_group(self, group: Sequence[tuple[Path | None, np.ndarray]]) -> Iterator[Prediction]:
        height, width = group[0][1].shape[:2]
        canvas = fit_area((height, width), self.size)
        batch = np.stack([resize_image(image, canvas) for _, image in group])
        outputs = self.model.predict_on_batch(batch)
        masks = outputs["mask"] if isinstance(outputs, dict) else outputs
        for (photo, image), probability in zip(group, np.asarray(masks, dtype=np.float32)[..., 0], strict=True):
            full = Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR)
            yield Prediction(photo, image, np.clip(np.asarray(full), 0.0, 1.0), self.threshold)


def _load(path: Path) -> tuple[keras.Model, dict[str, Any]]:
    file = path / "model.keras" if path.is_dir() else path
    card = file.with_suffix(".json")
    model = load_model(file)
    return model, read_json(card) if card.is_file() else {}


def _chunks(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    iterator = iter(photos)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _read(photo: Photo) -> tuple[Path | None, np.ndarray]:
    if isinstance(photo, (str, Path)):
        return Path(photo), read_image(photo)
    if isinstance(photo, Image.Image):
        return None, np.asarray(photo.convert("RGB"))
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"an array must be RGB, (height, width, 3), uint8, 0 to 255; got shape {photo.shape}, {photo.dtype}.")
    return None, photo
