"""Commands that let extensions in and say what they may do: install, upgrade, approve, grant, revoke, trust.

Whatever gives an extension more shows what that is before it asks; a critical capability takes the extension's id,
typed.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from magmobo.cli import options
from magmobo.cli.context import ask, client_of
from magmobo.cli.errors import FileUnreadable
from magmobo.cli.extension import tell, told
from magmobo.cli.extension_text import ask_lines, key_lines
from magmobo.cli.output import echo, printable
from magmobo.contracts.extensions import (
    EXTENSION_CAPABILITIES,
    MAX_PACKAGE_BYTES,
    STAGE_CHUNK_BYTES,
    ApproveExtension,
    EnableExtension,
    ExtensionDetail,
    GrantCapability,
    InstallExtension,
    RevokeCapability,
    ShowExtension,
    Staged,
    StagePackage,
    TrustedKeys,
    TrustKeys,
    UpgradeExtension,
)

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient


class _Capability(click.ParamType[str]):
    """One that extensions can have."""

    name = "capability"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in EXTENSION_CAPABILITIES:
            import difflib

            near = difflib.get_close_matches(str(value)[:100], EXTENSION_CAPABILITIES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.fail(f"{printable(str(value)[:60])!r} is no capability{hint}", param, ctx)
        return str(value)


_id = click.argument("extension_id", metavar="ID")
_capability = click.argument("capability", type=_Capability())
_package = click.argument("file", type=click.Path(path_type=Path))


@click.command("extension:install")
@_package
@click.option("--approve", "approve_too", is_flag=True, help="Grant what it asks for, critical capabilities apart.")
@click.option("--enable", "enable_too", is_flag=True, help="Start it, when nothing waits for approval.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def install(
    file: Path,
    approve_too: bool,
    enable_too: bool,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Install the package FILE. It runs once it is approved and enabled; you are shown what it asks for."""
    client = client_of(data_dir, timeout_s)
    digest = bring(client, _bytes_of(file))
    detail = ask(client, InstallExtension(sha256=digest), ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join([f"{printable(detail.info.id)} {printable(detail.info.version)} asks for", *ask_lines(detail)]))
    if not dry_run:
        options.confirm("Install it?", yes=yes)
        detail = ask(client, InstallExtension(sha256=digest), ExtensionDetail)
        if approve_too and (harmless := _to_approve(detail)):
            wish = ApproveExtension(id=detail.info.id, capabilities=harmless, sha256=digest)
            detail = ask(client, wish, ExtensionDetail)
        if enable_too and not any(one.state == "pending" and not one.optional for one in detail.grants):
            detail = ask(client, EnableExtension(id=detail.info.id), ExtensionDetail)
    return told("extension:install", detail, "would be installed" if dry_run else "", as_json=as_json)


