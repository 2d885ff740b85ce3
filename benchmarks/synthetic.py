"""Measure how fast synthetic photographs are drawn on one core: `python -m benchmarks.synthetic [count]`."""

import sys
import time

from dermaseg.data.synthetic import synthetic_batch


def main() -> None:
    """Print photographs a second at some sizes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 140
    for size in (64, 128, 256, (450, 600)):
        synthetic_batch(7, size=size)
        rates = []
        for seed in range(3):
            start = time.process_time()
            synthetic_batch(count, size=size, seed=seed)
            rates.append(count / (time.process_time() - start))
        print(f"{size!s:>10} px: {max(rates):6.0f} images/s")


if __name__ == "__main__":
    main()
