"""Commands about secrets: `vault:list`, `:set`, `:rotate`, `:remove`, `:import`, `:rekey`. None of them shows one.

They ask the node; where none runs they work on the vault themselves, because the database's password may be in it
before the first start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from magmobo.cli import options
from magmobo.cli.context import ask, client_of, fields_of, remember_log_dir, session
from magmobo.cli.output import echo, echo_error, print_json, printable
from magmobo.cli.plans import table
from magmobo.cli.secretinput import read_secret
from magmobo.cli.statuses import counted
from magmobo.contracts.commands import Command
from magmobo.contracts.errors import MagError
from magmobo.contracts.vaults import (
    ImportReport,
    ImportSecrets,
    ListSecrets,
    RekeyVault,
    RemoveSecret,
    RotateSecret,
    SecretChanged,
    SetSecret,
    VaultContents,
)

if TYPE_CHECKING:
    from magmobo.kernel.config.source import SecretRead
    from magmobo.node.settings import NodeOptions

T = TypeVar("T")

_name = click.argument("name")
_value_file = click.option(
    "--value-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Take it from this file.  [default: from a pipe, or typed without an echo]",
)


@click.command("vault:list")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def list_(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """What the vault holds: names, versions, since when, and the settings that take them."""
    contents = _asked(ListSecrets(), VaultContents, data_dir, timeout_s)
    if as_json:
        print_json("vault:list", fields_of(contents))
    else:
        echo("\n".join(contents_lines(contents)))
    return 0


@click.command("vault:set")
@_name
@_value_file
@options.data_dir
@options.timeout(120.0)
@options.as_json
def set_(name: str, value_file: Path | None, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Store the secret NAME, or a new version of it. Settings that refer to it (vault:NAME) take it at once."""
    value = read_secret(name, value_file)
    changed = _asked(SetSecret(entry=name, value=value), SecretChanged, data_dir, timeout_s)
    return _tell_changed("vault:set", changed, as_json=as_json)


