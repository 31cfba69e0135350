"""What is wrong with a file of secrets. Codes MAG-VAULT-040 to -047.

Invariant: no text here holds a value, nor a line of a file: places are line numbers, and names that are names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from magmobo.contracts.errors import MagError

_SHOWN = 20


class SecretFileError(MagError):
    """A file of secrets cannot be read: it is not there, not readable, too large or not text. Nothing was imported."""

    code = "MAG-VAULT-040"
    http_status = 422
    remedy = "Correct what the text names: the path, its permissions, or split a file that is too large."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class SecretFileMalformed(SecretFileError):
    """A file of secrets does not follow its format. Nothing was imported."""

    code = "MAG-VAULT-041"
    remedy = "Correct the named lines; if it is another kind of file, say so with --format."

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(path, summed_up(problems))
        self.args = (path, problems)
        self.problems = problems


class SecretNamesRefused(SecretFileError):
    """Keys of the file do not make names of secrets, or two of them make the same one. Nothing was imported."""

    code = "MAG-VAULT-042"
    remedy = "Rename the keys: a name is letters, digits, dots, dashes and underscores, at most 100, in lower case."

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(path, summed_up(problems))
        self.args = (path, problems)
        self.problems = problems


class IdentityNeeded(SecretFileError):
    """The file is encrypted with age, and no identity that could open it was given."""

    code = "MAG-VAULT-043"
    remedy = "Name the file with the age identity (`AGE-SECRET-KEY-…`) by --identity."


class IdentityWrong(SecretFileError):
    """The given identity does not open the file: it is encrypted for others, or with a passphrase."""

    code = "MAG-VAULT-044"
    remedy = "Name another identity by --identity, or have the file encrypted for `age-keygen -y IDENTITY` too."


class SecretFileTampered(SecretFileError):
    """The file was changed after it was encrypted, or damaged: what it says is not authentic. Nothing was imported."""

    code = "MAG-VAULT-045"
    remedy = "Get the file from where it comes from again. One merged by hand: let its owner save it anew with `sops`."


class SecretFileUnsupported(SecretFileError):
    """The file is encrypted in a way that MagMoBo does not read."""

    code = "MAG-VAULT-046"
    remedy = "Add an age recipient to the file, or decrypt it with its own tool and import what that prints as .env."


class ExtraMissing(MagError):
    """Reading this kind of file needs a package that is not installed."""

    code = "MAG-VAULT-047"
    remedy = "Install it into the environment that runs `mag`."

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)
        self.what, self.extra = what, extra

    def __str__(self) -> str:
        return f"{self.what} needs the extra `{self.extra}`"

    def next_step(self) -> str:
        """The command that installs it."""
        return f"pip install 'magmobo[{self.extra}]' in the environment that runs `mag`."


def summed_up(problems: Sequence[str]) -> str:
    """All of them in one line, or the first and how many more there are."""
    shown = "; ".join(problems[:_SHOWN])
    return shown if len(problems) <= _SHOWN else f"{shown}; and {len(problems) - _SHOWN} more"
