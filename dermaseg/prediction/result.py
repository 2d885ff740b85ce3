"""What is known of one photograph."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dermaseg.decisions import Decisions
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DataError
from dermaseg.masks import clean_mask
from dermaseg.runs import write_atomically

if TYPE_CHECKING:
    from dermaseg.measurements import LesionMeasurements

__all__ = ["Prediction", "refuse_to_replace"]

_NOTE = "Disclaimer"  # in the pictures' metadata, by which they are known again


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Prediction:
    """What the network says of one photograph.

    Args:
        photo: Where the photograph was read from; None for one given as pixels.
        image: Its pixels, `(height, width, 3)`, uint8 RGB.
        probability: Probability of lesion, `(height, width)`, float32, 0 to 1, at the photograph's own size; None where the
            model outlines nothing.
        threshold: Where the probability becomes the mask.
        largest_component: Keep the largest connected region of the mask alone.
        fill_holes: Fill holes in the mask.
        classes: Calibrated probability of each class, in the model's order; empty where the model names none.
        decisions: How to read the probabilities, as the model's validation part settled it: on one view of each photograph.
        disagreement: How far the members of a repeated prediction disagree about the `mask`, in bits a pixel of lesion, and
            the `label`, in bits: their mutual information. Empty for a single prediction.
        mm_per_px: Millimetres a pixel of the photograph; None if not known.
    """

    photo: Path | None
    image: np.ndarray = field(repr=False)
    probability: np.ndarray | None = field(default=None, repr=False)
    threshold: float = 0.5
    largest_component: bool = False
    fill_holes: bool = False
    classes: Mapping[str, float] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions, repr=False)
    disagreement: Mapping[str, float] = field(default_factory=dict)
    mm_per_px: float | None = None

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """The lesion, `(height, width)`, uint8, 0 or 1.

        Raises:
            ValueError: If the model outlines nothing.
        """
        if self.probability is None:
            raise ValueError("this model names classes and outlines nothing. Predict with a model of segment or hybrid.")
        mask = (self.probability > self.threshold).astype(np.uint8)
        return clean_mask(mask, largest_component=self.largest_component, fill_holes=self.fill_holes)

    @functools.cached_property
    def overlay(self) -> np.ndarray:
        """The photograph with the lesion's outline, `(height, width, 3)`, uint8 RGB.

        Raises:
            ValueError: If the model outlines nothing.
        """
        from dermaseg.plots import overlay

        return overlay(self.image, self.mask)

    @property
    def label(self) -> str:
        """The most probable class.

        Raises:
            ValueError: If the model names no classes.
        """
        if not self.classes:
            raise ValueError("this model outlines the lesion and names no classes. Predict with a model of classify or hybrid.")
        return max(self.classes, key=self.classes.__getitem__)

    @functools.cached_property
    def uncertainty(self) -> dict[str, float]:
        """Doubt about the `mask`, 1 - the Jaccard index that the network expects of it, and the `label`, entropy in bits."""
        from dermaseg.uncertainty import entropy_bits, expected_jaccard

        found = {}
        if self.probability is not None:
            found["mask"] = 1 - float(expected_jaccard(self.probability[np.newaxis], threshold=self.threshold)[0])
        if self.classes:
            found["label"] = float(entropy_bits(np.array([list(self.classes.values())]))[0])
        return found

    @property
    def possible(self) -> tuple[str, ...]:
        """The classes of the conformal set; empty where the model has none.

        It holds the true class for nine photographs in ten on average, on data like the validation part, and for fewer of a
        rare class: to miss few of one, read `above_threshold`.

        The most probable class is always among them: a set may be empty otherwise, which helps nobody, and can only gain by it.
        """
        if not self.classes or self.decisions.conformal is None:
            return ()
        probabilities = np.array([list(self.classes.values())])
        chosen = self.decisions.conformal.sets(probabilities)[0]
        chosen[probabilities.argmax()] = True
        return tuple(name for name, inside in zip(self.classes, chosen, strict=True) if inside)

    @property
    def above_threshold(self) -> tuple[str, ...]:
        """The classes whose probability reaches a threshold of their own: that of `Decisions.thresholds`."""
        return tuple(name for name, threshold in self.decisions.thresholds.items() if self.classes.get(name, 0) >= threshold)

    @property
    def refer(self) -> bool | None:
        """Whether to leave the photograph to a person; None where no level of doubt is known.

        It is so where the doubt is above the level of the validation part's most doubtful tenth, and where the mask is empty:
        photographs are taken of lesions, so that none found is a miss, however sure of it the network is.
        """
        doubts = self.uncertainty
        levels = {"mask": self.decisions.mask_rejection, "label": self.decisions.label_rejection}
        answers = [bool(level.refer(doubts[kind])) for kind, level in levels.items() if level is not None and kind in doubts]
        if not answers:
            return None
        nothing_found = self.probability is not None and not bool((self.probability > self.threshold).any())
        return any(answers) or nothing_found

    def measure(self) -> LesionMeasurements:
        """Measure the lesion with `dermaseg.measurements.measure_lesion`, in millimetres too where the scale is known.

        Raises:
            ValueError: If the model outlines nothing.
        """
        from dermaseg.measurements import measure_lesion

        return measure_lesion(self.image, self.mask, mm_per_px=self.mm_per_px)

    def summary(self) -> dict[str, Any]:
        """Figures for a table or a JSON line: size, lesion, classes, doubts, and whether to refer."""
        height, width = self.image.shape[:2]
        found: dict[str, Any] = {
            "photo": None if self.photo is None else str(self.photo),
            "width_px": width,
            "height_px": height,
        }
        if self.probability is not None:
            mask = self.mask
            found["lesion_px"] = int(mask.sum())
            found["lesion_share"] = round(float(mask.mean()), 6)
        if self.classes:
            found["label"] = self.label
            found["classes"] = {name: round(probability, 6) for name, probability in self.classes.items()}
            found["possible"] = list(self.possible)
            found["above_threshold"] = list(self.above_threshold)
        found |= {f"{kind}_uncertainty": round(doubt, 6) for kind, doubt in self.uncertainty.items()}
        found |= {f"{kind}_disagreement": round(bits, 6) for kind, bits in self.disagreement.items()}
        return {**found, "refer": self.refer, "note": NOT_A_DIAGNOSIS}

    def save(self, folder: str | Path, name: str) -> dict[str, str]:
        """Write `<name>_mask.png` (0 and 255) and `<name>_overlay.png` (the outline on the photograph), where there is a mask.

        Both say in their metadata that they are no diagnosis. An earlier prediction's are replaced; another picture is not, for
        true masks bear such names too.

        Returns:
            The paths, by `mask` and `overlay`.

        Raises:
            DataError: If a picture of such a name stands there that is no prediction's.
        """
        if self.probability is None:
            return {}
        refuse_to_replace(folder, [name])
        note = PngInfo()
        note.add_text(_NOTE, NOT_A_DIAGNOSIS)
        pictures = {"mask": self.mask * 255, "overlay": self.overlay}
        written = {}
        for path, (kind, pixels) in zip(_paths(folder, name), pictures.items(), strict=True):
            # A photograph's noise hardly repeats itself: looking for runs alone makes files as small as the default level does,
            # in a quarter of its time.
            save = functools.partial(Image.fromarray(pixels).save, compress_level=1, compress_type=zlib.Z_RLE, pnginfo=note)
            write_atomically(path, save)
            written[kind] = str(path)
        return written


def refuse_to_replace(folder: str | Path, names: Iterable[str]) -> None:
    """Refuse to save predictions over pictures that are none, such as true masks.

    Args:
        folder: As for `Prediction.save`.
        names: As there.

    Raises:
        DataError: If there is one.
    """
    for path in (path for name in names for path in _paths(folder, name)):
        if path.exists() and not _is_prediction(path):
            raise DataError(f"{folder}: holds {path.name}, which predict did not write. Give another folder (--output).")


def _paths(folder: str | Path, name: str) -> tuple[Path, Path]:
    return Path(folder) / f"{name}_mask.png", Path(folder) / f"{name}_overlay.png"


def _is_prediction(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return _NOTE in picture.info
    except Exception:  # noqa: BLE001 Pillow raises almost anything for a file that it cannot read, and ours it can
        return False
