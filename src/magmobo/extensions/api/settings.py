"""`config.get` and `config.set`: an extension's own settings. It sees and sets no others, and none of the node's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from magmobo.extensions.installed import ApiMethod, Caller, Installed

Configure = Callable[[Installed, Mapping[str, Any]], Awaitable[None]]


class GetArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `config.get`: none."""


class SetArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `config.set`; a null takes a setting back."""

    values: Annotated[Mapping[str, Any], Meta(max_length=100)]


class SettingsMethods:
    """`configure` sets settings of an extension, as its operator would."""

    def __init__(self, configure: Configure) -> None:
        self._configure = configure

    def methods(self) -> Sequence[ApiMethod]:
        """What extensions may call."""
        return (ApiMethod("config.get", "", GetArgs, self.get), ApiMethod("config.set", "", SetArgs, self.set))

    async def get(self, caller: Caller, args: GetArgs) -> Mapping[str, Any]:
        """Its settings as they count now."""
        return dict(caller.extension.settings)

    async def set(self, caller: Caller, args: SetArgs) -> Mapping[str, Any]:
        """Set some of them; all as they count then. Raises: SettingsRefused, those of the vault."""
        await self._configure(caller.extension, args.values)
        return dict(caller.extension.settings)
