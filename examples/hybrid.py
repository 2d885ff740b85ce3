"""One network that outlines and names the lesion, learning also from photographs that have only a mask or only a diagnosis."""

from dataclasses import replace

from options import parse

import dermaseg
from dermaseg.data import Samples, Split
from dermaseg.prediction_page import save_predictions

options = parse(__doc__, steps=200)

# As if two collections had been joined: every third photograph has lost its mask, every fifth its diagnosis.
rows = [
    replace(sample, mask=sample.mask if index % 3 else None, label=sample.label if index % 5 else None)
    for index, sample in enumerate(options.samples)
]
samples = Samples(
    [sample for sample in rows if sample.mask or sample.label is not None], options.samples.class_names, options.samples.source
)
print(samples.summary())

run = dermaseg.train("hybrid", samples, options.output / "run", size=options.size, steps=options.steps)
report = dermaseg.evaluate_run(run)
for name in ("jaccard", "accuracy", "majority_share", "balanced_accuracy"):
    print(f"{name:20} {report.figures[name]} on {report.figures[name].count} photographs")

# Mirrored views are averaged; what stays doubtful is referred.
predictor = dermaseg.Predictor(run.path, tta="flips", largest_component=True)
test = Split.load(run.split).apply(Samples.load(run.samples))["test"]  # photographs that it has not learned from
photos = [sample.image for sample in test[:6]]
named = ((photo.stem, prediction) for photo, prediction in zip(photos, predictor.predict(photos), strict=True))
for row in save_predictions(named, options.output / "predictions"):
    print(row["photo"], row["label"], "refer" if row["refer"] else "", row["possible"])
print("Look at", options.output / "predictions" / "predictions.html")
