"""Pack the photographs that the presets learn from, resized, into one file that travels to another machine.

    python -m benchmarks.pack --ham10000 DIR --isic2018 DIR --size 192 --output packed.zip
    python -m benchmarks.train_presets all --packed packed.zip --output FOLDER

The file is a plain zip of two folders, `ham10000` and `isic2018`, in the layouts that they were read from: photographs as JPEG
and masks as PNG under the names that they had, and the tables. So ids and splits are those of the originals. What is smaller
than asked for stays as it is.
"""

import argparse
import functools
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from dermaseg.data import fit_area, image_size, read_image, read_mask, read_samples, resize_image, resize_mask
from dermaseg.errors import DataError
from dermaseg.progress import counting
from dermaseg.runs import write_atomically

SETS = ("ham10000", "isic2018")


def pack(folders: dict[str, Path], output: Path, *, size: int, quality: int = 92) -> None:
    """Write the packed file.

    Args:
        folders: Where the data sets are, by the name that each gets inside the file.
        output: The zip; it appears when it is whole.
        size: Side in pixels of a square with the area that photographs get; they keep their shape.
        quality: Of the JPEGs, up to 95.

    Raises:
        DataError: If a photograph or a mask cannot be read, or stands outside of its folder.
    """

    def write(unfinished: Path) -> None:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as packed:
            for name, folder in folders.items():
                _pack_folder(packed, name, folder, size, quality)

    write_atomically(output, write)


def _pack_folder(packed: zipfile.ZipFile, name: str, folder: Path, size: int, quality: int) -> None:
    samples = read_samples(folder)
    for table in sorted(folder.rglob("*.csv")):
        packed.write(table, _inside(name, folder, table), zipfile.ZIP_DEFLATED)
    with counting(Console(), f"pack {name}") as packing:
        for done, sample in enumerate(samples, start=1):
            shape = image_size(sample.image)
            smaller = fit_area(shape, size)
            for path, resized in ((sample.image, functools.partial(_photograph, quality=quality)), (sample.mask, _mask)):
                if path is not None:
                    content = resized(path, smaller) if smaller[0] < shape[0] else path.read_bytes()
                    packed.writestr(_inside(name, folder, path), content)
            packing(done, len(samples))


def _inside(name: str, folder: Path, path: Path) -> str:
    try:
        return f"{name}/{path.absolute().relative_to(folder.absolute()).as_posix()}"
    except ValueError:
        raise DataError(f"{path}: is not inside {folder}. Only what a folder holds can be packed.") from None


def _photograph(path: Path, size: tuple[int, int], *, quality: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(resize_image(read_image(path), size)).save(written, "JPEG", quality=quality)
    return written.getvalue()


def _mask(path: Path, size: tuple[int, int]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(resize_mask(read_mask(path), size) * np.uint8(255)).save(written, "PNG")
    return written.getvalue()


def unpack(packed: Path, folder: Path) -> dict[str, Path]:
    """Unpack into a folder, unless it holds the same file's content already, and return the data sets' folders by name."""
    mark = folder / "unpacked-from"
    stamp = f"{packed.stat().st_size} bytes, {packed.name}"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(packed) as content:
            content.extractall(folder)
        mark.write_text(stamp, encoding="utf-8")
    return {name: folder / name for name in SETS}


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--isic2018", type=Path, required=True)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--quality", type=int, default=92, help="of the JPEGs (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    pack({name: getattr(options, name) for name in SETS}, options.output, size=options.size, quality=options.quality)
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
