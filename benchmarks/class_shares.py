"""What restoring the shares of the classes does to a preset's diagnoses, on HAM10000's held-out lesions.

    python -m benchmarks.class_shares --ham10000 DIR

A network trained with logit adjustment favours rare classes. The table has its raw output, and the same with the preset's
`Decisions.prior_factors`, before any temperature. The split is that of `benchmarks/train_presets.py`, seed 0.
"""

import argparse
from pathlib import Path

import numpy as np

from dermaseg.data import read_samples, split_samples
from dermaseg.decisions import Decisions
from dermaseg.metrics import balanced_accuracy
from dermaseg.prediction import Predictor
from dermaseg.pretrained import DEFAULT_PRESET, find_preset


def main() -> None:
    """Read the command line, predict once, and print a row for each way to read the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    options = parser.parse_args()

    samples = read_samples(options.ham10000)
    test = split_samples(samples, seed=0).apply(samples)["test"]
    predictor = Predictor(options.preset)
    labels = test.with_class_names(predictor.class_names).labels
    predictor.decisions = Decisions()  # what the network says, unread
    raw = np.array([list(prediction.classes.values()) for prediction in predictor.predict(sample.image for sample in test)])
    factors = Decisions.from_dict(find_preset(options.preset).card["decisions"]).prior_factors
    print("| output | accuracy | balanced accuracy | negative log-likelihood, nats |\n| --- | --- | --- | --- |")
    for name, probabilities in (("raw", raw), ("shares restored", Decisions(prior_factors=factors).calibrate(raw))):
        accuracy = (probabilities.argmax(axis=1) == labels).mean()
        likelihood = -np.log(probabilities[np.arange(len(labels)), labels] + 1e-9).mean()
        print(f"| {name} | {accuracy:.3f} | {balanced_accuracy(labels, probabilities):.3f} | {likelihood:.3f} |")


if __name__ == "__main__":
    main()
