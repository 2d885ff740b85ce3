"""Somebody else's Keras project that takes a builder, a loss and a metric from dermaseg, and nothing else."""

import keras
import numpy as np
from options import parse

from dermaseg.data import load_arrays
from dermaseg.losses import FocalTversky
from dermaseg.metrics import DiceScore
from dermaseg.models import build_unet
from dermaseg.saving import load_model

options = parse(__doc__, steps=60)

# Any arrays will do: RGB from 0 to 255, masks of 0 and 1.
images, masks = load_arrays(options.samples.with_masks()[:64], size=options.size, target="mask")

unet = build_unet(input_shape=(None, None, 3), filters=(8, 16, 32), encoder=None)
# Light alone: a flip here would turn the photograph and leave its mask behind. Augment of dermaseg.data moves both.
project = keras.Sequential([keras.Input((options.size, options.size, 3)), keras.layers.RandomBrightness(0.1), unet])
project.compile(optimizer="adam", loss=FocalTversky(), metrics=[DiceScore(name="dice")])
history = project.fit(images, masks, batch_size=16, epochs=max(1, options.steps // 4), validation_split=0.25, verbose=0)
print("Dice score of the last epoch:", round(history.history["val_dice"][-1], 3))

project.save(options.output / "project.keras")
again = load_model(options.output / "project.keras")
np.testing.assert_allclose(again.predict(images[:2], verbose=0), project.predict(images[:2], verbose=0), atol=1e-5)
print("Saved, loaded and still the same:", options.output / "project.keras")
