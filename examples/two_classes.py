"""Benign or malignant: a residual CNN, trained, calibrated and reported by one call each."""

from options import parse

import dermaseg
from dermaseg.data import Samples, Split

options = parse(__doc__, steps=200)

# The split is by lesion: photographs of one lesion never stand on both sides. HAM10000's seven diagnoses become two.
run = dermaseg.train("classify-2", options.samples, options.output / "run", size=options.size, steps=options.steps)

report = dermaseg.evaluate_run(run)
for name in ("accuracy", "majority_share", "balanced_accuracy", "macro_auc"):
    print(f"{name:20} {report.figures[name]}")

# The threshold was chosen on the validation part, so that nine malignant lesions in ten reach it there.
predictor = dermaseg.Predictor(run.path)
test = Split.load(run.split).apply(Samples.load(run.samples))["test"]  # photographs that it has not learned from
prediction = predictor(test[0].image)
print(f"{test[0].id}: {prediction.classes}, threshold {predictor.decisions.thresholds['malignant']:.3f}")
print(f"Report with pictures: {run.path / 'report.html'}")
