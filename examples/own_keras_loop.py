"""Somebody else's Keras project that takes a reader, a split, a builder, a loss and a metric from dermaseg."""

import math

from options import parse  # first: it sets what TensorFlow reads when Keras loads it

# isort: split
import keras
import numpy as np

from dermaseg.data import load_arrays, split_samples
from dermaseg.losses import FocalTversky
from dermaseg.metrics import DiceScore
from dermaseg.models import build_unet
from dermaseg.saving import load_model

options = parse(__doc__, steps=60)

# Whole lesions stand on one side.
samples = options.samples.with_masks()
parts = split_samples(samples, seed=0).apply(samples)
# Any arrays will do: RGB from 0 to 255, masks of 0 and 1. For a folder that memory does not hold, take `make_dataset`.
images, masks = load_arrays(parts["train"], size=options.size, target="mask")

unet = build_unet(input_shape=(None, None, 3), filters=(8, 16, 32), encoder=None)
# Brightness only: a flip here would move the photograph but not its mask; `dermaseg.data.Augment` moves both.
project = keras.Sequential([keras.Input((options.size, options.size, 3)), keras.layers.RandomBrightness(0.1), unet])
project.compile(optimizer="adam", loss=FocalTversky(), metrics=[DiceScore(name="dice")])
history = project.fit(
    images,
    masks,
    batch_size=16,
    epochs=max(1, options.steps // math.ceil(len(images) / 16)),
    validation_data=load_arrays(parts["validation"], size=options.size, target="mask"),
    verbose=0,
)
print("Dice score of the last epoch:", round(history.history["val_dice"][-1], 3))

project.save(options.output / "project.keras")
again = load_model(options.output / "project.keras")
np.testing.assert_allclose(again.predict(images[:2], verbose=0), project.predict(images[:2], verbose=0), atol=1e-5)
print("Saved, loaded and still the same:", options.output / "project.keras")