@click.command("extension:upgrade")
@_package
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(180.0)
@options.as_json
def upgrade(file: Path, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Upgrade an extension to the package FILE, without a pause. If it asks for more, the old version goes on until
    `extension:approve`; if it is not healthy, it goes back by itself.
    """
    client = client_of(data_dir, timeout_s)
    digest = bring(client, _bytes_of(file))
    detail = ask(client, UpgradeExtension(sha256=digest), ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join([f"{printable(detail.info.id)} would ask for", *ask_lines(detail)]))
    if not dry_run:
        options.confirm("Upgrade it?", yes=yes)
        detail = ask(client, UpgradeExtension(sha256=digest), ExtensionDetail)
    return told("extension:upgrade", detail, "would be upgraded" if dry_run else "", as_json=as_json)


@click.command("extension:approve")
@_id
@click.option(
    "--only",
    "capabilities",
    type=_Capability(),
    multiple=True,
    help="Grant this capability alone (repeat for several).",
)
@click.option("--confirm", "typed", default="", help="ID again, which a critical capability takes.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(180.0)
@options.as_json
def approve(
    extension_id: str,
    capabilities: tuple[str, ...],
    typed: str,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Grant what the extension ID, or an upgrade of it that waits, asks for. Each capability is shown with its risk
    and its author's reason.
    """
    client = client_of(data_dir, timeout_s)
    now = ask(client, ShowExtension(id=extension_id), ExtensionDetail)
    waiting = [
        one for one in now.grants if (one.capability in capabilities if capabilities else one.state == "pending")
    ]
    # What it would come to is no secret, so looking takes no confirmation.
    seen = now.pending_sha256 or now.sha256
    looking = ApproveExtension(id=extension_id, capabilities=capabilities, confirm=extension_id, sha256=seen)
    planned = ask(client, looking, ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join(_waiting_lines(replace(planned, grants=waiting))))
    if dry_run:
        return told("extension:approve", planned, "would be approved", as_json=as_json)
    if any(one.risk == "critical" for one in waiting) and not typed and not yes and sys.stdin.isatty():
        typed = click.prompt("A critical capability is among them. Type the extension's id to grant it", err=True)
    elif waiting:
        options.confirm("Grant it?", yes=yes)
    wish = ApproveExtension(id=extension_id, capabilities=capabilities, confirm=typed, sha256=seen)
    return told("extension:approve", ask(client, wish, ExtensionDetail), "", as_json=as_json)


@click.command("extension:grant")
@_id
@_capability
@click.option("--table", "tables", multiple=True, help="Only this table, schema.name or schema.name(column, …).")
@click.option("--host", "hosts", multiple=True, help="Only this host.")
@click.option("--channel", "channels", multiple=True, help="Only this channel, * allowed at its end.")
@click.option("--topic", "topics", multiple=True, help="Only this topic.")
@click.option("--rate", type=click.IntRange(1, 1_000_000), help="Calls a minute.")
@click.option("--budget", type=click.IntRange(min=1), help="Calls a day.")
@click.option("--ttl", type=options.Duration(max_s=31_536_000), help="Take it back after, such as 8h or 30d.")
@click.option("--hours", default="", help="Only at these hours in UTC, such as 09:00-17:00.")
@click.option("--confirm", "typed", default="", help="ID again, which a critical capability takes.")
@options.data_dir
@options.timeout(60.0)
@options.as_json
def grant(
    extension_id: str,
    capability: str,
    tables: tuple[str, ...],
    hosts: tuple[str, ...],
    channels: tuple[str, ...],
    topics: tuple[str, ...],
    rate: int | None,
    budget: int | None,
    ttl: float | None,
    hours: str,
    typed: str,
    data_dir: Path | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Grant ID one CAPABILITY of those it asks for, or less of it: fewer tables, a lower rate, for a time."""
    scope = {"tables": tables, "hosts": hosts, "channels": channels, "topics": topics}
    command = GrantCapability(
        id=extension_id,
        wanted=capability,
        scope={kind: names for kind, names in scope.items() if names},
        rate_per_minute=rate,
        budget_per_day=budget,
        ttl_s=ttl,
        hours=hours,
        confirm=typed,
    )
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail)
    return told("extension:grant", detail, f"{capability} granted", as_json=as_json)


@click.command("extension:revoke")
@_id
@_capability
@options.data_dir
@options.timeout(30.0)
@options.as_json
def revoke(extension_id: str, capability: str, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Take CAPABILITY back from ID; it counts from its next call on."""
    command = RevokeCapability(id=extension_id, wanted=capability)
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail)
    return told("extension:revoke", detail, f"{capability} revoked", as_json=as_json)


@click.command("extension:trust")
@click.option("--add", "key_file", type=click.Path(path_type=Path), help="Trust the public key in this file.")
@click.option("--name", default="", help="Whose it is.")
@click.option("--remove", default="", metavar="KEY", help="Trust this key no more; what it signed is disabled.")
@options.data_dir
@options.yes
@options.timeout(30.0)
@options.as_json
def trust(
    key_file: Path | None, name: str, remove: str, data_dir: Path | None, yes: bool, timeout_s: float, as_json: bool
) -> int:
    """Whose packages may be installed: show the keys, --add one, --remove one."""
    if key_file is not None and remove:
        raise click.UsageError("--add and --remove exclude each other")
    public = _text_of(key_file).strip() if key_file is not None else ""
    if public:
        options.confirm(f"Trust everything that {printable(name or public)} signs?", yes=yes, alone=False)
    if remove:
        options.confirm(f"Trust {printable(remove)} no more, and disable what it signed?", yes=yes)
    command = TrustKeys(public=public, label=name or _called(key_file), remove=remove)
    keys = ask(client_of(data_dir, timeout_s), command, TrustedKeys)
    return tell("extension:trust", keys, key_lines(keys), as_json=as_json)


def bring(client: AdminClient, data: bytes) -> str:
    """Bring a package to the node, part by part; its digest. Raises: MagError."""
    digest = sha256_of(data).hexdigest()
    with _progress(len(data)) as moved:
        for offset in range(0, len(data), STAGE_CHUNK_BYTES):
            part = data[offset : offset + STAGE_CHUNK_BYTES]
            text = b64encode(part).decode()
            ask(client, StagePackage(sha256=digest, size_bytes=len(data), offset=offset, data=text), Staged)
            moved.update(len(part))
    return digest


def _to_approve(detail: ExtensionDetail) -> tuple[str, ...]:
    """What `--approve` grants: not what takes the extension's id, typed."""
    waiting = [one for one in detail.grants if one.state == "pending"]
    return tuple(one.capability for one in waiting if one.risk != "critical")


def _waiting_lines(planned: ExtensionDetail) -> list[str]:
    name = printable(planned.info.id)
    if not planned.grants:
        return [f"nothing that {name} asks for waits for approval"]
    return [f"{name} asks for", *ask_lines(planned)]


def _progress(size_bytes: int) -> Any:
    """Drawn on a terminal alone, and only for what takes a moment."""
    hidden = not sys.stderr.isatty() or size_bytes < 20 * STAGE_CHUNK_BYTES
    return click.progressbar(length=size_bytes, label="bringing it", file=sys.stderr, hidden=hidden)


def _called(key_file: Path | None) -> str:
    return "" if key_file is None else key_file.name.removesuffix(".pub").removesuffix(".key")


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PACKAGE_BYTES + 1)
    except OSError as error:
        raise FileUnreadable(str(file), error.strerror or str(error)) from error
    if not data:
        raise FileUnreadable(str(file), "it is empty")
    if len(data) > MAX_PACKAGE_BYTES:
        raise FileUnreadable(str(file), f"it is larger than a package may be ({MAX_PACKAGE_BYTES} bytes)")
    return data


def _text_of(file: Path) -> str:
    try:
        return _bytes_of(file)[:1000].decode()
    except UnicodeDecodeError as error:
        raise FileUnreadable(str(file), "it is no text") from error
