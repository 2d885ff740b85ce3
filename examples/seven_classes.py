"""Seven diagnoses of very different frequency: what is done for the rare ones, side by side on one split."""

from options import parse

import dermaseg
from dermaseg.data import split_samples
from dermaseg.tasks import get_task

options = parse(__doc__, steps=150)

samples = get_task("classify-7").prepare(options.samples)
print(samples.class_counts())
split = split_samples(samples, seed=0)

for imbalance in ("none", "logits"):  # or "sampling", "weights", "focal"
    run = dermaseg.train(
        "classify-7",
        samples,
        options.output / imbalance,
        split=split,
        imbalance=imbalance,
        size=options.size,
        steps=options.steps,
    )
    # Compare on the validation part; the test part is for the one that is chosen.
    figures = dermaseg.evaluate_run(run, part="validation").figures
    print(f"{imbalance:10} accuracy {figures['accuracy']}  balanced accuracy {figures['balanced_accuracy']}")