@click.command("vault:rotate")
@_name
@_value_file
@click.option("--random", is_flag=True, help="Make one, of --bytes random bytes; nobody sees it.")
@click.option("--bytes", "size_bytes", type=click.IntRange(16, 128), help="How many for --random.  [default: 32]")
@click.option("--version", type=click.IntRange(min=1), help="What this older version held.")
@options.data_dir
@options.timeout(120.0)
@options.as_json
def rotate(
    name: str,
    value_file: Path | None,
    random: bool,
    size_bytes: int | None,
    version: int | None,
    data_dir: Path | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Give the secret NAME a new version; settings take it at once, and their components without a restart."""
    if sum((value_file is not None, random, version is not None)) > 1:
        raise click.UsageError("--value-file, --random and --version exclude each other")
    if size_bytes is not None and not random:
        raise click.UsageError("--bytes is for --random")
    value = None if random or version is not None else read_secret(name, value_file)
    command = RotateSecret(entry=name, value=value, version=version, size_bytes=size_bytes or 32)
    return _tell_changed("vault:rotate", _asked(command, SecretChanged, data_dir, timeout_s), as_json=as_json)


@click.command("vault:remove")
@_name
@options.data_dir
@options.yes
@options.timeout(30.0)
@options.as_json
def remove(name: str, data_dir: Path | None, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Forget the secret NAME with all its versions. Refused while a setting takes it; there is no way back."""
    options.confirm(f"{printable(name)}: Forget it with all its versions?", yes=yes, alone=False)
    left = _asked(RemoveSecret(entry=name), VaultContents, data_dir, timeout_s)
    if as_json:
        print_json("vault:remove", fields_of(left))
    else:
        echo(f"removed {printable(name)}; left:")
        echo("\n".join(contents_lines(left)))
    return 0


@click.command("vault:import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "env", "age", "sops"]),
    default="auto",
    show_default=True,
    help="What FILE is.",
)
@click.option("--identity", type=click.Path(path_type=Path), help="File with the age identity that opens FILE.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def import_(
    file: Path,
    kind: Literal["auto", "env", "age", "sops"],
    identity: Path | None,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Store the secrets of FILE, all or none: DATABASE_URL becomes database_url. FILE is read here and stays."""
    from magmobo.admin.secret_files import read_secret_file

    command = ImportSecrets(entries=read_secret_file(file, format=kind, identity=identity))
    if not dry_run and not yes and sys.stdin.isatty():
        planned = _asked(command, ImportReport, data_dir, timeout_s, dry_run=True)
        for line in report_lines(planned, dry_run=True):
            echo_error(line)
        options.confirm("Store them?", yes=yes)
    report = _asked(command, ImportReport, data_dir, timeout_s, dry_run=dry_run)
    if as_json:
        print_json("vault:import", fields_of(report))
    else:
        echo("\n".join(report_lines(report, dry_run=dry_run)))
    return 0


@click.command("vault:rekey")
@options.data_dir
@options.yes
@options.timeout(120.0)
@options.as_json
def rekey(data_dir: Path | None, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Encrypt the vault under a new key. The secrets stay as they are; older copies of the vault keep the old key."""
    options.confirm("Encrypt the vault under a new key?", yes=yes)
    contents = _asked(RekeyVault(), VaultContents, data_dir, timeout_s)
    if as_json:
        print_json("vault:rekey", fields_of(contents))
    else:
        count = counted(len(contents.secrets), "secret")
        echo(f"{count} encrypted under a new key: {printable(contents.key_source)}")
    return 0


def _owner(name: str) -> str:
    """Who takes a secret that no setting of the node refers to."""
    kind, _, rest = name.partition(".")
    return f"a setting of the extension {rest.partition('.')[0]}" if kind == "extensions" else "no setting takes it"


def contents_lines(contents: VaultContents) -> Iterator[str]:
    """The vault, then a line for each secret."""
    yield f"{printable(contents.driver)} vault, {counted(len(contents.secrets), 'secret')}; key: " + printable(
        contents.key_source
    )
    rows = [
        [
            printable(use.info.name),
            f"version {use.info.version}",
            f"{len(use.info.versions)} kept",
            printable(use.info.changed_at),
            printable(", ".join(use.keys) or _owner(use.info.name)),
        ]
        for use in contents.secrets
    ]
    yield from table(rows)


def report_lines(report: ImportReport, *, dry_run: bool) -> Iterator[str]:
    """What an import did, or would do."""
    would = "would be " if dry_run else ""
    rows = (
        (f"{would}added", report.added),
        (f"{would}given a new version", report.changed),
        ("the same already", report.same),
        (f"{would}taken at once by", report.reloaded),
    )
    for label, names in rows:
        if names:
            yield f"{label}: {printable(', '.join(names))}"


def _tell_changed(command: str, changed: SecretChanged, *, as_json: bool) -> int:
    if as_json:
        print_json(command, fields_of(changed))
        return 0
    echo(f"stored {printable(changed.info.name)}, version {changed.info.version}")
    if changed.reloaded:
        echo(f"taken at once by {_listed(changed.reloaded)}; settings version {changed.config_version} counts")
    return 0


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names))


def _asked(command: Command, reply: type[T], data_dir: Path | None, timeout_s: float, *, dry_run: bool = False) -> T:
    """The answer of the node, or of the vault itself where no node runs. Raises: MagError of whatever refuses."""
    from magmobo.admin.errors import NodeNotRunning

    try:
        return ask(client_of(data_dir, timeout_s), command, reply, dry_run=dry_run)
    except NodeNotRunning:
        answer: T = _at_rest(command, data_dir, timeout_s, dry_run=dry_run)
        return answer


def _at_rest(command: Command, data_dir: Path | None, timeout_s: float, *, dry_run: bool) -> Any:
    """As a node of this folder would answer, checked and recorded in the same way."""
    import asyncio

    from magmobo.admin.vault_offline import ask_vault
    from magmobo.cli import configfiles
    from magmobo.contracts.capabilities import Actor, Role
    from magmobo.node.settings import NodeOptions, read_settings

    who, chosen = session(), NodeOptions(data_dir=data_dir)
    settings = read_settings(chosen)
    remember_log_dir(settings.folder)
    return asyncio.run(
        ask_vault(
            settings.folder,
            configfiles.vault_section(chosen, settings),
            command,
            actor=Actor(
                name=f"uid:{os.geteuid()}",
                role=Role(who.role or Role.ADMIN),
                via="control",
                justification=who.justification,
            ),
            reads=_reads(command, chosen),
            dry_run=dry_run,
            timeout_s=timeout_s,
        )
    )


def _reads(command: Command, chosen: NodeOptions) -> Sequence[SecretRead]:
    """What the settings take from the vault. Where they are wrong that is not known, and nothing can be removed.

    Raises: MagError, for a removal alone.
    """
    from magmobo.cli.configfiles import read_here

    try:
        return read_here(chosen).checked()[1]
    except MagError:
        if isinstance(command, RemoveSecret):
            raise
        return ()
