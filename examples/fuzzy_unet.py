"""A Fuzzy U-Net, trained towards fuzzy borders, and a look at what its rules have learned."""

from options import parse

import dermaseg
from dermaseg.data import read_image
from dermaseg.plots import firing_maps, membership_functions, save_figure

options = parse(__doc__, steps=150)

run = dermaseg.train(
    "segment-fuzzy",
    options.samples,
    options.output / "run",
    size=options.size,
    steps=options.steps,
    model={"filters": (16, 32, 64, 128), "rules": 8},
)
print("Jaccard index on held-out lesions:", dermaseg.evaluate_run(run).figures["jaccard"])

model = dermaseg.Predictor(run.path).model
save_figure(membership_functions(model.get_layer("gate_0")), options.output / "memberships.png")
save_figure(firing_maps(model, read_image(options.samples[0].image), "gate_0"), options.output / "firing.png")
print("Look at", options.output / "memberships.png", "and", options.output / "firing.png")
