"""`Extension`: what the author's module makes one of, and binds its handlers to.

Boundary: a registry and a link to the node; it reads no file and opens nothing. The manifest decides what is asked for
and how; the decorators name the same things, and whoever loads the extension compares both (`magx.manifest`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from types import FunctionType
from typing import Any, TypeGuard, TypeVar

from magx.api import Config, Database, Events, Http, Jobs, KeyValue, Link, Log, Metrics, Realtime

F = TypeVar("F", bound=Callable[..., Any])
_ASYNC, _ANY_NUMBER = inspect.CO_COROUTINE, inspect.CO_VARARGS


class Handler:
    """One function of the author. `said` is what its decorator repeats of the manifest; `takes_one`: it wants its
    argument.
    """

    __slots__ = ("function", "is_async", "kind", "said", "takes_one")

    def __init__(self, kind: str, function: Callable[..., Any], said: Mapping[str, Any], *, may_skip: bool) -> None:
        self.kind, self.function, self.said = kind, function, said
        self.takes_one = _takes_one(kind, function, may_skip=may_skip)
        self.is_async = _is_async(function)


class Extension:
    """The extension. Its handlers are `async def` or `def`; a plain one must not wait for anything.

    `db`, `events`, `realtime`, `http`, `kv`, `jobs`, `config`, `log` and `metrics` are the node's functions, there
    while a handler runs.
    """

    def __init__(self) -> None:
        self._link = link = Link()
        self.handlers: dict[str, Handler] = {}
        self.db, self.events, self.realtime = Database(link), Events(link), Realtime(link)
        self.http, self.kv, self.jobs = Http(link), KeyValue(link), Jobs(link)
        self.config, self.log, self.metrics = Config(link), Log(link), Metrics(link)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the operator grants now; look here for a capability that the manifest calls optional."""
        return self._link.capabilities

    @property
    def data_dir(self) -> Path | None:
        """The folder of its own, whose files outlive the worker; None without a capability of the file system."""
        return Path(self._link.data_dir) if self._link.data_dir else None

    def hook(self, point: str, *, priority: int | None = None) -> Callable[[F], F]:
        """Take part at a hook point of the manifest; the handler gets a `HookCall`. `priority` repeats the manifest."""
        return self._bind("hook", f"hook:{point}", {"priority": priority})

    def on(self, subscription: str, *, where: Mapping[str, Any] | None = None) -> Callable[[F], F]:
        """Take the events of a subscription; the handler gets one `Event` at a time. `subscription` is its name in the
        manifest, or its topic; `where` repeats the manifest.
        """
        return self._bind("event", f"event:{subscription}", {"where": where})

    def gap(self, subscription: str) -> Callable[[F], F]:
        """Be told when events of a subscription may be missing, in their place in its order: the handler gets an
        `Event` whose data has `reason`, `since_s` and `until_s`. Without one, a gap is a warning in the log.
        """
        return self._bind("gap", f"gap:{subscription}")

    def endpoint(self, method: str, path: str) -> Callable[[F], F]:
        """Answer requests to `/ext/<id><path>`; the handler gets a `Request` and returns a `Response`, bytes, a text,
        or what JSON can say.
        """
        return self._bind("endpoint", f"endpoint:{method} {path}")

    def command(self, name: str) -> Callable[[F], F]:
        """Answer `mag extension:run ID NAME`; the handler gets a map of arguments and returns what JSON can say."""
        return self._bind("command", f"command:{name}", may_skip=True)

    def job(self, name: str) -> Callable[[F], F]:
        """Do the work of a job; the handler gets a `Job`. What it returns is not kept."""
        return self._bind("job", f"job:{name}", may_skip=True)

    def health(self, function: F) -> F:
        """Say how the extension is: True or nothing, a map from check to bool, or `{status, detail}` with `healthy`,
        `degraded` or `unhealthy`. The handler gets nothing.
        """
        if _arguments(function)[0] > 0:
            raise TypeError("a health handler takes no argument")
        return self._bind("health", "health", may_skip=True)(function)

    def run(self) -> None:
        """What `python extension.py` does: say which handlers there are, and who runs them."""
        for name in sorted(self.handlers):
            print(name)
        print("An extension is run by a node: try `mag extension:test` here.", file=sys.stderr)

    def _bind(
        self, kind: str, name: str, said: Mapping[str, Any] | None = None, *, may_skip: bool = False
    ) -> Callable[[F], F]:
        def bound(function: F) -> F:
            if name in self.handlers:
                raise ValueError(f"{name} has a handler already: {_name_of(self.handlers[name].function)}")
            repeated = {key: value for key, value in (said or {}).items() if value is not None}
            self.handlers[name] = Handler(kind, function, repeated, may_skip=may_skip)
            return function

        return bound


def _takes_one(kind: str, function: Callable[..., Any], *, may_skip: bool) -> bool:
    """Whether it wants its one argument. Raises: TypeError when it cannot be called so."""
    if not callable(function):
        raise TypeError(f"a handler is a function, this is {type(function).__name__}")
    least, most = _arguments(function)
    if least <= 1 <= most:
        return True
    if least > 1 or not may_skip:
        raise TypeError(f"{_name_of(function)}: a handler of kind {kind} takes one argument")
    return False


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))


def _is_plain(function: Callable[..., Any]) -> TypeGuard[FunctionType]:
    return isinstance(function, FunctionType) and not hasattr(function, "__wrapped__")


def _is_async(function: Callable[..., Any]) -> bool:
    if _is_plain(function):
        return bool(function.__code__.co_flags & _ASYNC)
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def _arguments(function: Callable[..., Any]) -> tuple[float, float]:
    """How many it can be called with, at least and at most, by position."""
    if not _is_plain(function):
        return _of_signature(function)
    code, named = function.__code__, function.__kwdefaults__ or {}
    if code.co_kwonlyargcount > len(named):
        return inf, inf
    least = code.co_argcount - len(function.__defaults__ or ())
    return least, inf if code.co_flags & _ANY_NUMBER else code.co_argcount


def _of_signature(function: Callable[..., Any]) -> tuple[float, float]:
    """As `_arguments`, of what is no plain function. `inspect.signature` alone takes half a megabyte of a worker."""
    given = list(inspect.signature(function).parameters.values())
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in given):
        return inf, inf
    placed = [one for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    least = sum(one.default is one.empty for one in placed)
    return least, inf if any(one.kind is one.VAR_POSITIONAL for one in given) else len(placed)
