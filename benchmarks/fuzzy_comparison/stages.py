"""Train one arm and score it; each stage leaves files, and a stage whose files are there is not run again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from benchmarks.fuzzy_comparison.arms import WITH_RULES, Arm, build_loss, build_network, initial_network
from dermaseg.data import Samples, group_samples, make_dataset, read_mask
from dermaseg.data.augment import Augment
from dermaseg.errors import DataError
from dermaseg.metrics import JaccardIndex, Reliability, reliability, segmentation_scores
from dermaseg.optimizers import planned_adamw
from dermaseg.precision import dtype_policy
from dermaseg.prediction import Predictor
from dermaseg.runs import read_json, write_atomically, write_csv, write_json

__all__ = ["RELIABILITY_BINS", "Protocol", "draw_some", "masks_of", "run_folder", "score", "train"]

RELIABILITY_BINS = 15
_CONFIDENCE_BINS = 240
_MOST_LOGIT = 12.0  # beyond it a float32 probability near 1 has too few digits to rank pixels
_LOOKS = 10  # at the validation part, to choose an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What all arms and seeds of one comparison share; a folder holds results of one protocol only.

    Args:
        canvas: Height and width that networks are trained at, in pixels.
        size: Side of the square of that area.
        filters: Channels a stage of the plain U-Net.
        steps: Training steps, rounded to whole epochs.
        batch_size: Photographs a step.
        learning_rate: Peak of the rate, after a linear warm-up over a twentieth of the steps; then a cosine down.
        weight_decay: Of AdamW.
        augment: One of `dermaseg.data.augment.AUGMENTATIONS`.
        tau_px: Softness of fuzzified targets, in pixels of the training size.
        precision: Dtype policy of the training; scores are always computed in float32.
        jit_compile: As for `keras.Model.compile`.
        split: Fingerprint of the split.
    """

    canvas: tuple[int, int]
    size: int
    filters: tuple[int, ...]
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augment: str
    tau_px: float
    precision: str
    jit_compile: bool | Literal["auto"]
    split: str


def run_folder(output: Path, arm: Arm, seed: int) -> Path:
    """Return where one arm and seed has its files."""
    return output / "runs" / f"{arm}-seed{seed}"


