"""`extension:dev`: a folder in the running node, in the same sandbox as ever, brought again whenever a file changes.

Each build is a pre-release of the next patch version, signed with a key of the folder's own (`.magx/dev.key`), which
the node is asked to trust once. A build that does not work leaves the one before running, and says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from magmobo.admin.errors import NodeRefused
from magmobo.cli import options
from magmobo.cli.context import ask, client_of
from magmobo.cli.extension_admit import bring
from magmobo.cli.extension_text import ask_lines, log_line
from magmobo.cli.output import echo, echo_error, printable
from magmobo.contracts.errors import MagError
from magmobo.contracts.extensions import (
    ApproveExtension,
    EnableExtension,
    ExtensionDetail,
    ExtensionLog,
    ExtensionLogs,
    ExtensionPage,
    InstallExtension,
    ListExtensions,
    TrustedKeys,
    TrustKeys,
    UpgradeExtension,
)

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient
    from magmobo.extensions.package.keys import KeyPair

KEY_FILE = Path(".magx") / "dev.key"
_POLL_S = 0.3


@click.command("extension:dev")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--once", is_flag=True, help="Bring it once and end.")
@options.data_dir
@options.yes
@options.timeout(60.0)
def dev(folder: Path, once: bool, data_dir: Path | None, yes: bool, timeout_s: float) -> int:
    """Run the extension in FOLDER on the running node, again after every change, and show what it logs.

    It gets everything that its manifest asks for, so this is for a node of your own.
    """
    pair, client = key_of(folder), client_of(data_dir, timeout_s)
    _trust(client, pair, folder, yes=yes)
    build = _Build(client, folder, pair)
    if once:
        build.bring()
        return 0
    echo_error(f"watching {printable(str(folder.resolve()))}; Ctrl-C ends that, the extension stays")
    _follow(build)
    return 0


def key_of(folder: Path) -> KeyPair:
    """The folder's own key, made when it is not there. Raises: MagError."""
    from magmobo.extensions.package.keys import generate, read_pair, write_pair

    file = folder / KEY_FILE
    if not file.exists():
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_pair(generate(), file)
    return read_pair(file)


def next_version(version: str, build: int) -> str:
    """What a build of a folder at `version` is called: above every build before, and above the version itself."""
    from magmobo.extensions.package.versions import parse_version

    base = parse_version(version)
    bumped = base if base.prerelease else base.bump_patch()
    return f"{bumped.major}.{bumped.minor}.{bumped.patch}-dev.{build}"


def _trust(client: AdminClient, pair: KeyPair, folder: Path, *, yes: bool) -> None:
    from magmobo.extensions.package.keys import public_text

    known = ask(client, TrustKeys(), TrustedKeys)
    if any(key.key_id == pair.key_id for key in known.keys):
        return
    question = "Trust the key of this folder on the node, and grant what its builds ask for?"
    options.confirm(question, yes=yes, alone=False)
    label = f"dev of {folder.resolve().name}"[:80]
    ask(client, TrustKeys(public=public_text(pair.public), label=label), TrustedKeys)


class _Build:
    """The folder as the node has it."""

    def __init__(self, client: AdminClient, folder: Path, pair: KeyPair) -> None:
        self._client, self._folder, self._pair = client, folder, pair
        self.extension_id, self._cursor = "", 0
        self._asked: list[str] = []

    def bring(self) -> None:
        """Build, bring, approve, enable. Raises: MagError; then the node has what it had."""
        from magmobo.extensions.package.build import pack, sign
        from magmobo.extensions.package.format import read_unverified

        began_s = time.monotonic()
        number = time.time_ns() // 1_000_000
        package = sign(pack(self._folder, version=lambda written: next_version(written, number)), self._pair)
        self.extension_id = read_unverified(package).id
        self._admit(bring(self._client, package))
        detail = ask(self._client, ApproveExtension(id=self.extension_id, confirm=self.extension_id), ExtensionDetail)
        if detail.info.state != "enabled":
            detail = ask(self._client, EnableExtension(id=self.extension_id), ExtensionDetail)
        took_s = time.monotonic() - began_s
        echo(f"{printable(detail.info.id)} {printable(detail.info.version)} serves  ({took_s:.2f} s)")
        asked = list(ask_lines(detail))
        if asked and asked != self._asked:
            echo("\n".join(asked))
        self._asked = asked

    def _admit(self, digest: str) -> None:
        there = {one.id for one in ask(self._client, ListExtensions(), ExtensionPage).extensions}
        command = UpgradeExtension if self.extension_id in there else InstallExtension
        ask(self._client, command(sha256=digest), ExtensionDetail)

    def show_log(self) -> None:
        """What it logged since the last time."""
        if self.extension_id:
            wish = ExtensionLogs(id=self.extension_id, after=self._cursor, limit=200)
            page = ask(self._client, wish, ExtensionLog)
            self._cursor = page.cursor
            for line in page.lines:
                echo(log_line(line))

    def state(self) -> object:
        """Another one whenever a file that would be packed changed."""
        found = []
        for path in sorted(self._folder.rglob("*")):
            parts = path.relative_to(self._folder).parts
            if not any(part.startswith((".", "__pycache__")) for part in parts) and path.is_file():
                status = path.stat()
                found.append((parts, status.st_mtime_ns, status.st_size))
        return found


def _follow(build: _Build, sleep: Callable[[float], None] = time.sleep) -> None:
    seen: object = None
    silence = ""
    while True:
        now = build.state()
        if now != seen:
            seen = now
            _say(_tried(build.bring, "not built"))
        reason = _tried(build.show_log, "no log")
        if reason != silence:  # a node that is away is said once
            _say(reason)
            silence = reason
        sleep(_POLL_S)


def _tried(step: Callable[[], None], otherwise: str) -> str:
    """Why a step was not done; then the next change is waited for."""
    try:
        step()
    except NodeRefused as error:
        return f"not taken: {error}"
    except (MagError, OSError) as error:
        return f"{otherwise}: {error}" + (f" [{error.code}]" if isinstance(error, MagError) else "")
    return ""


def _say(reason: str) -> None:
    if reason:
        echo_error(printable(reason))
