"""The lesion segmentation task of the ISIC challenges of 2016, 2017 and 2018 (task 1)."""

from __future__ import annotations

import re
from pathlib import Path

from dermaseg.data.layout import Listing, check_same_ids, find_images, find_masks, locate
from dermaseg.data.samples import Sample, Samples
from dermaseg.errors import DataError

__all__ = ["is_isic_task1", "read_isic_task1"]

_FOLDER = re.compile(
    r"(?:ISBI|ISIC)-?(?P<year>201[678])(?:_ISIC_Part1|_Task1(?:-2)?)?_(?P<part>Training|Validation|Test)(?:_v2)?"
    r"(?:_Part1)?_(?P<kind>Data|Input|GroundTruth)",
    re.IGNORECASE,
)
_PARTS = {"training": "train", "validation": "validation", "test": "test"}


def read_isic_task1(folder: str | Path) -> Samples:
    """Read the photographs and lesion masks of one year's challenge, all the parts that are there.

    - 2016: `ISBI2016_ISIC_Part1_Training_Data`, `ISBI2016_ISIC_Part1_Training_GroundTruth`, the same for `Test`;
    - 2017: `ISIC-2017_Training_Data`, `ISIC-2017_Training_Part1_GroundTruth`, the same for `Validation` and `Test_v2`
      (superpixels and metadata beside the photographs are passed over);
    - 2018: `ISIC2018_Task1-2_Training_Input`, `ISIC2018_Task1_Training_GroundTruth`, the same for `Validation`, `Test`.

    The challenge says nothing of lesions or patients: `lesion_id` is None.

    Args:
        folder: The folder that holds those folders, or the one around it.

    Returns:
        One sample for each photograph with the metadata `part` (`train`, `validation` or `test`) and `year`. A part
        whose masks are not there has no masks.

    Raises:
        DataError: If nothing fits, the folder mixes years (they share photographs), no masks are there at all, or a
            photograph of a part with masks lacks its mask, or the other way round.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("Task1-2_Training_Input/ISIC_1.jpg", "Task1_Training_GroundTruth/ISIC_1_segmentation.png"):
        ...     (folder / f"ISIC2018_{name}").parent.mkdir()
        ...     (folder / f"ISIC2018_{name}").touch()
        >>> read_isic_task1(folder)
        <Samples: ISIC 2018 task 1: 1 images; 1 masks>

    References:
        D. Gutman et al., arXiv:1605.01397, 2016. N. Codella et al., "Skin lesion analysis toward melanoma detection",
        ISBI 2018 (the 2017 challenge), and arXiv:1902.03368, 2019 (the 2018 challenge).
    """
    listing = locate(
        folder,
        is_isic_task1,
        "ISIC task 1: folders such as ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth",
    )
    inputs: dict[str, Path] = {}
    truths: dict[str, Path] = {}
    years = set()
    for name in listing.folders:
        match = _FOLDER.fullmatch(name)
        if match is None:
            continue
        years.add(match["year"])
        kind = truths if match["kind"].lower() == "groundtruth" else inputs
        part = _PARTS[match["part"].lower()]
        if len(years) == 1 and part in kind:
            raise DataError(f"{listing.path}: {kind[part].name} and {name} are the same part. Keep one of them.")
        kind[part] = listing.path / name
    if len(years) > 1:
        raise DataError(f"{listing.path} mixes {', '.join(sorted(years))}, which share photographs. Use one folder a year.")
    if not truths:
        raise DataError(f"{listing.path}: no GroundTruth folder beside {inputs.popitem()[1].name}. Unpack the masks, too.")
    check_same_ids(inputs, truths, f"{listing.path}: masks but no photographs of the part {{}}. Unpack its photographs.")
    (year,) = years
    rows = []
    for part in (part for part in _PARTS.values() if part in inputs):
        images = find_images(inputs[part], ignore="_superpixels")
        masks: dict[str, Path] = {}
        if part in truths:
            masks = find_masks(truths[part])
            check_same_ids(images, masks, f"{inputs[part]}: no image for the mask of {{}}. Move the mask away.")
            check_same_ids(masks, images, f"{truths[part]}: no mask of {{}}. Unpack all masks.")
        metadata = {"part": part, "year": year}
        rows += [Sample(name, path, mask=masks.get(name), metadata=metadata) for name, path in images.items()]
    return Samples(rows, source=f"ISIC {year} task 1")


def is_isic_task1(listing: Listing) -> bool:
    """Tell whether a folder holds an ISIC challenge's segmentation data."""
    return any(_FOLDER.fullmatch(name) for name in listing.folders)
