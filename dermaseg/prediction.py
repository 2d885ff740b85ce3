"""From a photograph to a mask at its own size and to the probabilities of classes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dermaseg.data.geometry import fit_area
from dermaseg.data.images import convert_image, read_image, resize_image
from dermaseg.decisions import Decisions
from dermaseg.errors import DataError
from dermaseg.pretrained import DEFAULT_PRESET, Preset, find_preset, is_preset
from dermaseg.runs import read_json, write_atomically
from dermaseg.runtime import OnnxModel

if TYPE_CHECKING:
    import keras

    from dermaseg.measurements import LesionMeasurements

__all__ = ["Prediction", "Predictor", "clean_mask"]

TTA = ("none", "flips", "dihedral")

Photo = str | Path | Image.Image | np.ndarray

NOT_A_DIAGNOSIS = "Research software: not a medical device, and no substitute for a dermatologist."


@dataclass(frozen=True)
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
        """The classes of the conformal set, which holds the true one nine times in ten; empty where the model has none.

        The most probable class is always among them: a set may be empty otherwise, which helps nobody, and can only gain by it.
        """
        if not self.classes or self.decisions.conformal is None:
            return ()
        probabilities = np.array([list(self.classes.values())])
        chosen = self.decisions.conformal.sets(probabilities)[0]
        chosen[probabilities.argmax()] = True
        return tuple(name for name, inside in zip(self.classes, chosen, strict=True) if inside)

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
            found["above_threshold"] = [
                name for name, threshold in self.decisions.thresholds.items() if self.classes[name] >= threshold
            ]
        found |= {f"{kind}_uncertainty": round(doubt, 6) for kind, doubt in self.uncertainty.items()}
        found |= {f"{kind}_disagreement": round(bits, 6) for kind, bits in self.disagreement.items()}
        return {**found, "refer": self.refer, "note": NOT_A_DIAGNOSIS}

    def save(self, folder: str | Path, name: str) -> dict[str, str]:
        """Write `<name>_mask.png` (0 and 255) and `<name>_overlay.png` (the outline on the photograph), where there is a mask.

        Both say in their metadata that they are no diagnosis.

        Returns:
            The paths, by `mask` and `overlay`.
        """
        if self.probability is None:
            return {}
        note = PngInfo()
        note.add_text("Disclaimer", NOT_A_DIAGNOSIS)
        pictures = {"mask": self.mask * 255, "overlay": self.overlay}
        written = {}
        for kind, pixels in pictures.items():
            path = Path(folder) / f"{name}_{kind}.png"
            # A photograph's noise hardly compresses: the default level takes four times as long to save a fifth of the file.
            save = functools.partial(Image.fromarray(pixels).save, compress_level=1, pnginfo=note)
            write_atomically(path, save)
            written[kind] = str(path)
        return written


class Predictor:
    """Outline and name lesions in photographs of any size with a trained model.

    A photograph is brought to the area that the model was trained at, keeping its shape; the probabilities are brought
    back to its own size before the threshold, so that outlines stay smooth. Class probabilities are calibrated where the model
    knows its temperature.

    Args:
        model: A run folder, a saved `.keras` file, an exported `.onnx` file, which runs without Keras, the name of a preset, or
            a model; None takes the default preset. A run folder and a preset know their training size; a file does if a
            `.json` of the same name stands beside it, or within it.
        size: Side in pixels of the square with the area that the model works at; None takes the training size.
        threshold: Probability above which a pixel is lesion; None takes the model's own, or 0.5.
        tta: Test-time augmentation: `"none"`; `"flips"`, the mean over the photograph and its three mirror images; or
            `"dihedral"`, over these and the same turned by 90 degrees. 4 or 8 times the work. Temperature, thresholds, sets
            and levels of doubt were chosen on single views; a mean is more even than its members, so that sets come out a
            little larger and more is referred, and the coverage of the sets is no longer the one that was promised.
        dropout_samples: Monte-Carlo dropout: the mean over so many predictions with dropout left on, at least 2; 0 predicts
            once, without. What is said of `tta` and the decisions holds here too.
        mm_per_px: Millimetres a pixel of the photographs, for sizes in millimetres; None if not known.
        largest_component: Keep the largest connected region of each mask alone.
        fill_holes: Fill holes in each mask.

    Raises:
        DataError: If the model cannot be found or read.
        ValueError: If the size is not known, an argument is outside its range, or `dropout_samples` are asked of a model
            without dropout, of one that runs on onnxruntime, or together with `tta`.
    """

    def __init__(
        self,
        model: str | Path | keras.Model | None = None,
        *,
        size: int | None = None,
        threshold: float | None = None,
        tta: str = "none",
        dropout_samples: int = 0,
        mm_per_px: float | None = None,
        largest_component: bool = False,
        fill_holes: bool = False,
    ) -> None:
        card: dict[str, Any] = {}
        if mm_per_px is not None and not 0 < mm_per_px < math.inf:
            raise ValueError(f"mm_per_px must be a number of millimetres above 0, or None, got {mm_per_px!r}.")
        if model is None or isinstance(model, (str, Path)):
            self.model, card = _load(model, with_keras=bool(dropout_samples))
        else:
            self.model = model
        known_size = card.get("size") if size is None else size
        if known_size is None:
            raise ValueError("size is not known for this model: give size=... (--size in a shell), the side it was trained at.")
        if known_size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size!r}.")
        if tta not in TTA:
            raise ValueError(f"tta must be one of {', '.join(TTA)}, got {tta!r}.")
        self.size = int(known_size)
        self.threshold = float(card.get("threshold", 0.5) if threshold is None else threshold)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold!r}.")
        self.tta = tta
        self.dropout_samples = dropout_samples
        if dropout_samples:
            self.model = self._with_dropout()
        self.mm_per_px = mm_per_px
        self.largest_component = largest_component
        self.fill_holes = fill_holes
        self.class_names = tuple(card.get("class_names", ()))
        self.decisions = Decisions.from_dict(card.get("decisions", {}))

    def __call__(self, photo: Photo) -> Prediction:
        """Read one photograph: a path, a PIL image, or an RGB array `(height, width, 3)`, uint8."""
        return next(self.predict([photo]))

    def predict(
        self,
        photos: Iterable[Photo],
        *,
        batch_size: int = 16,
        on_error: Callable[[Photo, DataError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Read photographs one after the other, in order, holding one batch in memory.

        Photographs that follow each other and share a shape share a batch.

        Args:
            photos: Paths, PIL images or RGB arrays.
            batch_size: Photographs in memory at a time.
            on_error: Called with each photograph that cannot be read and the reason; it has no prediction, and the next ones
                follow. None raises the first reason.

        Raises:
            DataError: If a file cannot be read and `on_error` is None; the message names it.
        """
        with ThreadPoolExecutor(2) as readers:
            for chunk in _chunks(photos, batch_size):
                loaded = []
                for photo, found in zip(chunk, readers.map(_try_to_read, chunk), strict=True):
                    if not isinstance(found, DataError):
                        loaded.append(found)
                    elif on_error is None:
                        raise found
                    else:
                        on_error(photo, found)
                for _, group in itertools.groupby(loaded, key=lambda item: item[1].shape):
                    yield from self._predict_group(list(group))

    def _predict_group(self, group: Sequence[tuple[Path | None, np.ndarray]]) -> Iterator[Prediction]:
        height, width = group[0][1].shape[:2]
        canvas = fit_area((height, width), self.size)
        outputs, disagreements = self._outputs(np.stack([resize_image(image, canvas) for _, image in group]))
        labels = self._classes(outputs["label"]) if "label" in outputs else [{}] * len(group)
        for index, (photo, image) in enumerate(group):
            probability = None
            if "mask" in outputs:
                small = Image.fromarray(outputs["mask"][index, ..., 0])
                resized = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
                probability = np.clip(resized, 0.0, 1.0)
            yield Prediction(
                photo,
                image,
                probability,
                threshold=self.threshold,
                largest_component=self.largest_component,
                fill_holes=self.fill_holes,
                classes=labels[index],
                decisions=self.decisions,
                disagreement={name: float(bits[index]) for name, bits in disagreements.items()},
                mm_per_px=self.mm_per_px,
            )

    def _outputs(self, batch: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Predict a batch, once or repeatedly.

        Returns:
            What the model has of `mask` `(batch, height, width, channels)` and `label` `(batch, classes)`, float32, and of the
            same, after repeated predictions, the disagreement about each photograph, `(batch,)`.
        """
        if self.dropout_samples:
            from dermaseg.monte_carlo import monte_carlo_dropout

            spreads = monte_carlo_dropout(self.model, batch, samples=self.dropout_samples, batch_size=len(batch))
            spreads = _by_name(spreads, spreads.probability) if not isinstance(spreads, Mapping) else spreads
        elif self.tta != "none":
            from dermaseg.uncertainty import dihedral_average

            spreads = dihedral_average(
                lambda images: named_outputs(self.model.predict_on_batch(images)), batch, transforms=self.tta
            )
        else:
            return named_outputs(self.model.predict_on_batch(batch)), {}
        probabilities = {name: np.asarray(spread.probability, np.float32) for name, spread in spreads.items()}
        return probabilities, {name: spread.image_mutual_information for name, spread in spreads.items()}

    def _with_dropout(self) -> keras.Model:
        if self.dropout_samples < 2:
            raise ValueError(
                f"dropout_samples must be 0, or at least 2, for one prediction has no spread; got {self.dropout_samples!r}."
            )
        if self.tta != "none":
            raise ValueError("dropout_samples and tta cannot be combined: leave one of them out.")
        if isinstance(self.model, OnnxModel):
            raise ValueError(
                "dropout_samples needs a Keras model: an exported one has no dropout left. Give a run folder or a .keras file."
            )
        from dermaseg.monte_carlo import activate_dropout

        return activate_dropout(self.model)

    def _classes(self, probabilities: np.ndarray) -> list[dict[str, float]]:
        if probabilities.shape[1] == 1:  # one sigmoid: the chance of the second of two classes
            probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
        names = self.class_names or tuple(f"class_{index}" for index in range(probabilities.shape[1]))
        calibrated = self.decisions.calibrate(probabilities)
        return [dict(zip(names, row.tolist(), strict=True)) for row in calibrated]


def named_outputs(outputs: Any) -> dict[str, np.ndarray]:
    """Name what a model returned: a dict stays, four axes are a `mask`, two a `label`; float32."""
    if not isinstance(outputs, Mapping):
        outputs = _by_name(outputs, outputs)
    return {name: np.asarray(values, np.float32) for name, values in outputs.items()}


def _by_name(output: Any, probabilities: np.ndarray) -> dict[str, Any]:
    return {"mask" if np.ndim(probabilities) == 4 else "label": output}


def clean_mask(mask: np.ndarray, *, largest_component: bool = False, fill_holes: bool = False) -> np.ndarray:
    """Tidy a mask: a photograph for these networks shows one lesion.

    Args:
        mask: `(height, width)`, 0 or 1.
        largest_component: Keep the largest connected region (8 neighbours); of equals, the first from the top.
        fill_holes: Make lesion of skin that lesion surrounds.

    Returns:
        A mask of the same shape, uint8.

    Examples:
        >>> clean_mask(np.array([[1, 0, 1], [0, 0, 1]]), largest_component=True).tolist()
        [[0, 0, 1], [0, 0, 1]]
    """
    mask = np.asarray(mask, np.uint8)
    if largest_component:
        from skimage.measure import label

        regions = label(mask, connectivity=2)
        counts = np.bincount(regions.ravel())[1:]
        mask = (regions == counts.argmax() + 1).astype(np.uint8) if counts.size else mask
    if fill_holes:
        from scipy.ndimage import binary_fill_holes

        mask = binary_fill_holes(mask).astype(np.uint8)
    return mask


def _load(model: str | Path | None, *, with_keras: bool) -> tuple[Any, dict[str, Any]]:
    if model is None or is_preset(model):
        preset = find_preset(str(model or DEFAULT_PRESET))
        return _open_preset(preset, with_keras=with_keras), dict(preset.card)
    path = Path(model)
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix == ".onnx":
        exported = OnnxModel(file)
        return exported, dict(exported.card)
    from dermaseg.saving import load_model

    card = file.with_suffix(".json")
    network = load_model(file)
    return network, read_json(card) if card.is_file() else {}


def _open_preset(preset: Preset, *, with_keras: bool) -> Any:
    """Open a preset on onnxruntime, which starts in a tenth of the time, or in Keras where there is none or it is needed."""
    if preset.runs_without_keras and not with_keras:
        return OnnxModel.from_preset(preset)
    from dermaseg.presets import load_preset

    return load_preset(preset.name)


def _chunks(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    iterator = iter(photos)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _try_to_read(photo: Photo) -> tuple[Path | None, np.ndarray] | DataError:
    try:
        return _read(photo)
    except DataError as error:
        return error


def _read(photo: Photo) -> tuple[Path | None, np.ndarray]:
    if isinstance(photo, (str, Path)):
        return Path(photo), read_image(photo)
    if isinstance(photo, Image.Image):
        return None, convert_image(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"an array must be RGB, (height, width, 3), uint8, 0 to 255; got shape {photo.shape}, {photo.dtype}.")
    return None, photo
