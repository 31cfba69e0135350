"""What `config:set` set: the two layers above all others, changed one key at a time, and patches
that end by themselves.

Boundary: values and waiting; whether anything may count is the reload's to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from msgspec import structs

from magmobo.contracts.clock import Clock
from magmobo.kernel.config.source import Runtime, RuntimeSetting

LOOK_EVERY_S = 30.0
"""The wall clock may be stepped, so it is looked at that often; a refused expiry is tried again after it."""


def with_setting(runtime: Runtime, key: str, setting: RuntimeSetting) -> Runtime:
    """With this setting in its layer: a patch when it expires, otherwise an override."""
    if setting.expires_at_s is None:
        return structs.replace(runtime, overrides={**runtime.overrides, key: setting})
    return structs.replace(runtime, patches={**runtime.patches, key: setting})


def without(runtime: Runtime, key: str) -> Runtime:
    """With neither an override nor a patch of this key."""
    return Runtime(overrides=_but(runtime.overrides, key), patches=_but(runtime.patches, key))


def expired(runtime: Runtime, now_s: float) -> list[str]:
    """Keys of the patches whose time is over."""
    return [key for key, patch in runtime.patches.items() if _ends_s(patch) <= now_s]


def without_expired(runtime: Runtime, now_s: float) -> Runtime:
    """With the patches that still hold."""
    over = expired(runtime, now_s)
    return structs.replace(runtime, patches={key: one for key, one in runtime.patches.items() if key not in over})


def later(runtime: Runtime) -> Iterator[Runtime]:
    """What is left of it as its patches end, one after the other."""
    for end_s in sorted({_ends_s(patch) for patch in runtime.patches.values()}):
        yield without_expired(runtime, end_s)


async def watch(clock: Clock, running: Callable[[], Runtime], expire: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call `expire` whenever a patch of `running` has ended, until cancelled or until there is no patch any more."""
    while patches := running().patches:
        left_s = min(_ends_s(patch) for patch in patches.values()) - clock.time_s()
        if left_s > 0:
            await clock.sleep(min(left_s, LOOK_EVERY_S))
            continue
        await expire()
        if expired(running(), clock.time_s()):
            await clock.sleep(LOOK_EVERY_S)


def _but(settings: Mapping[str, RuntimeSetting], key: str) -> Mapping[str, RuntimeSetting]:
    return {known: setting for known, setting in settings.items() if known != key}


def _ends_s(patch: RuntimeSetting) -> float:
    return float("inf") if patch.expires_at_s is None else patch.expires_at_s
