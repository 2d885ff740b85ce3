"""The table of samples: which photograph, which mask, which class, which lesion. No pixels."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np

from dermaseg.errors import DataError

__all__ = ["Sample", "Samples"]

_NOT_KNOWN = frozenset({"", "nan", "<NA>"})  # as csv and pandas write it


@dataclass(frozen=True, slots=True)
class Sample:
    """One photograph and what is known about it.

    Args:
        id: Unique name inside its table, by default the file's stem, as `"ISIC_0024306"`.
        image: Path of the photograph.
        mask: Path of the lesion mask, or None where there is none.
        label: Index into `Samples.class_names`, or None where the diagnosis is not known.
        lesion_id: Photographs of one lesion share it; None where it is not known. An empty text and a NaN, as tables have them,
            become None: else all unknown ones would be one lesion.
        patient_id: Photographs of one patient share it; as `lesion_id`.
        metadata: Anything else the source says, as text: `age`, `sex`, `localization`, `dx_type`, `part` ...

    Raises:
        DataError: If the label is no integer.
    """

    id: str
    image: Path
    mask: Path | None = None
    label: int | None = None
    lesion_id: str | None = None
    patient_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Take what tables give: text for paths, NumPy's integers for labels, NaN and empty text for what is not known."""
        for name in ("image", "mask"):
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))
        if self.label is not None:
            try:
                object.__setattr__(self, "label", operator.index(self.label))
            except TypeError:
                raise DataError(
                    f"sample {self.id!r}: label {self.label!r} is no integer. Give its index in class_names."
                ) from None
        for name in ("lesion_id", "patient_id"):
            if (value := getattr(self, name)) is not None:
                text = str(value)
                object.__setattr__(self, name, None if text in _NOT_KNOWN else text)


