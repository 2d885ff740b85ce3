"""What trained gates do, and what a network loses without it. Nothing is trained.

Run from the repository's root, on a folder that `python -m benchmarks.fuzzy_comparison` has written:

    python -m benchmarks.fuzzy_comparison.gates --data ham10000 --output comparison

A gate g = 2 sigmoid(gain sum_j w_j theta_j) weighs each channel of a skip at each place. What it has learned is taken away in
two steps, by other weights: theta_jc alike for all rules j is one number for a channel, since the firing strengths sum to 1.

- trained: the gate as it is;
- constant: each channel's mean gate over training photographs, everywhere. No rule decides anything any more; what is left is
  a scale for each channel, which the convolution that follows could hold as well;
- none: g = 1, the skip of a plain U-Net.

Scores are of the validation part, the one that chose the epoch, so that the test part is kept for what is reported.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.fuzzy_comparison.arms import WITH_RULES, Arm, build_network
from benchmarks.fuzzy_comparison.stages import draw_some, masks_of
from dermaseg.data import Samples, Split, group_samples, make_dataset, read_mask, read_samples
from dermaseg.errors import DataError, DermasegError
from dermaseg.layers import FuzzySkipGate
from dermaseg.metrics import jaccard_index, paired_bootstrap
from dermaseg.runs import read_json, write_atomically, write_csv

__all__ = ["GateReading", "constant_theta", "main", "read_gates"]

_LOOKED_AT = 256  # training photographs, for the means
_STATES = {"trained": "as trained", "constant": "each channel's mean", "none": "g = 1"}


class GateReading:
    """What one gate did on the photographs that it was shown, in sums that grow batch by batch.

    Args:
        rules: Rules of the gate.
        channels: Channels of its skip.
    """

    def __init__(self, rules: int, channels: int) -> None:
        self.places = 0
        self._strength, self._entropy = np.zeros(rules), 0.0
        self._gate, self._square = np.zeros(channels), np.zeros(channels)

    def add(self, strengths: np.ndarray, theta: np.ndarray) -> None:
        """Count a batch: firing strengths `(batch, height, width, rules)`, theta `(rules, channels)`."""
        w = strengths.reshape(-1, strengths.shape[-1]).astype("float64")
        g = 2.0 / (1.0 + np.exp(-w @ theta))
        self.places += len(w)
        self._strength += w.sum(axis=0)
        self._entropy -= float((w * np.log(np.maximum(w, 1e-12))).sum())
        self._gate += g.sum(axis=0)
        self._square += np.square(g).sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Mean gate of each channel, `(channels,)`, 0 to 2."""
        return self._gate / self.places

    @property
    def figures(self) -> dict[str, float]:
        """Rules in use over all places and at one; how far channels' means are from 1, and how far places from those means."""
        shares = self._strength / self.places
        entropy = -float((shares * np.log(np.maximum(shares, 1e-12))).sum())
        variance = np.maximum(self._square / self.places - np.square(self.mean), 0.0)
        return {
            "rules_in_use": math.exp(entropy),
            "rules_at_a_place": math.exp(self._entropy / self.places),
            "channels_from_1": float(np.sqrt(np.mean(np.square(self.mean - 1.0)))),
            "places_from_channel": float(np.sqrt(variance.mean())),
        }


def read_gates(model: keras.Model, batches: Any) -> dict[str, GateReading]:
    """Show photographs to a network and return what each of its fuzzy gates did, by the gate's name.

    Args:
        model: A functional model with `FuzzySkipGate` layers.
        batches: Of images, or of images and targets, as `make_dataset` makes.
    """
    gates = [layer for layer in model.layers if isinstance(layer, FuzzySkipGate)]
    features = keras.Model(model.inputs[0], [tensor for gate in gates for tensor in gate.input])
    thetas = [gate.gain * ops.convert_to_numpy(gate.theta).astype("float64") for gate in gates]
    readings = {gate.name: GateReading(*theta.shape) for gate, theta in zip(gates, thetas, strict=True)}
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple) else batch
        seen = features(images, training=False)
        for gate, theta, encoder, decoder in zip(gates, thetas, seen[::2], seen[1::2], strict=True):
            readings[gate.name].add(ops.convert_to_numpy(gate.firing_strengths(encoder, decoder)), theta)
    return readings


