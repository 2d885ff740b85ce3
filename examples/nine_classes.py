"""Nine classes, a folder each (DermNet, isic9): audit first, then Inception-ResNet-V2 on cached features.

Synthetic photographs have seven classes; the code takes any number. --weights imagenet needs an internet connection, or the
weights in Keras's cache.
"""

import numpy as np
from options import parse

from dermaseg.data import audit_samples, load_arrays, split_samples
from dermaseg.metrics import classification_scores
from dermaseg.models import build_inception_resnet, fine_tune

options = parse(__doc__, size=75, steps=5)

# One photograph in two classes cannot be learned, and one in Train and Test is no test: look before training.
audit = audit_samples(options.samples)
print(audit)
samples, dropped = audit.clean(options.samples)
print(f"{len(dropped)} photographs stand in two classes or cannot be read, and are left out.")
parts = split_samples(samples, seed=0, duplicates=audit.duplicates).apply(samples)
train, validation, test = (load_arrays(parts[name], size=options.size, target="label") for name in parts)

model = build_inception_resnet(num_classes=options.samples.num_classes, weights=options.weights)
fine_tune(
    model,
    train,
    validation,
    loss="sparse_categorical_crossentropy",
    head_epochs=options.steps,
    epochs=0 if options.weights is None else 3,  # random features are not worth tuning
    cache=options.output / "features",  # the frozen base looks at each photograph once, not at every epoch
)
scores = classification_scores(test[1], np.asarray(model.predict(test[0], verbose=0)))
print({name: round(value, 3) for name, value in scores.items()})
model.save(options.output / "nine_classes.keras")
