"""What caching saves while Inception-ResNet-V2 is frozen: seconds an epoch of training its head, computed and cached.

Run as `KERAS_BACKEND=tensorflow python -m benchmarks.feature_cache --images 64 --size 224`.
"""

import argparse
import tempfile
import time
from statistics import median

import keras
import numpy as np

from dermaseg.models.inception_resnet import build_inception_resnet, cache_features, split_head


def epoch_seconds(model: keras.Model, inputs: np.ndarray, labels: np.ndarray, batch: int, epochs: int) -> float:
    """Return the median time of an epoch, the first, which compiles, left out."""
    model.compile("adam", "sparse_categorical_crossentropy")
    times = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        model.fit(inputs, labels, batch_size=batch, verbose=0)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (arguments.images, arguments.size, arguments.size, 3), dtype=np.uint8)
    labels = generator.integers(0, 9, arguments.images)
    model = build_inception_resnet(num_classes=9, weights=None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        features = np.array(cache_features(model, images, folder, batch_size=arguments.batch))
        filling = time.perf_counter() - start
    _, head = split_head(model)
    cached = epoch_seconds(head, features, labels, arguments.batch, 20)
    computed = epoch_seconds(model, images, labels, arguments.batch, arguments.epochs)

    print(f"{keras.backend.backend()}, {arguments.images} images of {arguments.size} px, batches of {arguments.batch}")
    print(f"filling the cache, once  {filling:8.2f} s")
    print(f"an epoch, computed       {computed:8.2f} s")
    print(f"an epoch, cached         {cached:8.4f} s, {computed / cached:.0f} times faster")
    for epochs in (10, 50):
        print(f"{epochs} epochs, cache filled in, {epochs * computed / (filling + epochs * cached):.1f} times faster")


if __name__ == "__main__":
    main()
