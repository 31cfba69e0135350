"""Where settings come from: TOML files and the environment, each as one layer of plain values.

A layer remembers its origin, so that every problem and `mag config:show --origin` can say who set what. A file that
is missing, empty or half written is an error, never an empty layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from magmobo.kernel.errors import ConfigFileError

MAX_FILE_BYTES = 1_048_576
FALLBACKS = {"DATABASE_URL": ("magds", "dsn"), "PORT": ("listener", "port")}
_VARIABLE = r"MAG_([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)((?:__[A-Z0-9]+(?:_[A-Z0-9]+)*)+)"


class Text(str):
    """A value that is text only because its source knows nothing else (environment, command line): it is read as the
    type of the setting, lists as JSON or comma-separated.
    """

    __slots__ = ()


class Layer(Struct, frozen=True):
    """Settings of one source: section -> key -> value. `origins` names the source of single keys (`section.key`)."""

    name: str
    origin: str
    values: dict[str, Any]
    origins: Mapping[str, str] = {}


def toml_layer(path: Path, name: str) -> Layer:
    """The settings of one TOML file.

    Raises: ConfigFileError when it is missing, unreadable, larger than 1 MiB, empty, not UTF-8 or not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigFileError([f"{path}: cannot be read ({error.strerror or error})"]) from error
    if not content:
        raise ConfigFileError([f"{path}: is empty; was it half written? Remove it or put a comment in it"])
    if len(content) > MAX_FILE_BYTES:
        raise ConfigFileError([f"{path}: is larger than {MAX_FILE_BYTES} bytes"])
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigFileError([f"{path} line {line}: is not UTF-8 text"]) from error
    import tomllib  # 2 ms that a node without a file does not pay

    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep"
        reason = reason.replace("(at end of document)", f"(at line {text.count(chr(10)) + 1}, the end of the file)")
        raise ConfigFileError([f"{path}: is not valid TOML: {reason}"]) from error
    return Layer(name, str(path), values)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The settings in `MAG_<SECTION>__<KEY>[__<SUBKEY>]`; `…_FILE` names a file that holds the value.

    `DATABASE_URL` and `PORT` stand in for `magds.dsn` and `listener.port` where the own variable is not set. Because
    of `_FILE`, no setting has a name that ends in `_file`.
    Raises: ConfigFileError for a file that cannot be read; all of them are named.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        if not (match := re.fullmatch(_VARIABLE, variable)):
            continue
        path = [match[1].lower(), *match[2].lower().split("__")[1:]]
        text = environ[variable]
        if path[-1].endswith("_file"):
            path[-1] = path[-1].removesuffix("_file")
            try:
                text = _read_value(Path(text))
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{variable}: the file it names cannot be read ({error.__class__.__name__})")
                continue
        if (key := ".".join(path)) in origins or not _put(values, path, text):
            problems.append(f"{variable}: {key} is also set by {origins.get(key, 'another variable')}")
            continue
        origins[key] = f"environment {variable}"
    if problems:
        raise ConfigFileError(problems)
    for variable, (section, key) in FALLBACKS.items():
        if (text := environ.get(variable, "")) and key not in values.get(section, {}):
            _put(values, [section, key], text)
            origins[f"{section}.{key}"] = f"environment {variable}"
    return Layer("environment", "environment", values, origins)


def _read_value(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode().removesuffix("\n").removesuffix("\r")


def _put(values: dict[str, Any], path: list[str], text: str) -> bool:
    """Store `text` at `path`; False when a part of the path already holds a value."""
    *tables, key = path
    target: Any = values
    for table in tables:
        target = target.setdefault(table, {})
        if not isinstance(target, dict):
            return False
    if key in target:
        return False
    target[key] = Text(text)
    return True
