"""How a secret gets into `mag`: from a file, through a pipe, or typed without an echo. Never as an argument, which
every user of the machine can read.

One line break at the end is not part of it, because editors and `echo` leave one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click

from magmobo.cli.errors import SecretNotRead
from magmobo.contracts.secret import Secret
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES

_STANDARD_INPUT = "standard input"


def read_secret(name: str, value_file: Path | None) -> Secret:
    """The secret `name`, from the file, else from standard input where that is no terminal, else from the keyboard.

    Raises: SecretNotRead when there is none, or more or something else than a secret can be.
    """
    if value_file is None and sys.stdin is not None and sys.stdin.isatty():
        return _typed(name)
    place = _STANDARD_INPUT if value_file is None or str(value_file) == "-" else str(value_file)
    try:
        content = _content(value_file)
    except OSError as error:
        raise SecretNotRead(place, (error.strerror or type(error).__name__).lower()) from error
    return _secret(place, content)


def _typed(name: str) -> Secret:
    typed = click.prompt(f"{name} (is not shown)", hide_input=True, confirmation_prompt="once more", err=True)
    return _secret("the keyboard", str(typed).encode(errors="surrogateescape"))


def _content(path: Path | None) -> bytes:
    """No more than says that it is too much. Raises: OSError."""
    if path is not None and str(path) != "-":
        with path.open("rb") as file:
            return _beginning(file)
    return _beginning(sys.stdin.buffer) if sys.stdin is not None else b""


def _beginning(file: BinaryIO) -> bytes:
    return file.read(MAX_SECRET_BYTES + 3)  # a line break of two, and one byte too many


def _secret(place: str, content: bytes) -> Secret:
    value = content.removesuffix(b"\n").removesuffix(b"\r") if content.endswith(b"\n") else content
    if not value:
        raise SecretNotRead(place, "it is empty")
    if len(value) > MAX_SECRET_BYTES:
        raise SecretNotRead(place, f"it is longer than {MAX_SECRET_BYTES} bytes")
    try:
        return Secret(value.decode())
    except UnicodeDecodeError as error:
        # Without the cause: a traceback of it would quote the secret.
        raise SecretNotRead(place, f"it is not UTF-8 text (byte {error.start})") from None
