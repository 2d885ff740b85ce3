"""A model and samples in, a report with intervals and subgroups out."""

from __future__ import annotations

import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.artefacts import image_attributes
from dermaseg.data import Samples, Split, group_samples
from dermaseg.data.duplicates import copies_of
from dermaseg.data.images import read_mask_at
from dermaseg.data.samples import Sample
from dermaseg.errors import DataError
from dermaseg.metrics import Interval, bootstrap_interval, bootstrap_statistic, segmentation_scores
from dermaseg.metrics.resampled import Weighted, alarm_figures, class_figures
from dermaseg.model_card import write_model_card
from dermaseg.prediction import Prediction, Predictor
from dermaseg.report import MEANINGS, Diagnoses, Report
from dermaseg.run_data import load_samples
from dermaseg.runs import RunFolder, read_json
from dermaseg.tasks import Task

if TYPE_CHECKING:
    import keras

__all__ = ["Report", "evaluate", "evaluate_run"]

_PARTS = ("train", "validation", "test")
ATTRIBUTES = ("tone", "hair", "ruler", "dark_corners")
SUBGROUPS = ("class", "sex", "age", "localization", *ATTRIBUTES)
# "accuracy" in a report is that of the classes; most pixels are skin, and theirs says little.
MASK_FIGURES = tuple(MEANINGS)[: tuple(MEANINGS).index("boundary_distance_px") + 1]
OUTLINE_FIGURES = ("jaccard", "thresholded_jaccard", "dice")
SUBGROUP_FIGURES = (*OUTLINE_FIGURES, "accuracy", "majority_share", "balanced_accuracy", "macro_auc")
ALARM_CLASSES = ("mel", "melanoma", "malignant")
ALARM_RATE = 0.9
# Statistics of the whole part, such as an AUC, are computed again for each resample.
STATISTIC_RESAMPLES = 500
SUBGROUP_RESAMPLES = 200

Figures = dict[str, Interval]


