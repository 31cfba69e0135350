"""The points where extensions take part in realtime, by what they are for.

Boundary: names only. `questions` asks before a subscription, `broadcasts` before a message; the plane tells the rest.
"""

from __future__ import annotations

from magmobo.contracts.hooks import BroadcastContext, ChannelContext, HookPoint, Hooks


class RealtimeHooks:
    """One attribute a point. Whoever reads one tests its `chain` at each operation."""

    __slots__ = ("after_broadcast", "before_broadcast", "register", "subscribe", "unsubscribe")

    def __init__(self, hooks: Hooks) -> None:
        self.register: HookPoint[ChannelContext] = hooks.point("realtime.register_channel")
        self.subscribe: HookPoint[ChannelContext] = hooks.point("realtime.subscribe_to_channel")
        self.unsubscribe: HookPoint[ChannelContext] = hooks.point("realtime.unsubscribe_from_channel")
        self.before_broadcast: HookPoint[BroadcastContext] = hooks.point("realtime.before_broadcast")
        self.after_broadcast: HookPoint[BroadcastContext] = hooks.point("realtime.after_broadcast")
