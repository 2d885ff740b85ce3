"""Splits by lesion, patient and near-duplicate, stratified by class; written to a manifest that proves itself."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from dermaseg.data.grouping import deal_groups, group_samples
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError

__all__ = ["Split", "group_samples", "k_folds", "official_split", "split_samples"]

Grouping = Literal["auto"] | None
Pairs = Sequence[tuple[str, str]] | None

_DEFAULT_FRACTIONS = MappingProxyType({"train": 0.7, "validation": 0.15, "test": 0.15})


@dataclass(frozen=True)
class Split:
    """Which photographs belong to which part.

    Args:
        parts: The ids of each part, by the part's name; kept sorted. No id stands in two parts.
        seed: The seed that the split was drawn with.
        group: What was kept together, as `"lesion_id, duplicates"`, or `"image"` where nothing was.
        fractions: The share of the photographs asked for in each part; empty where none was asked for.

    Raises:
        ValueError: If a part is empty, or an id stands twice.

    Examples:
        >>> split = Split({"train": ("a", "b"), "test": ("c",)})
        >>> split.parts["test"]
        ('c',)
    """

    parts: Mapping[str, tuple[str, ...]] = field(hash=False)
    seed: int = 0
    group: str = "image"
    fractions: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # Sorted, as they are saved: a run that goes on must see its photographs in the order that it began with.
        parts = {name: tuple(sorted(ids)) for name, ids in self.parts.items()}
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "fractions", dict(self.fractions))
        empty = [name for name, ids in parts.items() if not ids]
        if empty or not parts:
            raise ValueError(f"parts: {empty[0] if empty else 'the split'} is empty. Each part needs a photograph.")
        part_of: dict[str, str] = {}
        for name, ids in parts.items():
            for key in ids:
                if key in part_of:
                    raise ValueError(f"parts: {key!r} stands in {part_of[key]} and again in {name}.")
                part_of[key] = name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the split says, in hexadecimal; the order of the ids does not count."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def apply(self, samples: Samples) -> dict[str, Samples]:
        """Cut a table into its parts, each in the order of its ids; rows that no part names are left out.

        Raises:
            DataError: If an id of the split is not in the table.
        """
        known = set(samples.ids)
        for name, ids in self.parts.items():
            missing = [key for key in ids if key not in known]
            if missing:
                raise DataError(
                    f"{samples.source or 'samples'}: {len(missing)} of the {len(ids)} ids of the part {name!r} are not "
                    f"in the table, first {missing[0]!r}. Read the data set that the split was made for."
                )
        return {name: samples.select(ids) for name, ids in self.parts.items()}

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, with its fingerprint."""
        text = json.dumps({**self._content(), "sha256": self.fingerprint}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split that `save` wrote.

        Raises:
            DataError: If the file is missing, is no split, or its content is not what its fingerprint was taken of.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            split = cls(content["parts"], int(content["seed"]), content["group"], content["fractions"])
            said = content["sha256"]
        except FileNotFoundError:
            raise DataError(f"{path} does not exist. Give a file that Split.save wrote.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a split ({error}). Give a file that Split.save wrote.") from error
        if said != split.fingerprint:
            raise DataError(f"{path} was changed after it was saved: its SHA-256 does not fit. Make the split again.")
        return split

    def _content(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "group": self.group,
            "fractions": dict(self.fractions),
            "parts": {name: list(ids) for name, ids in self.parts.items()},
        }


def split_samples(
    samples: Samples,
    *,
    fractions: Mapping[str, float] = _DEFAULT_FRACTIONS,
    seed: int = 0,
    group: Grouping = "auto",
    duplicates: Pairs = None,
) -> Split:
    """Split a table at random: no lesion, patient or near-duplicate in two parts, each class spread alike.

    Splitting HAM10000 by image instead puts a photograph of the same lesion into training for 39 % of the test
    images, and 74 % of the melanomas: the test then measures memory. The groups are dealt out in random order, large
    ones first, each to the part that is least full, counted over its class and over all photographs.

    Args:
        samples: The table; rows without a label count as one class more.
        fractions: The share of the photographs in each part, above 0, with the sum 1.
        seed: Another seed draws another split; the same seed gives the same split in any order of the rows.
        group: `"auto"` keeps together what `group_samples` finds; None splits by image, with a warning.
        duplicates: Pairs of ids of the same picture, as `Audit.duplicates`.

    Returns:
        A split with a part for each name in `fractions`, in that order, about as large as asked for: groups stay whole.

    Raises:
        ValueError: If the fractions are not a division of 1, or `group` is neither `"auto"` nor None.
        DataError: If there are too few groups to put one into each part.

    Warns:
        UserWarning: If `group` is None, or rows say neither lesion nor patient.

    Examples:
        >>> from dermaseg.data.samples import Sample
        >>> rows = [Sample(str(i), Path(f"{i}.jpg"), lesion_id=str(i // 2)) for i in range(20)]
        >>> split = split_samples(Samples(rows), fractions={"train": 0.8, "test": 0.2})
        >>> {name: len(ids) for name, ids in split.parts.items()}
        {'train': 16, 'test': 4}
    """
    shares = np.array(list(fractions.values()), dtype=float)
    if not len(shares) or not (shares > 0).all() or not math.isclose(shares.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(f"fractions={dict(fractions)}: each must be above 0 and their sum 1.")
    groups, kept_together = _groups(samples, group, duplicates)
    part = deal_groups(samples, groups, shares, seed)
    return Split(_ids_by_part(samples, part, fractions), seed, kept_together, fractions)


def k_folds(
    samples: Samples, *, k: int = 5, seed: int = 0, group: Grouping = "auto", duplicates: Pairs = None
) -> tuple[Split, ...]:
    """Split a table into `k` folds for cross-validation, grouped and stratified as by `split_samples`.

    Args:
        samples: The table, without its test part.
        k: How many folds, at least 2.
        seed: As for `split_samples`.
        group: As for `split_samples`.
        duplicates: As for `split_samples`.

    Returns:
        `k` splits into `train` and `validation`; each photograph is in the validation part of exactly one.

    Raises:
        ValueError: If `k` is below 2.
        DataError: If there are fewer groups than folds.

    Examples:
        >>> from dermaseg.data.samples import Sample
        >>> rows = [Sample(str(i), Path(f"{i}.jpg"), lesion_id=str(i // 2)) for i in range(20)]
        >>> [len(fold.parts["validation"]) for fold in k_folds(Samples(rows), k=5)]
        [4, 4, 4, 4, 4]
    """
    if k < 2:
        raise ValueError(f"k={k}: cross-validation needs at least 2 folds.")
    groups, kept_together = _groups(samples, group, duplicates)
    fold = deal_groups(samples, groups, np.full(k, 1 / k), seed)
    fractions = {"train": 1 - 1 / k, "validation": 1 / k}
    return tuple(
        Split(_ids_by_part(samples, fold == held_out, fractions), seed, kept_together, fractions) for held_out in range(k)
    )


_IN_WORDS = {"train": "training", "validation": "validation"}


def official_split(samples: Samples, *, validation: float = 0.15, seed: int = 0, duplicates: Pairs = None) -> Split:
    """Keep the parts that the data set came with, and carve a validation part out of its training part.

    The official test part stays as it is. Photographs of the other parts that share a lesion, a patient or, where
    `duplicates` are given, a picture with it are left out of the split, with a warning, and so are training photographs
    that share one with an official validation part: they would make the test measure memory.

    Args:
        samples: A table whose metadata says the `part` of every row.
        validation: The share of the training part to carve out, between 0 and 1; of no consequence where the data set
            has a validation part.
        seed: As for `split_samples`.
        duplicates: As for `split_samples`.

    Returns:
        A split into `train`, `validation` and, where the data set has one, `test`; its `fractions` are empty.

    Raises:
        ValueError: If `validation` is not between 0 and 1.
        DataError: If a row has no part, or no row is of the training part.

    Warns:
        UserWarning: If photographs are left out, or rows say neither lesion nor patient.

    Examples:
        >>> from dermaseg.data.samples import Sample
        >>> parts = ["train"] * 8 + ["test"] * 2
        >>> rows = [Sample(str(i), Path(f"{i}.jpg"), lesion_id=str(i), metadata={"part": part}) for i, part in enumerate(parts)]
        >>> split = official_split(Samples(rows), validation=0.25)
        >>> {name: len(ids) for name, ids in split.parts.items()}
        {'train': 6, 'validation': 2, 'test': 2}
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation}: the share must be between 0 and 1.")
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, sample in enumerate(samples):
        part = sample.metadata.get("part", "")
        if part not in rows:
            raise DataError(
                f"{samples.source or 'samples'}: {sample.id} is in the part {part!r}, not in one of {', '.join(rows)}. "
                "Split the data at random."
            )
        rows[part].append(row)
    groups, kept_together = _groups(samples, "auto", duplicates)
    held_out = {"validation": rows["test"], "train": rows["validation"] + rows["test"]}
    for part, others in held_out.items():
        shared = np.isin(groups[rows[part]], groups[others])
        if shared.any():
            warnings.warn(
                f"left {shared.sum()} of {len(shared)} {_IN_WORDS[part]} photographs out of the split: "
                f"the official {'test' if part == 'validation' else 'validation or test'} part shows the same lesion, patient "
                "or picture.",
                UserWarning,
                stacklevel=2,
            )
        rows[part] = [row for row, leaks in zip(rows[part], shared, strict=True) if not leaks]
    kept = rows["train"]
    if not kept:
        raise DataError(f"{samples.source or 'samples'}: no photograph is left for training. Split the data at random.")
    ids = samples.ids
    parts = {name: tuple(ids[row] for row in members) for name, members in rows.items() if members}
    if "validation" not in parts:
        training = samples.select(kept)
        dealt = deal_groups(training, groups[kept], np.array([1 - validation, validation]), seed)
        parts = _ids_by_part(training, dealt, ("train", "validation")) | {
            name: members for name, members in parts.items() if name == "test"
        }
    return Split(parts, seed, kept_together)


def _groups(samples: Samples, group: Grouping, duplicates: Pairs) -> tuple[np.ndarray, str]:
    """Return the group of each row, and in words what makes a group; warn of what it can't know."""
    if group is None:
        warnings.warn(
            "group=None splits by image: photographs of one lesion can fall into two parts, and the test then measures "
            'memory. Use group="auto" for any figure that others will read.',
            UserWarning,
            stacklevel=3,
        )
        return np.arange(len(samples)), "image"
    if group != "auto":
        raise ValueError(f'group={group!r}: use "auto" (lesions, patients and near-duplicates) or None (by image).')
    unknown = sum(sample.lesion_id is None and sample.patient_id is None for sample in samples)
    if unknown:
        remedy = "near-duplicates are" if duplicates is not None else "pass duplicates=audit_samples(...).duplicates at least"
        warnings.warn(
            f"{unknown} of {len(samples)} photographs of {samples.source or 'the table'} say neither lesion nor patient: "
            f"those of one lesion can't be kept together ({remedy}).",
            UserWarning,
            stacklevel=3,
        )
    ties = {
        "lesion_id": any(sample.lesion_id is not None for sample in samples),
        "patient_id": any(sample.patient_id is not None for sample in samples),
        "duplicates": bool(duplicates),
    }
    return group_samples(samples, duplicates), ", ".join(name for name, used in ties.items() if used) or "image"


def _ids_by_part(samples: Samples, part: np.ndarray, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(samples.select(np.flatnonzero(part == index)).ids) for index, name in enumerate(names)}
