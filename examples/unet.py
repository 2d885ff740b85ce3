"""A U-Net from the parts of the library: data set, builder, loss, metric, prediction. `dermaseg.train` does this and more."""

from options import parse  # first: it sets what TensorFlow reads when Keras loads it

# isort: split
import keras

from dermaseg import Predictor, evaluate
from dermaseg.data import Augment, make_dataset, split_samples
from dermaseg.losses import OverlapCrossentropy
from dermaseg.metrics import JaccardIndex
from dermaseg.models import build_unet
from dermaseg.optimizers import AdamW

options = parse(__doc__, steps=150)
keras.utils.set_random_seed(0)

samples = options.samples.with_masks()
parts = split_samples(samples, seed=0).apply(samples)
batches = make_dataset(
    parts["train"], size=options.size, batch_size=16, augment=Augment.light(), shuffle=True, drop_remainder=True
)

model = build_unet(filters=(16, 32, 64, 128))  # any height and width, raw pixels in, probabilities out
optimizer = AdamW(2e-3)  # Keras's updates, but TensorFlow reaches the first step sooner
optimizer.build(model.trainable_variables)
model.compile(optimizer, OverlapCrossentropy(overlap="jaccard"), metrics=[JaccardIndex(name="jaccard")])
model.fit(
    batches,
    validation_data=make_dataset(parts["validation"], size=options.size, batch_size=16),
    epochs=max(1, options.steps // len(batches)),
    shuffle=False,  # the data set shuffles by itself, the same way each time
    verbose=2,
)

report = evaluate(Predictor(model, size=options.size), parts["test"])
print("Jaccard index on held-out lesions, at the photographs' own size:", report.figures["jaccard"])
model.save(options.output / "unet.keras")
files = Predictor(model, size=options.size)(parts["test"][0].image).save(options.output, "lesion")
print("Look at", files["overlay"])
