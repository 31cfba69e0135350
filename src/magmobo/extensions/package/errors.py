"""What manifests, packages, versions, settings and key files are refused for, and commands about them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from magmobo.contracts.errors import MagError

_SHOWN = 20


class Problem(Struct, frozen=True, order=True):
    """One mistake: `path` is where (`$.hooks[0].point`), `reason` what is wrong and what would be right."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def _joined(problems: Sequence[Problem | str]) -> str:
    said = "; ".join(map(str, problems[:_SHOWN]))
    return said + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")


class ManifestRefused(MagError):
    """The manifest of an extension does not say what a manifest may say; every mistake is named at once."""

    code = "MAG-EXT-160"
    exit_code = 5
    http_status = 422
    remedy = "Correct what is named; `mag extension:validate` shows it all, docs/extension-package.md every field."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return f"the manifest is not valid: {_joined(self.problems)}"


class PackageRefused(MagError):
    """A file is no package as `mag extension:pack` makes them, or not the one that was signed; nothing of it was
    unpacked.
    """

    code = "MAG-EXT-161"
    exit_code = 5
    http_status = 422
    remedy = "Get the package again from its author; who made it packs it anew with `mag extension:pack`."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the package is refused: {self.reason}"


class PackageUnsigned(MagError):
    """A package carries no signature, so nobody vouches for it."""

    code = "MAG-EXT-162"
    exit_code = 6
    http_status = 403
    remedy = "Sign it: `mag extension:keygen`, then `mag extension:sign FILE --key KEYFILE`."

    def __str__(self) -> str:
        return "the package is not signed"


class SignatureRefused(MagError):
    """The signature of a package is not one of its index by the key that it names: somebody changed it."""

    code = "MAG-EXT-163"
    exit_code = 6
    http_status = 403
    remedy = "Do not use it. Get the package again from its author, and ask them whether the key is theirs."

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"the package's signature does not fit its content and key {self.key_id}"


class SignerUnknown(MagError):
    """A package is signed with a key that this node does not trust."""

    code = "MAG-EXT-164"
    exit_code = 6
    http_status = 403
    remedy = "If you know whose key it is and trust them: `mag extension:trust` with their public key."

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"the package is signed with key {self.key_id}, which is not trusted here"


class UpgradeRefused(MagError):
    """A package cannot take the place of the installed version: another extension, another signer, or an older one."""

    code = "MAG-EXT-165"
    exit_code = 6
    http_status = 409
    remedy = "An older version comes back with `mag extension:rollback`; another signer needs an uninstall first."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"this is no upgrade: {self.reason}"


class UnpackFailed(MagError):
    """The files of a package could not be written to the data folder; none of them counts."""

    code = "MAG-EXT-166"
    http_status = 503
    retryable = True
    remedy = "Look at the named reason: room on the disk, owner and mode of the data folder. Then try again."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"the package was not unpacked to {self.path}: {self.reason}"


class UnpackedChanged(MagError):
    """The unpacked files of an extension are not those of its package any more; it is not started."""

    code = "MAG-EXT-167"
    http_status = 500
    remedy = "Find out who changed files in the data folder; enabling the extension again unpacks it anew."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} is not as its package has it: {self.reason}"


class VersionInvalid(MagError):
    """A version is not a semantic version, or a range of versions is not one that we read."""

    code = "MAG-EXT-168"
    exit_code = 5
    http_status = 422
    remedy = "Versions are like 1.4.0 or 2.0.0-rc.1; ranges like ^1.4, ~1.4.2, >=1.2 <3, 1.x or 2, joined by ||."

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(text, expected)
        self.text, self.expected = text, expected

    def __str__(self) -> str:
        return f"{self.text[:60]!r} is no {self.expected}"


class RequirementsUnmet(MagError):
    """An extension asks for a version of the node or for other extensions that are not there, or cannot be beside one
    that is.
    """

    code = "MAG-EXT-169"
    exit_code = 5
    http_status = 409
    remedy = "Install, upgrade or disable what is named; `mag extension:list` shows what is there."

    def __init__(self, extension: str, problems: Sequence[str]) -> None:
        super().__init__(extension, problems)
        self.extension, self.problems = extension, tuple(problems)

    def __str__(self) -> str:
        return f"{self.extension} cannot run here: {'; '.join(self.problems)}"


class SettingsRefused(MagError):
    """Settings of an extension are not as its manifest describes them; nothing was changed."""

    code = "MAG-EXT-170"
    exit_code = 5
    http_status = 422
    remedy = "Correct what is named; `mag extension:show ID` shows the settings there are."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        # The place behind, because "secret: …" looks like a secret to whoever hides those.
        said = [one.reason if one.path == "$" else f"{one.reason} (at {one.path})" for one in self.problems]
        return f"the settings are not valid: {_joined(said)}"


class KeyRefused(MagError):
    """A key file or key text is not one of ours, or others could read a private key."""

    code = "MAG-EXT-171"
    exit_code = 5
    http_status = 422
    remedy = "`mag extension:keygen FILE` makes a pair in new files; a private key's file is yours alone (chmod 600)."

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason

    def __str__(self) -> str:
        return f"{self.place} cannot be used as a key: {self.reason}"


class PackFailed(MagError):
    """A folder cannot be made into a package; no file was written."""

    code = "MAG-EXT-172"
    exit_code = 5
    remedy = "Correct what is named; docs/extension-package.md says what a package may hold."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} cannot be packed: {self.reason}"


class ScaffoldRefused(MagError):
    """A new extension cannot be written there, or under that name; nothing that was there was changed."""

    code = "MAG-EXT-173"
    exit_code = 2
    remedy = "Choose a name such as delay-alerts and a folder that is not there yet (--folder)."

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"no extension was made at {self.what}: {self.reason}"


class PytestMissing(MagError):
    """The tests of an extension cannot be run: pytest is not installed beside this program."""

    code = "MAG-EXT-174"
    exit_code = 2
    remedy = "Install it into the environment that `mag` runs in: pip install pytest. Then try again."

    def __str__(self) -> str:
        return "the tests were not run: there is no pytest"
