"""From options to the services that answer them; also where a crash report would go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient
    from magmobo.admin.data_folder import DataFolder
    from magmobo.node.settings import Settings

T = TypeVar("T")


def settings_of(data_dir: Path | None, dsn: str | None = None) -> Settings:
    """The settings that `mag up` would read from here. Raises: ConfigError."""
    from magmobo.node.settings import NodeOptions, read_settings

    settings = read_settings(NodeOptions(data_dir=data_dir, dsn=dsn))
    remember_log_dir(settings.folder)
    return settings


def folder_of(data_dir: Path | None) -> DataFolder:
    """The data folder that `mag up` would choose from here. Raises: ConfigError."""
    return settings_of(data_dir).folder


def remember_log_dir(folder: DataFolder) -> None:
    """An unexpected error of this command is written beside the logs of this folder."""
    click.get_current_context().meta["magmobo.log_dir"] = folder.log_dir


def ask_node(data_dir: Path | None, timeout_s: float, question: Callable[[AdminClient], Awaitable[T]]) -> T:
    """Put one question to the node of a data folder. Raises: what `AdminClient` raises, ConfigError."""
    from magmobo.admin.client import AdminClient

    client = AdminClient(folder_of(data_dir), timeout_s=timeout_s)

    async def ask() -> T:
        return await question(client)

    return asyncio.run(ask())
