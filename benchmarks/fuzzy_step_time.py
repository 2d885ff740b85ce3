"""What the fuzzy gates cost: seconds a training step and a prediction, against the plain U-Net, in interleaved rounds.

Run as `KERAS_BACKEND=tensorflow python -m benchmarks.fuzzy_step_time --size 256 --batch 8`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import keras
import numpy as np

from dermaseg.models.fuzzy_unet import build_fuzzy_unet
from dermaseg.models.unet import build_unet

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "unet": build_unet,
    "fuzzy": build_fuzzy_unet,
    "fuzzy_pixel": lambda **kwargs: build_fuzzy_unet(gate_stride=1, **kwargs),
    "linear": lambda **kwargs: build_fuzzy_unet(gate="linear", **kwargs),
    "attention": lambda **kwargs: build_fuzzy_unet(gate="attention", **kwargs),
}


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", default="float32", help="float32, mixed_bfloat16 or mixed_float16")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["fuzzy"], help="beside unet")
    parser.add_argument(
        "--jit-compile", action=argparse.BooleanOptionalAction, default="auto", help="XLA; by default as Keras and training do"
    )
    options = parser.parse_args(arguments)

    keras.config.set_dtype_policy(options.dtype)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (options.batch, options.size, options.size, 3)).astype("float32")
    masks = (generator.uniform(size=(*images.shape[:3], 1)) > 0.5).astype("float32")
    names = dict.fromkeys(["unet", *options.networks])
    models = {name: NETWORKS[name](input_shape=images.shape[1:]) for name in names}
    train: dict[str, list[float]] = {name: [] for name in models}
    predict: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.compile("adam", "binary_crossentropy", jit_compile=options.jit_compile)
        model.train_on_batch(images, masks)
        model.predict_on_batch(images)
    for _ in range(options.rounds):
        for name, model in models.items():
            train[name].append(seconds(model.train_on_batch, images, masks))
            predict[name].append(seconds(model.predict_on_batch, images))

    compiled = "XLA" if models["unet"].jit_compile else "no XLA"
    print(f"{keras.backend.backend()}, {options.dtype}, {options.batch} images of {options.size} px, {compiled}")
    print(f"{'network':<11} {'parameters':>10} {'train ms':>9} {'ratio':>6} {'predict ms':>10} {'ratio':>6}")
    for name, model in models.items():
        ratios = [median(a / b for a, b in zip(times[name], times["unet"], strict=True)) for times in (train, predict)]
        print(
            f"{name:<11} {model.count_params():>10,} {1e3 * median(train[name]):>9.1f} {ratios[0]:>6.3f} "
            f"{1e3 * median(predict[name]):>10.1f} {ratios[1]:>6.3f}"
        )


if __name__ == "__main__":
    main()
