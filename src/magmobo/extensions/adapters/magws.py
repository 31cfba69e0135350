"""Realtime for extensions: hook points `realtime.*`, and `realtime.broadcast`.

Invariant: an extension sends to channels that its grant names, never on a channel of a table and never what looks like
the protocol itself, whatever the grant says; the realtime plane checks the latter two once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.planes import Realtime
from magmobo.extensions.adapters.errors import ChannelNotGranted, ChannelReserved, MessageTooLarge
from magmobo.extensions.adapters.surface import Surface
from magmobo.extensions.api.http import Denied
from magmobo.extensions.installed import ApiMethod, Caller

SURFACE = Surface(adapter="magws", component="magws", protocols=(Realtime,), methods=("realtime.broadcast",))
CAPABILITY, METHOD = "realtime.broadcast", "realtime.broadcast"
MAX_DATA_BYTES = 65_536
MAX_CHANNELS = 100
_PRIVATE = "private-"
_RESERVED_CHANNELS = ("db.", "mag.")
_RESERVED_EVENTS = ("pusher:", "pusher_internal:", "mag:", "client-")
_Channel = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[-A-Za-z0-9_=@,.;]+(?![\s\S])")]


class BroadcastArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `realtime.broadcast`; `data` that is no text is sent as JSON."""

    channels: Annotated[Sequence[_Channel], Meta(min_length=1, max_length=MAX_CHANNELS)]
    event: Annotated[str, Meta(min_length=1, max_length=200)]
    data: Any


class RealtimeMethods:
    """What extensions may ask of realtime. `denied` as `Gatekeeper.denied`."""

    def __init__(self, realtime: Realtime, *, denied: Denied) -> None:
        self._realtime, self._denied = realtime, denied

    def methods(self) -> Sequence[ApiMethod]:
        """What extensions may call."""
        return (ApiMethod(METHOD, CAPABILITY, BroadcastArgs, self.broadcast),)

    async def broadcast(self, caller: Caller, args: BroadcastArgs) -> None:
        """Send one event to every channel, or to none where one of them is not the extension's. Who guards channels
        may keep it from some; a hook is not told of that, because its answer may be what the guard's waits for, nor is
        an extension that does one thing at a time, because that one may be what its own guard waits for.

        Raises: ChannelReserved, ChannelNotGranted, MessageTooLarge; HookDenied, HookUnavailable, Unavailable, and what
            the realtime plane refuses.
        """
        extension = caller.extension
        granted = extension.scope(CAPABILITY, "channels")
        channels = list(dict.fromkeys(args.channels))
        if args.event.startswith(_RESERVED_EVENTS):
            self._denied(extension, CAPABILITY, METHOD, "event")
            raise ChannelReserved(extension.id, f"the event {args.event}")
        for channel in channels:
            if channel.removeprefix(_PRIVATE).startswith(_RESERVED_CHANNELS):
                self._denied(extension, CAPABILITY, METHOD, "channel")
                raise ChannelReserved(extension.id, f"on channel {channel}")
            if not any(_means(entry, channel) for entry in granted):
                self._denied(extension, CAPABILITY, METHOD, "channel")
                raise ChannelNotGranted(extension.id, channel)
        text = _text(args.data)
        if caller.chain or extension.manifest.limits.concurrency == 1:
            self._realtime.publish(channels, args.event, text, origin=extension.actor)
        else:
            await self._realtime.deliver(channels, args.event, text, origin=extension.actor)


def _means(entry: str, channel: str) -> bool:
    return channel.startswith(entry[:-1]) if entry.endswith("*") else channel == entry


def _text(data: Any) -> str:
    """The text that an application receives. Raises: MessageTooLarge."""
    try:
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise MessageTooLarge(MAX_DATA_BYTES) from error
    if len(text) > MAX_DATA_BYTES or len(text.encode()) > MAX_DATA_BYTES:
        raise MessageTooLarge(MAX_DATA_BYTES)
    return text
