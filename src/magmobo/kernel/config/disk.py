"""What the system refuses of the files of settings, as an error for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from magmobo.kernel.config.errors import VersionsUnavailable


@contextmanager
def told() -> Iterator[None]:
    """What the system refuses, as a VersionsUnavailable that names the file."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise VersionsUnavailable(f"{where}{error.strerror or type(error).__name__}") from error
