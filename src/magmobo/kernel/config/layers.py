"""Where settings come from: TOML files, the environment and systemd's credentials, each as one layer of plain values.

A layer remembers its origin, and a file the line of every key, so that every problem and `mag config:show --origin` can
say who set what. A file that is missing, empty or half written is an error, never an empty layer.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from magmobo.kernel.errors import ConfigFileError

MAX_FILE_BYTES = 1_048_576
MAX_DEPTH = 32
"""Tables and lists inside of each other; a section is the first."""
FILE_SUFFIX = "_FILE"
FALLBACKS = {"DATABASE_URL": ("magds", "dsn"), "PORT": ("listener", "port")}
_VARIABLE = r"MAG_([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)((?:__[A-Z0-9]+(?:_[A-Z0-9]+)*)+)"
_CREDENTIAL = "magmobo."
# A key of more parts is refused before it is parsed: that would take time with the square of their number.
_PART = rb"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = rb"(?m)(?:^|[\[{,])[ \t]*" + _PART + rb"(?:[ \t]*\.[ \t]*" + _PART + rb"){%d}" % MAX_DEPTH


class Text(str):
    """A value that is text only because its source knows nothing else (environment, command line): it is read as the
    type of the setting, lists as JSON or comma-separated.
    """

    __slots__ = ()


class Layer(Struct, frozen=True):
    """Settings of one source: section -> key -> value. `origins` names the source of single keys (`section.key`, of
    things in a list `section.key[0]`) where it is more exact than `origin`; `kind` is one of `ConfigEntry.layer`.
    """

    name: str
    origin: str
    values: dict[str, Any]
    origins: Mapping[str, str] = {}
    kind: str = "file"


def toml_layer(path: Path, name: str) -> Layer:
    """The settings of one TOML file.

    Raises: ConfigFileError when it is missing, unreadable, larger than 1 MiB, empty, not UTF-8 or not TOML.
    """
    return parsed_layer(file_content(path), path, name)


def file_content(path: Path, *, is_secret: bool = False) -> bytes:
    """What a settings file holds, at most one byte more than may be.

    Raises: ConfigFileError; of a secret file SecretsFileExposed when others than its owner may read or change it.
    """
    try:
        with _opened(path) as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if is_secret and mode & 0o077:
                from magmobo.kernel.config.errors import SecretsFileExposed

                raise SecretsFileExposed(shown_path(path), mode)
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigFileError([f"{shown_path(path)}: cannot be read ({_reason(error)})"]) from error


def _opened(path: Path) -> BinaryIO:
    """Raises: OSError; ValueError for a pipe and the like, which could hold up a start or a reload."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may have become a pipe meanwhile
    return os.fdopen(descriptor, "rb")


