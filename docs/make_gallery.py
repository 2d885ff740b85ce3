"""Draw the pictures of gallery.md from synthetic photographs: python docs/make_gallery.py, two minutes on two idle cores."""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import dermaseg
from dermaseg.data import Split, make_synthetic, read_image, read_mask
from dermaseg.explain import GradCAM
from dermaseg.metrics import reliability
from dermaseg.plots import (
    cases,
    confusion_matrix_plot,
    firing_maps,
    heatmap_panel,
    membership_functions,
    reliability_diagram,
    roc_curves,
    save_figure,
    training_curves,
)

FOLDER = Path(__file__).parent / "images" / "gallery"
DPI = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the pictures go")
    parser.add_argument("--images", type=int, default=420, help="synthetic photographs")
    parser.add_argument("--steps", type=int, default=240, help="of the hybrid; the Fuzzy U-Net takes half as many")
    options = parser.parse_args()

    def save(figure, name):
        path = options.output / f"{name}.png"
        save_figure(figure, path, dpi=DPI)
        Image.open(path).convert("RGB").save(path, optimize=True)  # paper needs no alpha
        print(path, path.stat().st_size)

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        samples = make_synthetic(work / "photographs", count=options.images, size=(96, 128), seed=0)

        run = dermaseg.train("hybrid", samples, work / "hybrid", size=64, steps=options.steps)
        test = Split.load(run.split).apply(samples)["test"]
        predictor = dermaseg.Predictor(run.path)
        report = dermaseg.evaluate(predictor, test)
        found = list(predictor.predict(sample.image for sample in test))

        save(
            cases(
                [read_image(sample.image) for sample in test],
                predicted=[prediction.mask for prediction in found],
                true=[read_mask(sample.mask) for sample in test],
                scores=[row["jaccard"] for row in report.rows],
                names=[sample.id for sample in test],
            ),
            "outlines",
        )
        with run.history.open(newline="", encoding="utf-8") as file:
            history = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        shown = ("epoch", "loss", "mask_jaccard", "label_accuracy")
        curves = [{key: value for key, value in row.items() if key.removeprefix("val_") in shown} for row in history]
        save(training_curves(curves), "curves")

        labels, probabilities = report.diagnoses.labels, report.diagnoses.probabilities
        names = report.diagnoses.class_names
        save(confusion_matrix_plot(report.diagnoses.confusion(), names), "confusion")
        save(roc_curves(labels, probabilities, names), "roc")
        right = probabilities.argmax(axis=1) == labels
        save(reliability_diagram(reliability(right, probabilities.max(axis=1), bins=5)), "reliability")

        surest = [int(index) for index in np.argsort(-probabilities.max(axis=1)) if right[index]]
        chosen = [next(index for index in surest if labels[index] == label) for label in dict.fromkeys(labels[surest])][:3]
        images = [read_image(test[index].image) for index in chosen]
        heat = GradCAM(predictor.model)(np.stack(images))
        titles = [f"{names[labels[index]]}, {probabilities[index].max():.2f}" for index in chosen]
        save(heatmap_panel(images, heat, titles=titles), "grad-cam")

        fuzzy = dermaseg.train(
            "segment-fuzzy",
            samples,
            work / "fuzzy",
            size=64,
            steps=options.steps // 2,
            model={"filters": (16, 32, 64, 128), "rules": 8},
        )
        model = dermaseg.Predictor(fuzzy.path).model
        save(membership_functions(model.get_layer("gate_0")), "memberships")
        save(firing_maps(model, images[0], "gate_0"), "firing")


if __name__ == "__main__":
    main()