def evaluate(
    model: Predictor | str | Path | keras.Model,
    samples: Samples,
    *,
    size: int | None = None,
    title: str = "Report",
    subgroups: Sequence[str] = SUBGROUPS,
    resamples: int = 2000,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a model on photographs: its outlines at each one's own size where there are masks, its classes where labelled.

    A mask that was saved at another size is resized to its photograph's.

    Args:
        model: A `Predictor`, or what makes one.
        samples: The photographs. All must have what the model predicts: masks, or classes; for a model of both, one of the
            two. Use a part that neither trained nor chose the model.
        size: As for `Predictor`, where the model is none yet.
        title: Heading of the report.
        subgroups: Groupings to report: `class`; `tone`, `hair`, `ruler`, `dark_corners`, as `image_attributes` finds them; or a
            key of the samples' metadata; `age` falls into bands of 20 years. A grouping that no sample has is left out.
        resamples: Bootstrap resamples of means; statistics of a whole part, such as an AUC, take at most 500.
        seed: Of the bootstrap.
        on_image: Called with (done, all).

    Returns:
        The report. Each of its `figures`, such as `"jaccard"` or `"balanced_accuracy"`, is an `Interval` with value, low and
        high; a figure that these samples do not define is left out.

    Raises:
        DataError: If there are no samples, a file cannot be read, a sample has nothing to compare with or a class that the
            model does not know, or a mask does not have its photograph's proportions.
        ValueError: As for `Predictor`, if `resamples` is below 1, or if a `Predictor` and a `size` are given.

    Examples:
        >>> import tempfile
        >>> import dermaseg
        >>> samples = dermaseg.data.make_synthetic(tempfile.mkdtemp(), count=4, size=(24, 32))
        >>> report = evaluate(dermaseg.models.build_unet(filters=(8, 16)), samples, size=16, subgroups=(), resamples=20)
        >>> len(report.rows), report.figures["jaccard"].groups  # photographs, and the lesions that they show
        (4, 2)
    """
    if not len(samples):
        raise DataError(f"{samples.source or 'samples'}: there are no photographs to evaluate.")
    if isinstance(model, Predictor) and size is not None:
        raise ValueError(f"size={size!r}: the Predictor has its own, {model.size}. Leave size out, or make one with that size.")
    predictor = model if isinstance(model, Predictor) else Predictor(model, size=size)
    if not predictor.class_names and samples.class_names:
        predictor = copy(predictor)  # the caller's keeps no names
        predictor.class_names = samples.class_names  # a bare model: its outputs are taken to be in the table's order
    elif predictor.class_names:
        samples = samples.with_class_names(predictor.class_names)  # their numbers become those of the model's outputs
    wanted = [name for name in ATTRIBUTES if name in subgroups]
    rows: list[dict[str, Any]] = []
    attributes: list[dict[str, Any]] = []
    predictions = predictor.predict(sample.image for sample in samples)
    for sample, prediction in zip(samples, predictions, strict=True):
        rows.append(_score(sample, prediction, samples))
        attributes.append(image_attributes(prediction.image, _known_mask(sample, prediction)) if wanted else {})
        if on_image is not None:
            on_image(len(rows), len(samples))
    class_names = tuple(predictor.class_names or samples.class_names)
    scored = _Scored(rows, group_samples(samples), samples.labels, class_names, resamples, seed)
    return Report(
        title,
        scored.figures(np.arange(len(rows)), MEANINGS, STATISTIC_RESAMPLES),
        _by_subgroup(samples, attributes, subgroups, scored),
        rows,
        len(np.unique(scored.groups)),
        scored.diagnoses(),
    )


@dataclass(frozen=True)
class _Scored:
    """The rows of photographs, of which figures with intervals are made, of all or of some."""

    rows: Sequence[dict[str, Any]]
    groups: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    resamples: int
    seed: int

    def figures(self, chosen: np.ndarray, names: Collection[str], most: int) -> Figures:
        """Return those of `names` that are defined; statistics of all chosen photographs take `most` resamples at most."""
        found: Figures = {}
        named = chosen[self._diagnosed[chosen]]
        statistics = self._class_statistics(named) if named.size else {}
        for name in (name for name in MEANINGS if name in names):
            values = np.array([self.rows[index].get(name, math.nan) for index in chosen], dtype=float)
            # A distance to an outline that is not there has no value.
            known = np.isfinite(values)
            if known.any():
                own = self.groups[chosen][known]
                found[name] = bootstrap_interval(values[known], groups=own, resamples=self.resamples, seed=self.seed)
            elif name in statistics:
                own, few = self.groups[named], min(self.resamples, most)
                found[name] = bootstrap_statistic(
                    statistics[name], len(named), weighted=True, groups=own, resamples=few, seed=self.seed
                )
        return {name: interval for name, interval in found.items() if math.isfinite(interval.value)}

    def diagnoses(self) -> Diagnoses | None:
        """Return the classes of the photographs that have one and were given probabilities of it; None without any."""
        named = np.flatnonzero(self._diagnosed)
        return Diagnoses(self.class_names, self.labels[named], self._probabilities(named)) if named.size else None

    @functools.cached_property
    def _diagnosed(self) -> np.ndarray:
        return np.array(["true" in row for row in self.rows])

    def _probabilities(self, named: np.ndarray) -> np.ndarray:
        return np.array([[self.rows[index][_column(name)] for name in self.class_names] for index in named])

    def _class_statistics(self, named: np.ndarray) -> dict[str, Weighted]:
        """Return each figure of the classes, for the bootstrap."""
        labels, probabilities = self.labels[named], self._probabilities(named)
        # Rounded to six digits in the rows, probabilities no longer sum to one exactly.
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
        found = class_figures(labels, probabilities)
        alarm = next((index for index, name in enumerate(self.class_names) if name.casefold() in ALARM_CLASSES), None)
        if alarm is not None:
            found |= alarm_figures(labels == alarm, probabilities[:, alarm], rate=ALARM_RATE)
        return found


def evaluate_run(
    run: str | Path | RunFolder,
    *,
    data: str | Path | Samples | None = None,
    part: str | None = None,
    tta: str = "none",
    task: str | Task | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a finished run on a part of its own split, or on other data, and write the report into the run folder.

    Args:
        run: The run folder.
        data: None for the run's own data; another folder or table is scored whole, with a warning if the run was trained on
            some of it.
        part: `"test"`, `"validation"` or `"train"`, of the run's own split; None takes `"test"`. Not with other data.
        tta: Test-time augmentation, as for `Predictor`; it stands in the report's title and file name.
        task: As for `dermaseg.training.resume`: other data are read as the task reads them.
        on_image: Called with (done, all).

    Returns:
        The report, also written as `report.*` (own test part), `report-<part>.*` or `report-<data>.*` (`report-all-of-<data>.*`
        where the data bear the name of a part, `report-<data>-2.*` where another folder of that name was scored before):
        JSON, Markdown, one row per photograph as CSV, pictures, and one HTML page that holds them all; of the own test part
        also `MODEL_CARD.md`.

    Raises:
        DataError: If the folder holds no finished run, the other data cannot be read or lack what the task predicts, or as for
            `evaluate`.
        ValueError: If the split has no such `part`, `tta` is unknown, or, for other data, a `part` is given or `task` is not
            the run's own.
    """
    from dermaseg.report_page import write_pictures_and_page

    if data is not None and part is not None:
        raise ValueError(f"part={part!r} is of the run's own split, and other data are scored whole: leave one of them out.")
    part = part or "test"
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    name_of_task = folder.read_settings()["task"]
    samples = load_samples(folder, data, task)
    if data is None:
        parts = Split.load(folder.split).apply(samples)
        if part not in parts:
            raise ValueError(f"part must be one of {', '.join(parts)}, got {part!r}.")
        samples = parts[part]
        title = f"{name_of_task}: {part} part of {samples.source or 'the data'}"
    else:
        title = f"{name_of_task}: all of {_label(data)}"
        _warn_of_known_photographs(folder, samples)
    if tta != "none":
        title = f"{title}, mean over {tta}"
    name = report_name(folder, data, part=part, tta=tta)
    predictor = Predictor(folder.path, tta=tta)
    report = evaluate(predictor, samples, title=title, on_image=on_image)
    report = replace(report, data=_place(data))
    report.save(folder.path, name=name)
    write_pictures_and_page(folder, predictor, samples, report, name=name, own=data is None)
    if name == "report":
        write_model_card(folder, report)
    return report


def report_name(run: RunFolder, data: str | Path | Samples | None, *, part: str, tta: str) -> str:
    """Name the files that `evaluate_run` writes, or wrote last, without their suffixes.

    Two folders of one last name do not replace each other's report.
    """
    label = ("" if part == "test" else part) if data is None else _label(data)
    if data is not None and label in _PARTS:
        label = f"all-of-{label}"  # it shall not replace the part's own report
    name = f"report-{label}" if label else "report"
    mean = "" if tta == "none" else f"-{tta}"
    for number in itertools.count(1):
        numbered = f"{name}{'' if number == 1 else f'-{number}'}{mean}"
        file = run.path / f"{numbered}.json"
        if not file.is_file() or read_json(file).get("data") == _place(data):
            break
    return numbered


def _place(data: str | Path | Samples | None) -> str | None:
    """Return what tells a folder from another of the same name; tables go by their source alone."""
    return None if data is None or isinstance(data, Samples) else str(Path(data).resolve())


def _label(data: str | Path | Samples) -> str:
    return (data.source if isinstance(data, Samples) else Path(data).name) or "data"


def _warn_of_known_photographs(run: RunFolder, samples: Samples) -> None:
    """Warn where photographs of other data, or others of their lesions or patients, trained the run or chose its model."""
    parts = Split.load(run.split).apply(Samples.load(run.samples))
    known = [sample for name in ("train", "validation") for sample in parts.get(name, ())]
    images, lesions = {sample.image.resolve() for sample in known}, {sample.lesion_id for sample in known} - {None}
    patients, numbers = {sample.patient_id for sample in known} - {None}, {_isic_number(sample) for sample in known} - {None}
    copies = copies_of([sample.image for sample in known], [sample.image for sample in samples])
    seen = sum(
        sample.image.resolve() in images
        or sample.image in copies
        or _isic_number(sample) in numbers
        or sample.lesion_id in lesions
        or sample.patient_id in patients
        for sample in samples
    )
    if seen:
        warnings.warn(
            f"{samples.source or 'data'}: {seen} of {len(samples)} photographs, or others of their lesions or patients, "
            "trained this run or chose its model. The figures are too optimistic. Leave out data= to score the run's own test "
            "part.",
            stacklevel=3,
        )


def _isic_number(sample: Sample) -> str | None:
    """Return the ISIC Archive's number of a photograph, which is the same in all data sets that have it."""
    found = re.search(r"ISIC_\d{7}", sample.image.name)
    return found and found[0]


def _score(sample: Sample, prediction: Prediction, samples: Samples) -> dict[str, Any]:
    """Return one photograph's row: its id, the scores of its outline, its true class and the probabilities."""
    row: dict[str, Any] = {"id": sample.id}
    if prediction.probability is not None and sample.mask is not None:
        scores = segmentation_scores(read_mask_at(sample.mask, prediction.image.shape[:2]), prediction.mask)
        row |= {name: scores[name] for name in MASK_FIGURES}
    if prediction.classes and sample.label is not None:
        row["true"] = samples.class_names[sample.label]
        row["predicted"] = prediction.label
        row["accuracy"] = float(row["predicted"] == row["true"])
        if prediction.possible:
            row["conformal_coverage"] = float(row["true"] in prediction.possible)
            row["conformal_size"] = float(len(prediction.possible))
        row["brier_score"] = sum((p - (name == row["true"])) ** 2 for name, p in prediction.classes.items())
        row |= {_column(name): round(probability, 6) for name, probability in prediction.classes.items()}
    if prediction.refer is not None:
        row["referred_share"] = float(prediction.refer)
    if not row.keys() - {"id", "referred_share"}:
        lacks = " and ".join(
            kind
            for kind, needed in (("no mask", prediction.probability is not None), ("no class", bool(prediction.classes)))
            if needed
        )
        raise DataError(
            f"{samples.source or 'samples'}: sample {sample.id!r} has {lacks} to compare with. "
            "Evaluate samples.with_masks() or samples.with_labels()."
        )
    return row


def _known_mask(sample: Sample, prediction: Prediction) -> np.ndarray | None:
    """The true mask, else the predicted one, else None: attributes of the skin leave the lesion out."""
    if sample.mask is not None:
        return read_mask_at(sample.mask, prediction.image.shape[:2])
    return None if prediction.probability is None else prediction.mask


def _column(name: str) -> str:
    return f"p_{name}"


def _by_subgroup(
    samples: Samples, attributes: Sequence[dict[str, Any]], groupings: Sequence[str], scored: _Scored
) -> dict[str, dict[str, Figures]]:
    found: dict[str, dict[str, Figures]] = {}
    for grouping in groupings:
        # Within one class, figures of the classes say no more than its sensitivity.
        names = OUTLINE_FIGURES if grouping == "class" else SUBGROUP_FIGURES
        values = [_subgroup(samples, attributes, index, grouping) for index in range(len(samples))]
        named = sorted({value for value in values if value})
        if named:
            found[grouping] = {}
            for value in [*named, ""] if "" in values else named:
                chosen = np.array([index for index, own in enumerate(values) if own == value])
                scores = scored.figures(chosen, names, SUBGROUP_RESAMPLES)
                if scores:
                    found[grouping][value or "not known"] = scores
    return {grouping: values for grouping, values in found.items() if values}


def _subgroup(samples: Samples, attributes: Sequence[dict[str, Any]], index: int, grouping: str) -> str:
    sample = samples[index]
    if grouping == "class":
        return "" if sample.label is None else samples.class_names[sample.label]
    if grouping in ATTRIBUTES:
        return str(attributes[index].get(grouping, ""))
    value = sample.metadata.get(grouping, "")
    if grouping != "age" or not value:
        return value
    try:
        age = float(value)
    except ValueError:
        return ""
    return "" if not math.isfinite(age) else f"{int(age) // 20 * 20:02d}-{int(age) // 20 * 20 + 19}"
