"""From options to the services that answer them; also what one run of `mag` knows beyond its command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from magmobo.contracts.errors import MagError

if TYPE_CHECKING:
    from collections.abc import Callable

    from magmobo.admin.client import AdminClient
    from magmobo.admin.data_folder import DataFolder
    from magmobo.admin.errors import NodeOfOtherVersion, NodeRefused
    from magmobo.contracts.commands import Command
    from magmobo.contracts.secret import Secret
    from magmobo.node.settings import NodeOptions, Settings

T = TypeVar("T")
UNKNOWN_FIELD = '" is unknown; '
"""How a node says that it does not know a field, in every version."""


class Session:
    """One run of `mag`. `role` and `justification` go with every command to a node; an unexpected error is written
    into `log_dir` when that is known. `hide` takes secrets out of the words of errors; by default what looks like one.
    """

    def __init__(self) -> None:
        self.log_dir: Path | None = None
        self.hide: Callable[[str], str] | None = None
        self.role = ""
        self.justification = ""


def session() -> Session:
    """Of the command that runs now."""
    return click.get_current_context().ensure_object(Session)


def insist_on_operator(command: str) -> None:
    """For commands that no node checks. Raises: RoleTooLow for who asked to be less than an operator."""
    from magmobo.cli.errors import RoleTooLow

    role = session().role
    if role in ("viewer", "developer"):
        raise RoleTooLow(role, command)


def options_of(data_dir: Path | None, dsn: str | None = None) -> NodeOptions:
    """What `mag up` would be told from here."""
    from magmobo.node.settings import NodeOptions

    return NodeOptions(data_dir=data_dir, dsn=dsn)


def settings_of(data_dir: Path | None, dsn: str | None = None) -> Settings:
    """The settings that `mag up` would read from here. Raises: ConfigError."""
    from magmobo.node.settings import read_settings

    settings = read_settings(options_of(data_dir, dsn))
    remember_log_dir(settings.folder)
    return settings


def database_of(data_dir: Path | None, dsn: str | None, settings: Settings) -> Secret | None:
    """The user's database in these settings, references followed. Raises: ConfigError, VaultUnavailable."""
    from magmobo.node.configuration import NodeConfigSource

    return NodeConfigSource(options_of(data_dir, dsn), settings, {}).dsn()


def folder_of(data_dir: Path | None) -> DataFolder:
    """The data folder that `mag up` would choose from here. Raises: ConfigError."""
    import os

    from magmobo.cli.folder import find_folder

    found = find_folder(None if data_dir is None else str(data_dir), Path.cwd(), os.environ)
    folder = settings_of(data_dir).folder if found is None else found
    remember_log_dir(folder)
    return folder


def remember_log_dir(folder: DataFolder) -> None:
    """An unexpected error of this command is written beside the logs of this folder."""
    session().log_dir = folder.log_dir


def client_of(data_dir: Path | None, timeout_s: float) -> AdminClient:
    """Who asks the node of a data folder. Raises: ConfigError."""
    return client_for(folder_of(data_dir), timeout_s)


def client_for(folder: DataFolder, timeout_s: float) -> AdminClient:
    """Who asks the node of a data folder that is known."""
    from magmobo.admin.client import AdminClient

    who = session()
    return AdminClient(folder, timeout_s=timeout_s, role=who.role, justification=who.justification)


def ask(client: AdminClient, command: Command, reply: type[T], *, dry_run: bool = False, wait_s: float = 0.0) -> T:
    """The node's reply to one command. Raises: what `AdminClient` raises; NodeOfOtherVersion."""
    import msgspec

    from magmobo.admin.errors import ControlConnectionLost, NodeRefused
    from magmobo.admin.params import params_of

    try:
        answer = client.ask(command.name, params_of(command), dry_run=dry_run, wait_s=wait_s)
    except NodeRefused as refused:
        raise _because_of_versions(client, refused) or refused from None
    try:
        return msgspec.convert(answer, reply)
    except msgspec.ValidationError as error:
        raise ControlConnectionLost("its answer is not one we understand") from error


def _because_of_versions(client: AdminClient, refused: NodeRefused) -> NodeOfOtherVersion | None:
    """What it comes from when a node does not know a command of ours, or a field of one, which were made by no user."""
    from magmobo import __version__
    from magmobo.admin.errors import NodeOfOtherVersion

    is_field = refused.fault_code == "MAG-CMD-002" and UNKNOWN_FIELD in refused.text
    if not is_field and refused.fault_code != "MAG-CMD-001":
        return None
    try:
        found = client.status().get("version")
    except MagError:
        found = None
    version = found if isinstance(found, str) else ""
    if not is_field and version in ("", __version__):
        return None  # what answers that command does not run there
    return NodeOfOtherVersion(__version__, version, f"{refused.text} [{refused.fault_code}]")


def fields_of(reply: Any) -> dict[str, Any]:
    """A reply as plain JSON values, for `--json`."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(reply)
    return found