@dataclass(frozen=True, slots=True)
class Samples(Sequence[Sample]):
    """An immutable table of `Sample` rows with one list of class names.

    Every method returns a new table; no pixel is read before a pipeline asks for it.

    Args:
        rows: The samples, in a fixed order. Ids are unique.
        class_names: What each label means; empty where the table has no labels.
        source: What the table was read from, for messages and reports.

    Raises:
        DataError: If two rows share an id, or a label has no class name.

    Examples:
        >>> from pathlib import Path
        >>> rows = [Sample("a", Path("a.jpg"), label=0), Sample("b", Path("b.jpg"), label=1)]
        >>> table = Samples(rows, class_names=("benign", "malignant"))
        >>> table.filter(lambda sample: sample.label == 1).ids
        ('b',)
    """

    rows: Sequence[Sample]
    class_names: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise DataError(
                f"{self.source or 'samples'}: the id {repeated[0]!r} stands for {self.ids.count(repeated[0])} rows "
                f"({len(repeated)} ids are repeated). Give each photograph an id of its own."
            )
        for sample in self.rows:
            if sample.label is not None and not 0 <= sample.label < len(self.class_names):
                raise DataError(
                    f"{self.source or 'samples'}: sample {sample.id!r} has label {sample.label}, "
                    f"but there are {len(self.class_names)} class names. Labels count from 0."
                )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self.rows[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<Samples: {self.summary()}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(sample.id for sample in self.rows)

    @property
    def labels(self) -> np.ndarray:
        """The labels as integers of shape `(samples,)`, -1 where a diagnosis is not known."""
        return np.array([-1 if sample.label is None else sample.label for sample in self.rows], dtype=np.int64)

    @property
    def num_classes(self) -> int:
        """How many classes the labels can take."""
        return len(self.class_names)

    def filter(self, keep: Callable[[Sample], bool]) -> Samples:
        """Keep the rows for which `keep(sample)` is true."""
        return replace(self, rows=tuple(sample for sample in self.rows if keep(sample)))

    def with_masks(self) -> Samples:
        """Keep the rows that have a mask."""
        return self.filter(lambda sample: sample.mask is not None)

    def with_labels(self) -> Samples:
        """Keep the rows that have a label."""
        return self.filter(lambda sample: sample.label is not None)

    def select(self, which: Iterable[str] | Iterable[int]) -> Samples:
        """Take rows by id or by position, in the order given.

        Raises:
            DataError: If an id is not in the table.
        """
        by_id = {sample.id: sample for sample in self.rows}
        chosen: list[Sample] = []
        for key in which:
            if not isinstance(key, str):
                chosen.append(self.rows[int(key)])
            elif key in by_id:
                chosen.append(by_id[key])
            else:
                raise DataError(f"{self.source or 'samples'}: there is no sample with the id {key!r}.")
        return replace(self, rows=tuple(chosen))

    def map(self, change: Callable[[Sample], Sample], *, class_names: Iterable[str] | None = None) -> Samples:
        """Replace every row by `change(sample)`, and the class names where new ones are given."""
        names = self.class_names if class_names is None else tuple(class_names)
        return replace(self, rows=tuple(change(sample) for sample in self.rows), class_names=names)

    def relabel(self, mapping: Mapping[str, str | None]) -> Samples:
        """Rename or merge classes: `mapping` takes each old class name to a new one.

        A class mapped to None loses its label (the row stays, for its mask). The new classes stand in the order in
        which the mapping first names them.

        Raises:
            DataError: If a class of the table is missing from the mapping.

        Examples:
            >>> table = Samples([Sample("a", Path("a.jpg"), label=1)], class_names=("nv", "mel"))
            >>> table.relabel({"nv": "benign", "mel": "malignant"}).class_names
            ('benign', 'malignant')
        """
        missing = [name for name in self.class_names if name not in mapping]
        if missing:
            raise DataError(f"relabel: the mapping says nothing of the class {missing[0]!r}. Map it to a name or to None.")
        names = tuple(dict.fromkeys(name for name in mapping.values() if name is not None))

        def change(sample: Sample) -> Sample:
            if sample.label is None:
                return sample
            name = mapping[self.class_names[sample.label]]
            return replace(sample, label=None if name is None else names.index(name))

        return self.map(change, class_names=names)

    def with_class_names(self, class_names: Sequence[str]) -> Samples:
        """Number the classes as another table or a model does; rows keep their class by name.

        Raises:
            DataError: If a row's class is not among the names.

        Examples:
            >>> table = Samples([Sample("a", Path("a.jpg"), label=1)], class_names=("nv", "mel"))
            >>> table.with_class_names(("bcc", "mel", "nv")).labels.tolist()
            [1]
        """
        names = tuple(class_names)
        unknown = [name for name, count in self.class_counts().items() if count and name not in names]
        if unknown:
            raise DataError(
                f"{self.source or 'samples'}: the class {unknown[0]!r} is not one of {', '.join(names) or 'no classes'}. "
                "Rename it with relabel(), or leave its rows out."
            )
        return self.map(
            lambda sample: (
                sample if sample.label is None else replace(sample, label=names.index(self.class_names[sample.label]))
            ),
            class_names=names,
        )

    @classmethod
    def concatenate(cls, tables: Iterable[Samples], *, source: str = "") -> Samples:
        """Put tables one behind the other. Class names must agree, or be empty.

        Raises:
            DataError: If two tables name their classes differently, or share an id.
        """
        parts = list(tables)
        names = {part.class_names for part in parts if part.class_names}
        if len(names) > 1:
            first, second = sorted(names)[:2]
            raise DataError(f"concatenate: class names differ: {first} and {second}. Use relabel() on one of them first.")
        rows = [sample for part in parts for sample in part]
        joined = source or " + ".join(dict.fromkeys(part.source for part in parts if part.source))
        return cls(rows, class_names=next(iter(names), ()), source=joined)

    def class_counts(self) -> dict[str, int]:
        """How many rows each class has, in the order of the class names."""
        counts = Counter(sample.label for sample in self.rows)
        return {name: counts[index] for index, name in enumerate(self.class_names)}

    def summary(self) -> str:
        """One line: how many photographs, masks, lesions, and rows of each class."""
        masks = sum(sample.mask is not None for sample in self.rows)
        lesions = len({sample.lesion_id for sample in self.rows if sample.lesion_id is not None})
        words = [f"{len(self)} images", f"{masks} masks"]
        if lesions:
            words.append(f"{lesions} lesions")
        if self.class_names:
            words.append(", ".join(f"{name} {count}" for name, count in self.class_counts().items()))
        return (f"{self.source}: " if self.source else "") + "; ".join(words)

    def save(self, path: str | Path) -> None:
        """Write the table as JSON: a record of what was used, and a way to use just that again."""
        rows = [
            {**asdict(sample), "image": str(sample.image), "mask": None if sample.mask is None else str(sample.mask)}
            for sample in self.rows
        ]
        content = {"source": self.source, "class_names": self.class_names, "rows": rows}
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Samples:
        """Read a table that `save` wrote.

        Raises:
            DataError: If the file is missing or is no such table.

        Examples:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "samples.json"
            >>> table = Samples([Sample("a", Path("a.jpg"), label=0)], class_names=("nv",))
            >>> table.save(path)
            >>> Samples.load(path) == table
            True
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = [
                Sample(**{**row, "image": Path(row["image"]), "mask": None if row["mask"] is None else Path(row["mask"])})
                for row in content["rows"]
            ]
            return cls(rows, class_names=content["class_names"], source=content["source"])
        except FileNotFoundError:
            raise DataError(f"{path} does not exist. Give a file that Samples.save wrote.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a table of samples ({error}). Give a file that Samples.save wrote.") from error
