"""Names of a data set's classes to the defect types of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....runtime.errors import DataSetError
from .reading import json_from_file

CLASSES_FILE = "classes.json"
IGNORE = "ignore"


@dataclass(frozen=True)
class ClassNames:
    """`types`: the recipe's, or None where no recipe was asked; `renamed`: data set name -> recipe type."""

    types: tuple[str, ...] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    def type_of(self, name: str, where: str) -> str | None:
        """The recipe type of a class, None for one to ignore; DataSetError names a class nobody knows."""
        said = self.renamed.get(name, name)
        if said == IGNORE:
            return None
        if self.types is None or said in self.types:
            return said
        written = f", which {CLASSES_FILE} calls {said!r}" if name in self.renamed else ""
        raise DataSetError(
            f"{where}: the class {name!r}{written} is none of the recipe's: {', '.join(self.types)}; say what"
            f' it is in a {CLASSES_FILE} beside the data set, or with --classes FILE:'
            f' {{"{name}": "{self.types[0]}"}} or {{"{name}": "{IGNORE}"}}'
        )


def class_names(types: Sequence[str] | None, file: Path | None, folder: Path) -> ClassNames:
    """The names of one data set: by `file`, else by a classes.json in its folder, else as they are."""
    beside = folder / CLASSES_FILE
    path = file if file is not None else beside if beside.is_file() else None
    known = None if types is None else tuple(types)
    if path is None:
        return ClassNames(known)
    renamed = json_from_file(path)
    if not isinstance(renamed, dict) or not all(isinstance(one, str) for one in renamed.values()):
        raise DataSetError(f'{path}: expected {{"name in the data set": "type of the recipe"}}')
    unknown = [one for one in renamed.values() if known is not None and one not in (*known, IGNORE)]
    if unknown:
        raise DataSetError(f"{path}: {', '.join(map(repr, unknown))} is no type of the recipe;"
                           f" its types are {', '.join(known or ())}, or {IGNORE!r}")
    return ClassNames(known, renamed)
