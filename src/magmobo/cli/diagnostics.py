"""`mag diagnostics:dump`: one archive for whoever helps you. Works also when the node is down or hangs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from magmobo.admin.errors import ControlConnectionLost, NodeNotRunning, NodeRefused
from magmobo.cli import options
from magmobo.cli.context import ask, client_for, folder_of, remember_log_dir
from magmobo.cli.output import echo, echo_error, print_json, printable, shortened
from magmobo.contracts.errors import ConfigError, DeadlineExceeded

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient
    from magmobo.admin.data_folder import DataFolder
    from magmobo.contracts.operations import DiagnosticsPart

_DENIED = 6


@click.command("diagnostics:dump")
@options.data_dir
@click.option(
    "--output", type=click.Path(path_type=Path), help="A new file.  [default: mag-diagnostics-<UTC>.tar.gz here]"
)
@options.timeout(30.0)
@options.as_json
def dump(data_dir: Path | None, output: Path | None, timeout_s: float, as_json: bool) -> int:
    """Write one archive (0600): status, settings with origins, logs, events, metrics, stacks, versions, boot, audit.

    Passwords, tokens and keys are hidden; names of tables, hosts and folders are not.
    """
    from magmobo.admin.archive import folder_parts, known_secrets, masked_parts, write_archive
    from magmobo.admin.offline import examine_folder
    from magmobo.cli.audit import new_file, written_whole
    from magmobo.kernel.masking import Masker

    notes: list[str] = []
    folder = _folder(data_dir, notes)
    told = _told_by_node(client_for(folder, timeout_s), notes)
    name = f"mag-diagnostics-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    path = (output or Path(f"{name}.tar.gz")).absolute()
    with written_whole(path, new_file(path)) as file:
        masker = Masker(known_secrets(folder, Path.cwd(), os.environ))
        found = folder_parts(folder, asyncio.run(examine_folder(folder)))
        parts = masked_parts([*told, *found], masker)
        about = ["Made by `mag diagnostics:dump`. Secrets are shown as ***.", *(f"Note: {note}" for note in notes)]
        archive = write_archive(file, name, [masker.text(line) for line in about], parts)
    if as_json:
        listed = [{"name": part, "bytes": size} for part, size in archive.parts.items()]
        facts = {"file": str(path), "bytes": archive.bytes, "node_answered": bool(told), "notes": notes}
        print_json("diagnostics:dump", facts | {"parts": listed})
        return 0
    for note in notes:
        echo_error(f"mag: {printable(note)}")
    for part, size in archive.parts.items():
        echo(f"  {size / 1024:>8.1f} KiB  {part}")
    echo(f"{printable(shortened(str(path)))}  ({archive.bytes / 1024:.0f} KiB; look through it before you send it)")
    return 0


def _folder(data_dir: Path | None, notes: list[str]) -> DataFolder:
    """The data folder, also when the settings are wrong: then somebody needs the archive all the more."""
    from magmobo.admin.data_folder import DataFolder

    try:
        return folder_of(data_dir)
    except ConfigError as error:
        notes.append(f"the settings cannot be read: {error} [{error.code}]")
        folder = DataFolder(data_dir or Path("mag_data"))
        remember_log_dir(folder)
        return folder


def _told_by_node(client: AdminClient, notes: list[str]) -> Sequence[DiagnosticsPart]:
    """What the running node says; nothing, and a note, when none does, or not in time. Raises: what is a denial."""
    from magmobo.contracts.operations import Diagnostics, DiagnosticsDump, DiagnosticsPart

    try:
        diagnostics = ask(client, DiagnosticsDump(), Diagnostics)
    except NodeRefused as error:
        if error.fault_exit_code == _DENIED:
            raise
        notes.append(f"nothing from the node itself: {error.text} [{error.fault_code}]")
        return []
    except (NodeNotRunning, DeadlineExceeded, ControlConnectionLost) as error:
        notes.append(f"nothing from the node itself: {error} [{error.code}]")
        return []
    return [DiagnosticsPart(f"node/{part.name}", part.text) for part in diagnostics.parts]