def shown_path(path: Path) -> str:
    """A path as a user who works in this folder would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or this folder is gone
        return str(path)


def parsed_layer(content: bytes, path: Path, name: str, kind: str = "file") -> Layer:
    """The settings in what `path` holds. Raises: ConfigFileError when it is too large, empty, not UTF-8 or not TOML."""
    shown = shown_path(path)
    if not content.strip():
        raise ConfigFileError([f"{shown}: is empty; was it half written? Remove it or put a comment in it"])
    if len(content) > MAX_FILE_BYTES:
        raise ConfigFileError([f"{shown}: is larger than {MAX_FILE_BYTES} bytes"])
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigFileError([f"{shown} line {line}: is not UTF-8 text"]) from error
    import tomllib  # 2 ms that a node without a file does not pay

    from magmobo.kernel.config.lines import lines_of

    try:
        _check_keys(content)
        values = tomllib.loads(text)
        _check_bounds(values)
        origins = {key: f"{shown} line {line}" for key, line in lines_of(text).items()}
    except tomllib.TOMLDecodeError as error:
        last = f"(at line {text.count(chr(10)) + 1}, the end of the file)"
        reason = str(error).replace("(at end of document)", last)
        raise ConfigFileError([f"{shown}: is not valid TOML: {reason}"]) from error
    except (RecursionError, ValueError) as error:  # a number that is too long is the only other ValueError
        reason = "nested too deep" if isinstance(error, RecursionError) else "a number is too long"
        raise ConfigFileError([f"{shown}: is not valid TOML: {reason}"]) from error
    return Layer(name, shown, values, origins, kind)


def _check_keys(content: bytes) -> None:
    """Raises: RecursionError for a key of too many parts."""
    if re.search(_LONG_KEY, content):
        raise RecursionError


def _check_bounds(values: Mapping[str, Any]) -> None:
    """Raises: RecursionError for what is nested too deep, ValueError for a number of more than TOML's 64 bits."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH + 1):
        inside: list[Any] = []
        for around in level:
            for value in around.values() if isinstance(around, dict) else around:
                if isinstance(value, (dict, list)):
                    inside.append(value)
                elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                    raise ValueError
        if not inside:
            return
        level = inside
    raise RecursionError


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The settings in `MAG_<SECTION>__<KEY>[__<SUBKEY>]`; `…_FILE` names a file that holds the value.

    `DATABASE_URL` and `PORT`, also with `_FILE`, stand in for `magds.dsn` and `listener.port` where the own variable is
    not set. Because of `_FILE`, no setting has a name that ends in `_file`.
    Raises: ConfigFileError for what is not text and files that cannot be read; all of them are named.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        if not (match := re.fullmatch(_VARIABLE, variable)):
            continue
        path = [match[1].lower(), *match[2].lower().split("__")[1:]]
        if len(path) > MAX_DEPTH:
            problems.append(f"{variable[:80]}…: is nested too deep")
            continue
        path[-1] = path[-1].removesuffix("_file")
        if (text := _value_of(variable, environ, problems)) is None:
            continue
        if (key := ".".join(path)) in origins or not _put(values, path, text):
            problems.append(f"{variable}: {key} is also set by {origins.get(key, 'another variable')}")
            continue
        origins[key] = f"environment {variable}"
    for name, (section, key) in FALLBACKS.items():
        if key in values.get(section, {}):
            continue
        said = [variable for variable in (name, f"{name}{FILE_SUFFIX}") if environ.get(variable)]
        if len(said) > 1:
            problems.append(f"{said[1]}: {section}.{key} is also set by {said[0]}")
        elif said and (text := _value_of(said[0], environ, problems)) is not None:
            _put(values, [section, key], text)
            origins[f"{section}.{key}"] = f"environment {said[0]}"
    if problems:
        raise ConfigFileError(problems)
    return Layer("environment", "environment", values, origins, "environment")


def _value_of(variable: str, environ: Mapping[str, str], problems: list[str]) -> str | None:
    """What a variable says, or the file that it names; None when that is a problem, which is told."""
    text = environ[variable]
    if variable.endswith(FILE_SUFFIX):
        try:
            return read_value(Path(text))
        except (OSError, ValueError) as error:
            problems.append(f"{variable}: the file it names cannot be read ({_reason(error)})")
            return None
    if not _is_unicode(text):
        problems.append(f"{variable}: is not UTF-8 text")
        return None
    return text


def credentials_layer(directory: Path) -> Layer:
    """The settings in systemd's credentials: the file `magmobo.<section>.<key>` in $CREDENTIALS_DIRECTORY holds the
    value of that key; other files are for others, and for references of the form `cred:NAME`.

    Raises: ConfigFileError; all that is wrong is named.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    try:
        names = sorted(path.name for path in directory.iterdir() if path.name.startswith(_CREDENTIAL))
    except OSError as error:
        raise ConfigFileError([f"credentials in {directory}: cannot be read ({_reason(error)})"]) from error
    for name in names:
        path = name.removeprefix(_CREDENTIAL).split(".")
        if len(path) < 2 or not all(path):
            problems.append(f"credential {name}: expected a name like magmobo.<section>.<key>")
            continue
        try:
            text = read_value(directory / name)
        except (OSError, ValueError) as error:
            problems.append(f"credential {name}: cannot be read ({_reason(error)})")
            continue
        if not _put(values, path, text):
            problems.append(f"credential {name}: another one sets the same, or a part of it")
            continue
        origins[".".join(path)] = f"credential {name}"
    if problems:
        raise ConfigFileError(problems)
    return Layer("credentials", "credentials", values, origins, "credentials")


def read_value(path: Path) -> str:
    """What a file holds that is one value, without the line end behind it. Raises: OSError, ValueError."""
    with _opened(path) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None  # the other error quotes a byte of what may be a secret


def _is_unicode(text: str) -> bool:
    """Python keeps bytes of the environment that are no UTF-8 as halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


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
