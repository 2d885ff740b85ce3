"""Ways to read a preset's diagnoses, on HAM10000's held-out lesions.

    python -m benchmarks.class_shares --ham10000 DIR

A network trained with logit adjustment favours rare classes. The first table has its raw output, and the same with the preset's
`Decisions.prior_factors`, before any temperature. The second has two classes instead of seven, benign and malignant (mel, bcc,
akiec), by adding the calibrated probabilities up. Brackets are 95 % bootstrap intervals over lesions. The split is that of
`benchmarks/train_presets.py`, seed 0.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dermaseg.data import HAM10000_CLASSES, MALIGNANT, group_samples, read_samples, split_samples
from dermaseg.decisions import Decisions
from dermaseg.metrics import (
    Interval,
    balanced_accuracy,
    bootstrap_statistic,
    classification_scores,
    sensitivity_at_specificity,
)
from dermaseg.prediction import Predictor
from dermaseg.pretrained import DEFAULT_PRESET, find_preset


def main() -> None:
    """Read the command line, predict once, and print a row for each way to read the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--tta", default="none", help="test-time augmentation, as for Predictor")
    options = parser.parse_args()

    samples = read_samples(options.ham10000)
    test = split_samples(samples, seed=0).apply(samples)["test"].with_class_names(HAM10000_CLASSES)
    predictor = Predictor(options.preset, tta=options.tta)
    order = [predictor.class_names.index(name) for name in HAM10000_CLASSES]
    decisions = Decisions.from_dict(find_preset(options.preset).card["decisions"])
    predictor.decisions = Decisions()  # what the network says, unread
    raw = np.array([list(prediction.classes.values()) for prediction in predictor.predict(sample.image for sample in test)])
    shared = Decisions(prior_factors=decisions.prior_factors).calibrate(raw)[:, order]
    calibrated, raw = decisions.calibrate(raw)[:, order], raw[:, order]
    labels, groups = test.labels, group_samples(test)

    def interval(figure: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap_statistic(figure, len(labels), groups=groups)

    print("| output | accuracy | balanced accuracy | negative log-likelihood, nats |\n| --- | --- | --- | --- |")
    for name, probabilities in (("raw", raw), ("shares restored", shared)):
        right = probabilities.argmax(axis=1) == labels
        likelihood = -np.log(probabilities[np.arange(len(labels)), labels] + 1e-9).mean()
        balanced = interval(lambda rows, own=probabilities: balanced_accuracy(labels[rows], own[rows]))
        accuracy = interval(lambda rows, right=right: float(right[rows].mean()))
        print(f"| {name} | {accuracy} | {balanced} | {likelihood:.3f} |")

    malignant = np.isin(np.array(HAM10000_CLASSES)[labels], MALIGNANT)
    doubt = calibrated[:, [HAM10000_CLASSES.index(name) for name in MALIGNANT]].sum(axis=1)
    two = np.stack([1 - doubt, doubt], axis=1)
    print("\n| benign or malignant | |\n| --- | --- |")
    for name in ("accuracy", "majority_share", "balanced_accuracy", "macro_auc"):
        found = interval(lambda rows, name=name: classification_scores(malignant[rows].astype(int), two[rows])[name])
        print(f"| {name.replace('_', ' ')} | {found} |")
    found = interval(lambda rows: sensitivity_at_specificity(malignant[rows], doubt[rows], specificity=0.9))
    print(f"| sensitivity at 90 % specificity | {found} |")


if __name__ == "__main__":
    main()