def constant_theta(gate: FuzzySkipGate, mean: np.ndarray) -> np.ndarray:
    """Return theta `(rules, channels)` with which a gate is `mean` everywhere: 2 sigmoid(gain theta) = mean, for each rule."""
    mean = np.clip(mean, 1e-6, 2.0 - 1e-6)  # a gate that is shut or wide open has no finite theta
    return np.tile(np.log(mean / (2.0 - mean)) / gate.gain, (gate.rules, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write `gates.md`, `gates.csv`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzzy_comparison.gates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that the runs were trained on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--limit", type=int, help="score about so many photographs, to rehearse")
    parser.add_argument("--resamples", type=int, default=2000, help="of lesions, for the intervals")
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except (DermasegError, ValueError) as error:
        raise SystemExit(str(error)) from None


def _run(options: argparse.Namespace) -> None:
    protocol = read_json(options.output / "protocol.json")
    parts = Split.load(options.output / "split.json").apply(read_samples(options.data).with_masks())
    shown, scored = draw_some(parts["train"], _LOOKED_AT), draw_some(parts["validation"], options.limit)
    found = _trained_runs(options.output)
    rows: list[dict[str, Any]] = []
    jaccards: dict[Arm, dict[str, list[np.ndarray]]] = {}
    for folder, arm, seed in found:
        model = build_network(arm.network, filters=protocol["filters"])
        model.load_weights(folder / "best.weights.h5")
        batches = make_dataset(shown, size=tuple(protocol["canvas"]), batch_size=16, cache_dir=options.output / "cache")
        readings = read_gates(model, batches)
        rows += [{"arm": str(arm), "seed": seed, "gate": name, **reading.figures} for name, reading in readings.items()]
        for state, edit in _EDITS.items():
            for name, reading in readings.items():
                gate = model.get_layer(name)
                gate.theta.assign(edit(gate, reading))
            values = _jaccards(model, scored, protocol["size"])
            jaccards.setdefault(arm, {}).setdefault(state, []).append(values)
            print(f"{arm}, seed {seed}, gates {_STATES[state]}: Jaccard {values.mean():.4f}", flush=True)
    text = "\n".join([*_gate_table(rows), "", *_loss_table(jaccards, group_samples(scored), options.resamples), ""])
    write_csv(options.output / "gates.csv", rows)
    write_atomically(options.output / "gates.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text, flush=True)


# In this order: each overwrites what the one before has left; of what was learned only the means are needed then.
_EDITS: Mapping[str, Callable[[FuzzySkipGate, GateReading], np.ndarray]] = {
    "trained": lambda gate, reading: ops.convert_to_numpy(gate.theta),
    "constant": lambda gate, reading: constant_theta(gate, reading.mean),
    "none": lambda gate, reading: np.zeros(gate.theta.shape),
}


def _trained_runs(output: Path) -> list[tuple[Path, Arm, int]]:
    found = []
    for card in sorted((output / "runs").glob("*/training.json")):
        saved = read_json(card)
        arm = Arm.parse(saved["arm"])
        if arm.network in WITH_RULES:
            found.append((card.parent, arm, int(saved["seed"])))
    if not found:
        raise DataError(
            f"{output}: no trained run has fuzzy gates. Train fuzzy-overlap: python -m benchmarks.fuzzy_comparison."
        )
    return found


def _jaccards(model: keras.Model, samples: Samples, size: int) -> np.ndarray:
    values = []
    for sample, probability in zip(samples, masks_of(model, samples, size), strict=True):
        if sample.mask is None:
            raise DataError(f"{sample.id}: the photograph has no mask. Keep samples.with_masks().")
        values.append(jaccard_index(read_mask(sample.mask), probability > 0.5))
    return np.array(values)


def _gate_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the mean over the seeds for each arm and gate."""
    lines = [
        "| arm | gate | rules in use | at one place | channels' means from 1, RMS | places from their channel's mean, RMS |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for arm, name in dict.fromkeys((row["arm"], row["gate"]) for row in rows):
        own = [row for row in rows if (row["arm"], row["gate"]) == (arm, name)]
        used, local, channels, places = (
            float(np.mean([row[key] for row in own]))
            for key in ("rules_in_use", "rules_at_a_place", "channels_from_1", "places_from_channel")
        )
        lines.append(f"| {arm} | {name} | {used:.1f} | {local:.1f} | {channels:.3f} | {places:.3f} |")
    return lines


def _loss_table(jaccards: Mapping[Arm, Mapping[str, Sequence[np.ndarray]]], groups: np.ndarray, resamples: int) -> list[str]:
    """Return, for each arm, the Jaccard index in each state, and what was lost, paired by photograph."""
    lines = ["| arm | seeds | gates | Jaccard | less trained | seed by seed |", "| --- | ---: | --- | ---: | --- | --- |"]
    for arm, states in jaccards.items():
        trained = np.array(states["trained"])
        for state, runs in states.items():
            values = np.array(runs)
            lost = ""
            if state != "trained":
                interval = paired_bootstrap(values.mean(axis=0), trained.mean(axis=0), groups=groups, resamples=resamples)
                lost = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            by_seed = " ".join(f"{value:+.4f}" for value in (values - trained).mean(axis=1)) if lost else ""
            lines.append(f"| {arm} | {len(runs)} | {_STATES[state]} | {values.mean():.4f} | {lost} | {by_seed} |")
    return lines


if __name__ == "__main__":
    main()
