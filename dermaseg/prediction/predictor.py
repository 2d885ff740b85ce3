"""From photographs of any size to predictions, with a trained model."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dermaseg.data.geometry import fit_area
from dermaseg.data.images import resize_image
from dermaseg.decisions import Decisions
from dermaseg.errors import DataError
from dermaseg.prediction.loading import open_model
from dermaseg.prediction.outputs import class_probabilities, named_outputs, output_name
from dermaseg.prediction.photos import Photo, ReadPhoto, check_photos, is_full, read_ahead
from dermaseg.prediction.result import Prediction
from dermaseg.runtime import OnnxModel

if TYPE_CHECKING:
    import keras

__all__ = ["TTA", "Predictor"]

TTA = ("none", "flips", "dihedral")


class Predictor:
    """Outline and name lesions in photographs of any size with a trained model.

    A photograph is brought to the area that the model was trained at, keeping its shape; the probabilities are brought
    back to its own size before the threshold, so that outlines stay smooth. For a model that was built or exported for one
    height and width it is brought to these, whatever its shape, as a training brings all photographs to one. Class
    probabilities are calibrated where the model knows its temperature.

    Args:
        model: A run folder, a saved `.keras` file, an exported `.onnx` file, which runs without Keras, the name of a preset, or
            a model: Keras's, or an `OnnxModel`; None takes the default preset. A run folder and a preset know their training
            size; a file does if a `.json` of the same name stands beside it, or within it; an `OnnxModel` does by its card.
        size: Side in pixels of the square with the area that the model works at; None takes the training size. Less than half
            or more than twice that size earns a warning.
        threshold: Probability above which a pixel is lesion.
        tta: Test-time augmentation: `"none"`; `"flips"`, the mean over the photograph and its three mirror images; or
            `"dihedral"`, over these and the same turned by 90 degrees. 4 or 8 times the work. Temperature, thresholds, sets
            and levels of doubt were chosen on single views; a mean is more even than its members, so that sets come out a
            little larger and more is referred, and the coverage of the sets is no longer the one that was promised.
        dropout_samples: Monte-Carlo dropout: the mean over so many predictions with dropout left on, at least 2; 0 predicts
            once, without. What is said of `tta` and the decisions holds here too.
        mm_per_px: Millimetres a pixel of the photographs, for sizes in millimetres; None if not known.
        largest_component: Keep the largest connected region of each mask alone. None does so where that outlined the model's
            validation part better (`Decisions.tidy_masks`).
        fill_holes: Fill holes in each mask; None as above.

    Raises:
        DataError: If the model cannot be found or read.
        ValueError: If the size is not known or not the one that the model takes, an argument is outside its range, or
            `dropout_samples` are asked of a model without dropout, of one that runs on onnxruntime, or together with `tta`.
    """

    def __init__(
        self,
        model: str | Path | keras.Model | OnnxModel | None = None,
        *,
        size: int | None = None,
        threshold: float = 0.5,
        tta: str = "none",
        dropout_samples: int = 0,
        mm_per_px: float | None = None,
        largest_component: bool | None = None,
        fill_holes: bool | None = None,
    ) -> None:
        card: dict[str, Any]
        if mm_per_px is not None and not 0 < mm_per_px < math.inf:
            raise ValueError(f"mm_per_px must be a number of millimetres above 0, or None, got {mm_per_px!r}.")
        if model is None or isinstance(model, (str, Path)):
            self.model, card = open_model(model, with_keras=bool(dropout_samples))
        else:
            self.model = model
            card = dict(model.card) if isinstance(model, OnnxModel) else {}
        self._fixed = _fixed_canvas(self.model)
        known_size = card.get("size") if size is None else size
        if self._fixed is not None:
            known_size = round(math.sqrt(self._fixed[0] * self._fixed[1]))
            if size not in (None, known_size):
                height, width = self._fixed
                raise ValueError(f"size={size!r}: the model takes {height} by {width} pixels alone. Leave size out.")
        if known_size is None:
            raise ValueError("size is not known for this model: give size=... (--size in a shell), the side it was trained at.")
        if known_size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size!r}.")
        if self._fixed is None and (trained := card.get("size")) and not trained / 2 <= known_size <= 2 * trained:
            warnings.warn(
                f"size={known_size}: the model was trained at {trained}; lesions so much larger or smaller in pixels are "
                "outlined and named worse. Leave size out to take the model's own.",
                stacklevel=2,
            )
        if tta not in TTA:
            raise ValueError(f"tta must be one of {', '.join(TTA)}, got {tta!r}.")
        if self._fixed is not None and tta == "dihedral" and self._fixed[0] != self._fixed[1]:
            height, width = self._fixed
            raise ValueError(f"the model takes {height} by {width} pixels alone, which tta='dihedral' turns: take 'flips'.")
        self.size = int(known_size)
        self.threshold = float(threshold)
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
        """Read one photograph: a path, a PIL image, or an RGB array `(height, width, 3)`, uint8.

        Raises:
            DataError: If a file cannot be read; the message names it.
            TypeError: If it is none of these.
            ValueError: If an array has another shape or type, or the model gives neither mask nor label.
        """
        return next(self.predict([photo]))

    def predict(
        self,
        photos: Iterable[Photo],
        *,
        batch_size: int = 16,
        on_error: Callable[[Photo, DataError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Read photographs one after the other, in order, holding one batch in memory and the next few photographs.

        Photographs that follow each other and share a shape share a batch.

        Args:
            photos: Paths, PIL images or RGB arrays.
            batch_size: Photographs in a batch, at least 1; of large ones, fewer: a batch ends with its 50th megapixel.
            on_error: Called with each file that cannot be read and the reason; it has no prediction, and the next ones
                follow. None raises the first reason, after the predictions of the photographs before it.

        Raises:
            DataError: If a file cannot be read and `on_error` is None; the message names it.
            TypeError: If `photos` is one photograph, or one of them is neither path nor PIL image nor array.
            ValueError: If `batch_size` is below 1, an array is no RGB photograph, or the model gives neither mask nor label.
        """
        check_photos(photos)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
        return self._predict(photos, batch_size, on_error)

    def _predict(
        self, photos: Iterable[Photo], batch_size: int, on_error: Callable[[Photo, DataError], None] | None
    ) -> Iterator[Prediction]:
        batch: list[ReadPhoto] = []
        with ThreadPoolExecutor(2) as readers:
            for photo, found in read_ahead(photos, readers):
                if isinstance(found, tuple):
                    batch.append(found)
                elif isinstance(found, DataError) and on_error is not None:
                    on_error(photo, found)
                else:
                    yield from self._predict_batch(batch)
                    raise found
                if is_full(batch, batch_size):
                    yield from self._predict_batch(batch)
                    batch.clear()
        yield from self._predict_batch(batch)

    def _predict_batch(self, batch: Sequence[ReadPhoto]) -> Iterator[Prediction]:
        for _, group in itertools.groupby(batch, key=lambda item: item[1].shape):
            yield from self._predict_group(list(group))

    def _predict_group(self, group: Sequence[ReadPhoto]) -> Iterator[Prediction]:
        height, width = group[0][1].shape[:2]
        canvas = self._fixed or fit_area((height, width), self.size)
        outputs, disagreements = self._outputs(np.stack([resize_image(image, canvas) for _, image in group]))
        if "mask" in outputs and (channels := outputs["mask"].shape[-1]) != 1:
            raise ValueError(
                f"the model's masks have {channels} channels; Predictor reads one, the probability of lesion. Predict with the "
                "model itself, or build it with num_classes=1."
            )
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
                largest_component=self._or_tidy(self.largest_component),
                fill_holes=self._or_tidy(self.fill_holes),
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
            spreads = spreads if isinstance(spreads, Mapping) else {output_name(spreads.probability): spreads}
        elif self.tta != "none":
            from dermaseg.uncertainty import dihedral_average

            spreads = dihedral_average(
                lambda images: named_outputs(self.model.predict_on_batch(images)), batch, transforms=self.tta
            )
        else:
            return named_outputs(self.model.predict_on_batch(batch)), {}
        probabilities = named_outputs({name: spread.probability for name, spread in spreads.items()})
        return probabilities, {name: spreads[name].image_mutual_information for name in probabilities}

    def _or_tidy(self, asked: bool | None) -> bool:
        return self.decisions.tidy_masks if asked is None else asked

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
        probabilities = class_probabilities(probabilities)
        names = self.class_names or tuple(f"class_{index}" for index in range(probabilities.shape[1]))
        if len(names) != probabilities.shape[1]:
            raise ValueError(
                f"the model gives {probabilities.shape[1]} classes, and class_names has {len(names)}: {', '.join(names)}. "
                "Set the names of the model's own classes, in the order of its outputs."
            )
        calibrated = self.decisions.calibrate(probabilities)
        return [dict(zip(names, row.tolist(), strict=True)) for row in calibrated]


def _fixed_canvas(model: Any) -> tuple[int, int] | None:
    """Return the only height and width in pixels that a model takes, or None where it takes others."""
    if isinstance(model, OnnxModel):
        height, width = model.input_size
    else:
        shapes = [each.shape for each in getattr(model, "inputs", None) or []]  # a subclass has no such attribute
        height, width = shapes[0][1:3] if len(shapes) == 1 and len(shapes[0]) == 4 else (None, None)
    return None if height is None or width is None else (int(height), int(width))
