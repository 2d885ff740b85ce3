"""Ways to read a preset's diagnoses, on HAM10000's held-out lesions.

    python -m benchmarks.class_shares --ham10000 DIR

A network trained with logit adjustment favours rare classes. The first table has its raw output, and the same with the preset's
`Decisions.prior_factors`, before any temperature. The second has two classes instead of seven, benign and malignant (mel, bcc,
akiec), by adding the calibrated probabilities up. The third says, class by class, how many photographs are named so, have the
true class in their set `possible`, lie above the class's threshold, and are referred. The fourth weighs the photographs as a
published test part holds them. Brackets are 95 % bootstrap intervals over lesions. The split is that of
`benchmarks/train_presets.py`, seed 0.

That test part is DermaMNIST-C's (Abhishek, Jain and Hamarneh, 2024, "Investigating the quality of DermaMNIST and Fitzpatrick17k
dermatological image datasets"): one photograph in five was drawn, and those whose lesion has another one in training or
validation were taken out again. Of a lesion of k photographs one stays with the probability 0.2^(k - 1), which is its weight
here. What is left is mostly lesions that were photographed once, and they are mostly nevi.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dermaseg.data import HAM10000_CLASSES, MALIGNANT, Samples, group_samples, read_samples, split_samples
from dermaseg.decisions import Decisions
from dermaseg.metrics import (
    Interval,
    balanced_accuracy,
    bootstrap_interval,
    bootstrap_statistic,
    classification_scores,
    sensitivity_at_specificity,
)
from dermaseg.metrics.resampled import Weighted, class_figures
from dermaseg.prediction import Prediction, Predictor
from dermaseg.pretrained import DEFAULT_PRESET, find_preset

Intervals = Callable[[Callable[[np.ndarray], float]], Interval]
"""From a figure of some photographs, by their positions, to the figure of all with its interval."""


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

    predictor.decisions = decisions
    read = list(predictor.predict(sample.image for sample in test))
    print_readings(labels, raw, shared, interval)
    print_two_classes(labels, calibrated, interval)
    print_classes(test, read, groups)
    print_mixture(labels, calibrated, lesion_sizes(samples, test), groups)


def print_readings(labels: np.ndarray, raw: np.ndarray, shared: np.ndarray, interval: Intervals) -> None:
    """Print the raw output beside the one with the training part's shares."""
    print("| output | accuracy | balanced accuracy | negative log-likelihood, nats |\n| --- | --- | --- | --- |")
    for name, probabilities in (("raw", raw), ("shares restored", shared)):
        right = probabilities.argmax(axis=1) == labels
        likelihood = -np.log(probabilities[np.arange(len(labels)), labels] + 1e-9).mean()
        balanced = interval(lambda rows, own=probabilities: balanced_accuracy(labels[rows], own[rows]))
        accuracy = interval(lambda rows, right=right: float(right[rows].mean()))
        print(f"| {name} | {accuracy} | {balanced} | {likelihood:.3f} |")


def print_two_classes(labels: np.ndarray, calibrated: np.ndarray, interval: Intervals) -> None:
    """Print the figures of two classes, by adding probabilities up."""
    malignant = np.isin(np.array(HAM10000_CLASSES)[labels], MALIGNANT)
    doubt = calibrated[:, [HAM10000_CLASSES.index(name) for name in MALIGNANT]].sum(axis=1)
    two = np.stack([1 - doubt, doubt], axis=1)
    print("\n| benign or malignant | |\n| --- | --- |")
    for name in ("accuracy", "majority_share", "balanced_accuracy", "macro_auc"):
        found = interval(lambda rows, name=name: classification_scores(malignant[rows].astype(int), two[rows])[name])
        print(f"| {name.replace('_', ' ')} | {found} |")
    found = interval(lambda rows: sensitivity_at_specificity(malignant[rows], doubt[rows], specificity=0.9))
    print(f"| sensitivity at 90 % specificity | {found} |")


def print_classes(test: Samples, read: Sequence[Prediction], groups: np.ndarray) -> None:
    """Print, class by class, what a user of `Prediction` meets."""
    true = np.array(test.class_names)[test.labels]
    named = np.array([each.label for each in read])
    possible = np.array([name in each.possible for name, each in zip(true, read, strict=True)])
    referred = np.array([bool(each.refer) for each in read])

    def share(of: np.ndarray, among: np.ndarray) -> str:
        return str(bootstrap_interval(of[among].astype(float), groups=groups[among])) if among.any() else ""

    print("\n| class (photographs) | named | in `possible` | above its threshold | of others, above it | referred |")
    print("| --- |" + " --- |" * 5)
    for name in test.class_names:
        own, above = true == name, np.array([name in each.above_threshold for each in read])
        cells = [
            share(named == name, own),
            share(possible, own),
            share(above, own),
            share(above, ~own),
            share(referred, own),
        ]
        print(f"| {name} ({np.count_nonzero(own)}) | {' | '.join(cells)} |")
    everything = np.ones(len(true), bool)
    cells = [share(named == true, everything), share(possible, everything), "", "", share(referred, everything)]
    print(f"| all ({len(true)}) | {' | '.join(cells)} |")


def lesion_sizes(samples: Samples, test: Samples) -> np.ndarray:
    """Return how many photographs the whole table has of each test photograph's lesion."""
    count = Counter(sample.lesion_id for sample in samples)
    return np.array([count[sample.lesion_id] for sample in test])


def print_mixture(labels: np.ndarray, calibrated: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> None:
    """Print accuracy and AUC, each photograph with the chance that DermaMNIST-C's test part holds it."""
    weights = 0.2 ** (sizes - 1.0)
    right = (calibrated.argmax(axis=1) == labels).astype(float)
    figures = class_figures(labels, calibrated)
    statistics: dict[str, Weighted] = {
        "accuracy": lambda drawn: drawn @ right / drawn.sum(axis=1),
        "majority share": figures["majority_share"],
        "macro AUC": figures["macro_auc"],
    }
    print("\n| as DermaMNIST-C's test part weighs lesions | |\n| --- | --- |")
    for name, figure in statistics.items():
        found = bootstrap_statistic(
            lambda drawn, figure=figure: figure(drawn * weights), len(labels), weighted=True, groups=groups
        )
        print(f"| {name} | {found} |")


if __name__ == "__main__":
    main()
