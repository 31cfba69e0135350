"""Commands about the whole node: `down`, `status`, `kernel:status`, `component:list`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magmobo.admin.errors import NodeRefused
from magmobo.cli import options
from magmobo.cli.context import client_for, client_of, fields_of, folder_of
from magmobo.cli.errors import StopRefused
from magmobo.cli.fast import show
from magmobo.cli.output import echo, print_json
from magmobo.cli.statuses import kernel_status_fields
from magmobo.cli.watch import repeated
from magmobo.contracts.errors import AuditUnavailable

if TYPE_CHECKING:
    from magmobo.contracts.planes import NodeStatus

# The second one is what nodes before the command bus say to every command of today: mag was updated under them.
_STOP_BY_SIGNAL = (AuditUnavailable.code, "MAG-ADMIN-002")


@click.command()
@options.data_dir
@options.timeout(60.0)
@options.as_json
def down(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Stop the node and wait until it is gone."""
    folder = folder_of(data_dir)
    try:
        pid = client_for(folder, timeout_s).stop().get("pid")
    except NodeRefused as error:
        if error.fault_code in _STOP_BY_SIGNAL:
            raise StopRefused(error.text, folder.holder_pid()) from error
        raise
    if as_json:
        print_json("down", {"pid": pid, "stopped": True})
    else:
        echo(f"the node (pid {pid}) has stopped")
    return 0


@click.command()
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def status(data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """How the node is, and its addresses. Exit 0: ready; 3: no node; 4: something is wrong."""
    return _show("status", data_dir, timeout_s, watch=watch, as_json=as_json)


@click.command("kernel:status")
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def kernel_status(data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """State of the node and of each component. Exit 0: all run; 3: no node; 4: something is wrong."""
    return _show("kernel:status", data_dir, timeout_s, watch=watch, as_json=as_json)


@click.command("component:list")
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def component_list(data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """The components, a line each. Exit as `kernel:status`."""
    return _show("component:list", data_dir, timeout_s, watch=watch, as_json=as_json)


def node_fields(node: NodeStatus) -> dict[str, Any]:
    """The fields of `kernel:status --json`; scripts rely on them."""
    return kernel_status_fields(fields_of(node))


def _show(command: str, data_dir: Path | None, timeout_s: float, *, watch: bool, as_json: bool) -> int:
    client = client_of(data_dir, timeout_s)
    return repeated(lambda: show(command, client.status(), as_json=as_json), watch=watch, as_json=as_json)