def train(arm: Arm, seed: int, protocol: Protocol, parts: Mapping[str, Samples], folder: Path, cache: Path) -> None:
    """Train one arm and write `best.weights.h5` and, last, `training.json`.

    The epoch is chosen by the validation part's Jaccard index, for every arm alike.
    """
    if (folder / "training.json").is_file():
        return
    batch_size = min(protocol.batch_size, len(parts["train"]))
    steps = len(parts["train"]) // batch_size
    epochs = max(1, round(protocol.steps / steps))
    # One seed gives every arm the same pictures in the same order with the same augmentation.
    common: dict[str, Any] = {"size": protocol.canvas, "batch_size": batch_size, "cache_dir": cache, "seed": seed}
    training = make_dataset(
        parts["train"], augment=Augment.preset(protocol.augment), shuffle=True, drop_remainder=True, **common
    )
    validation = make_dataset(parts["validation"], **common)
    watch = _Watch(f"{arm}, seed {seed}", epochs, steps)
    with dtype_policy(protocol.precision):
        model, own_layers = initial_network(arm.network, filters=protocol.filters, seed=seed)
        model.compile(
            optimizer=planned_adamw(
                protocol.learning_rate, steps=epochs * steps, weight_decay=protocol.weight_decay, global_clipnorm=1.0
            ),
            loss=build_loss(arm.loss, tau_px=protocol.tau_px),
            metrics=[JaccardIndex(name="jaccard")],
            jit_compile=protocol.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        model.fit(
            training,
            validation_data=validation,
            validation_freq=sorted({round(epoch) for epoch in np.linspace(epochs, 1, min(epochs, _LOOKS))}),
            epochs=epochs,
            callbacks=[watch],
            shuffle=False,
            verbose=0,
        )
    model.set_weights(watch.best_weights)
    write_atomically(folder / "best.weights.h5", model.save_weights)
    seconds = watch.epoch_seconds
    write_json(
        folder / "training.json",
        {
            "arm": str(arm),
            "seed": seed,
            "parameters": model.count_params(),
            "layers_with_own_first_weights": own_layers,
            "steps": epochs * steps,
            "training_s": round(sum(seconds), 2),
            "processor_s": round(watch.processor_seconds, 2),
            # The first epoch compiles.
            "step_s": round(statistics.median(seconds[1:] or seconds) / steps, 5),
            "best_epoch": watch.best_epoch,
            "validation_jaccard": round(watch.best, 5),
            "history": watch.history,
        },
    )


def score(arm: Arm, seed: int, protocol: Protocol, samples: Samples, name: str, folder: Path) -> None:
    """Score one trained arm on photographs at their own size; write `<name>.csv`, `<name>.npz` and, last, `<name>.json`.

    The CSV has one row a photograph, the NPZ one row of pixel counts a photograph, from which any resample of lesions can
    be put together without the pixels.
    """
    if (folder / f"{name}.json").is_file():
        return
    start = time.perf_counter()
    parameters = read_json(folder / "training.json")["parameters"]
    model = build_network(arm.network, filters=protocol.filters)
    model.load_weights(folder / "best.weights.h5")
    probabilities = masks_of(model, samples, protocol.size)
    entropies = None
    if arm.network in WITH_RULES:
        full = build_network(arm.network, filters=protocol.filters, uncertainty=True)
        full.set_weights(model.get_weights())
        # Under the name of the mask the predictor brings any map to a photograph's own size.
        entropies = masks_of(keras.Model(full.input, {"mask": full.output["rule_entropy"]}), samples, protocol.size)
    rows: list[dict[str, Any]] = []
    counts: list[dict[str, np.ndarray]] = []
    for sample, group, probability in zip(samples, group_samples(samples), probabilities, strict=True):
        entropy = None if entropies is None else next(entropies)
        if sample.mask is None:
            raise DataError(f"{sample.id}: the photograph has no mask. Keep samples.with_masks().")
        true = read_mask(sample.mask)
        if true.shape != probability.shape:
            raise DataError(f"{sample.mask}: the mask is {true.shape}, its photograph {probability.shape}.")
        scores = segmentation_scores(true, probability > 0.5)
        rows.append({"id": sample.id, "group": int(group), **scores, "doubt": photograph_doubt(probability)})
        counts.append(pixel_counts(true, probability, entropy))
    folded = {key: np.stack([count[key] for count in counts]) for key in counts[0]}
    total = Reliability(*(folded[key].sum(axis=0) for key in ("count", "probability_sum", "outcome_sum")))
    write_csv(folder / f"{name}.csv", rows)
    write_atomically(folder / f"{name}.npz", lambda path: _save_arrays(path, folded))
    write_json(
        folder / f"{name}.json",
        {
            "arm": str(arm),
            "seed": seed,
            "part": name,
            "photographs": len(rows),
            "groups": len({row["group"] for row in rows}),
            "parameters": parameters,
            "jaccard": round(statistics.fmean(row["jaccard"] for row in rows), 5),
            "pixel_calibration_error": round(total.calibration_error, 6),
            "pixel_reliability": {
                "count": total.count.tolist(),
                "probability_sum": total.probability_sum.round(3).tolist(),
                "outcome_sum": total.outcome_sum.tolist(),
            },
            "scoring_s": round(time.perf_counter() - start, 2),
        },
    )
    print(f"{arm}, seed {seed}: {name} part scored, {len(rows)} photographs, {time.perf_counter() - start:.0f} s", flush=True)


def photograph_doubt(probability: np.ndarray) -> float:
    """Return one minus the soft Jaccard index of the probabilities with their own mask, 0 (sure) to 1.

    The model's own estimate of 1 - Jaccard. A mean of the uncertainty map would call every large lesion doubtful.
    """
    mask = probability > 0.5
    inside = float(probability[mask].sum(dtype="float64"))
    union = float(mask.sum()) + float(probability[~mask].sum(dtype="float64"))
    return 1.0 - inside / union if union else 0.0


def pixel_counts(true: np.ndarray, probability: np.ndarray, entropy: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Count one photograph's pixels by probability, and its pixels and wrong pixels by confidence, least sure first.

    Pixels of one bin of confidence are taken as ties. Confidence is |logit p|, which ranks pixels as the uncertainty map
    1 - |2 p - 1| does, but spreads the sure ones, which are most of them; and 1 - rule entropy where it is given.
    """
    own = reliability(true, probability, bins=RELIABILITY_BINS)
    wrong = ((probability > 0.5) != true.astype(bool)).ravel()
    clipped = np.clip(probability, 1e-7, 1 - 1e-7).astype("float64")
    confidences = {"mask": np.abs(np.log(clipped / (1 - clipped))).ravel() / _MOST_LOGIT}
    if entropy is not None:
        confidences["rules"] = 1.0 - np.clip(entropy.ravel(), 0.0, 1.0)
    counts: dict[str, np.ndarray] = {
        "count": own.count,
        "probability_sum": own.probability_sum,
        "outcome_sum": own.outcome_sum,
    }
    for name, confidence in confidences.items():
        index = np.minimum((confidence * _CONFIDENCE_BINS).astype(int), _CONFIDENCE_BINS - 1)
        counts[f"{name}_pixels"] = np.bincount(index, minlength=_CONFIDENCE_BINS)
        counts[f"{name}_wrong"] = np.bincount(index[wrong], minlength=_CONFIDENCE_BINS)
    return counts


def draw_some(samples: Samples, limit: int | None) -> Samples:
    """Keep about so many photographs of lesions drawn at random, whole lesions only."""
    if limit is None or limit >= len(samples):
        return samples
    groups = group_samples(samples)
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order]
    kept = order[np.cumsum(sizes) <= limit]
    return samples.select(np.flatnonzero(np.isin(groups, kept)).tolist())


def masks_of(model: keras.Model, samples: Samples, size: int) -> Iterator[np.ndarray]:
    """Yield the model's mask of each photograph, 0 to 1, `(height, width)` at the photograph's own size."""
    for sample, prediction in zip(
        samples, Predictor(model, size=size).predict(sample.image for sample in samples), strict=True
    ):
        if prediction.probability is None:
            raise DataError(f"{sample.image}: the network gave no mask.")
        yield prediction.probability


def _save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


class _Watch(keras.callbacks.Callback):
    """Print a line an epoch, time the training apart from the validation, and keep the best epoch's weights."""

    def __init__(self, title: str, epochs: int, steps: int) -> None:
        super().__init__()
        self.title, self.epochs, self.steps = title, epochs, steps
        self.epoch_seconds: list[float] = []
        self.processor_seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.best, self.best_epoch = float("-inf"), 0
        self.best_weights: Sequence[np.ndarray] = []
        self._trained = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._trained = False
        self._start, self._processor_start = time.perf_counter(), time.process_time()

    def on_test_begin(self, logs: Any = None) -> None:
        self._note_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._note_time()
        figures = {name: round(float(value), 5) for name, value in (logs or {}).items()}
        if not np.isfinite(figures["loss"]):
            raise SystemExit(f"{self.title}: the loss became {figures['loss']} in epoch {epoch + 1}.")
        self.history.append({"epoch": epoch + 1, **figures})
        looked = ""
        if "val_jaccard" in figures:
            looked = f", validation Jaccard {figures['val_jaccard']:.4f}"
            if figures["val_jaccard"] > self.best:
                self.best, self.best_epoch = figures["val_jaccard"], epoch + 1
                self.best_weights = self.model.get_weights()
        pace = self.epoch_seconds[-1] / self.steps
        print(
            f"{self.title}: epoch {epoch + 1}/{self.epochs}, loss {figures['loss']:.4f}{looked}, {1e3 * pace:.0f} ms a step",
            flush=True,
        )

    def _note_time(self) -> None:
        if not self._trained:
            self.epoch_seconds.append(time.perf_counter() - self._start)
            self.processor_seconds += time.process_time() - self._processor_start
            self._trained = True
