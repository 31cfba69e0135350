"""A fake kernel: runs an extension in the process of a test, without a node.

It speaks to the same session that a worker runs, in frames that are encoded and decoded, so a value that cannot travel
fails here too. What it does not have: a sandbox, deadlines, rates, and storage. It runs a loop of its own, so tests are
plain functions. Boundary: for authors' tests; nothing here is imported by a worker.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from magx import manifest as manifests
from magx import wire
from magx.contexts import POINTS
from magx.fakes import NOT_GRANTED, Answer, ApiCall, FakeNode
from magx.filters import passes, topic_matches
from magx.loading import load
from magx.model import ApiError, HookDenied, HttpResponse
from magx.session import GAP_TOPIC, Session

TIMEOUT_S = 10.0


class HandlerFailed(Exception):
    """A handler raised; the text ends with where."""

    def __init__(self, error: str, message: str, trace: str = "") -> None:
        super().__init__(error, message, trace)
        self.error, self.message, self.trace = error, message, trace

    def __str__(self) -> str:
        return f"{self.error}: {self.message}\n{self.trace}".rstrip()


class FakeKernel:
    """The node's side of one extension. `lines` is what it logged, as (level, message, fields); `figures` what it
    counted, as (name, value); `proceeded` how often an `around` hook let its operation go on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, data_dir: Path | None = None) -> None:
        """Load the extension of this folder; `data_dir` is its own folder, when its capabilities give it one.

        Raises: FileNotFoundError, Mismatch, and whatever its module raises.
        """
        found = manifests.read(str(folder))
        if found is None:
            raise FileNotFoundError(f"there is no manifest.json in {folder}")
        self.manifest, self._folder = found, folder.resolve()
        self.lines: list[tuple[str, str, Mapping[str, Any]]] = []
        self.figures: list[tuple[str, float]] = []
        self.proceeded = 0
        self._node = FakeNode(found, settings or {})
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_id = self._last_event = 0
        self._path, self._modules = list(sys.path), dict(sys.modules)
        sys.modules.pop(found.get("entry", "extension:ext").partition(":")[0], None)
        self._loop = asyncio.new_event_loop()
        try:
            self.extension = load(str(self._folder), found.get("entry", "extension:ext"))
        except BaseException:
            self.close()
            raise
        capabilities = self._node.capabilities()
        own = str(data_dir or "") if any(one.startswith("filesystem.") for one in capabilities) else ""
        self._session = Session(self._loop, self._receive, self._receive, lambda: None, longest_wait_s=0)
        start = wire.Start(
            wire.PROTOCOL, found["id"], found["version"], found.get("entry", "extension:ext"), str(self._folder),
            own, self._node.settings, capabilities,
        )  # fmt: skip
        self._session.begin(start, self.extension)

    # ------------------------------------------------------------ what a test looks at, and says

    @property
    def calls(self) -> list[ApiCall]:
        """Every question that the extension asked the node, in order."""
        return self._node.calls

    @property
    def kv(self) -> dict[str, Any]:
        """What `ext.kv` keeps; a test may put values there."""
        return self._node.kv

    @property
    def broadcasts(self) -> list[tuple[list[str], str, Any]]:
        """What was sent to clients, as (channels, event, data)."""
        return [(a["channels"], a["event"], a["data"]) for method, a in self.calls if method == "realtime.broadcast"]

    @property
    def published(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Events of its own that the extension published, as (name, payload)."""
        return [(args["name"], args["payload"]) for method, args in self.calls if method == "events.publish"]

    @property
    def statements(self) -> list[tuple[str, list[Any]]]:
        """What was run in the database, as (sql, parameters)."""
        return [(args["sql"], args["params"]) for method, args in self.calls if method.startswith("db.")]

    def answer(self, method: str, answer: Answer) -> None:
        """What the node says to questions such as `db.fetch` or `http.request` from now on: a value, an exception to
        raise (`RateLimited("MAG-EXT-142", "too many", 2.0)`), or a function of the question's arguments.
        """
        self._node.answers[method] = answer

    def configure(self, **settings: Any) -> None:
        """Change settings, as `mag extension:configure` does."""
        self._node.settings |= settings
        self._tell_settings()

    def grant(self, capability: str) -> None:
        """Grant a capability of the manifest; they all are at first."""
        if capability not in {one["name"] for one in self.manifest.get("capabilities", ())}:
            raise ValueError(f"the manifest does not ask for {capability}")
        self._node.granted.add(capability)
        self._tell_settings()

    def revoke(self, capability: str) -> None:
        """Take a capability back, as `mag extension:revoke` does."""
        self._node.granted.discard(capability)
        self._tell_settings()

    # ------------------------------------------------------------ what a test lets happen

    def hook(self, point: str, /, *, proceed_ok: bool = True, **fields: Any) -> dict[str, Any]:
        """Call the hook at this point; fields that are not given are empty. `proceed_ok`: how the operation of an
        `around` hook ends.

        Returns: the fields that it changes. Raises: HookDenied, HandlerFailed; ValueError for a field that the point
        does not have, or that may not be changed there.
        """
        spec = POINTS.get(point)
        if spec is None:
            raise ValueError(f"there is no hook point {point}; there are {', '.join(POINTS)}")
        if spec.capability not in self._node.capabilities():
            raise ValueError(f"{point} takes {spec.capability}, which the manifest does not ask for")
        known = {name: _empty(kind) for name, kind in get_type_hints(spec.context).items()}
        if unknown := set(fields) - set(known):
            raise ValueError(f"{point} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        self._proceed_ok = proceed_ok
        changed: dict[str, Any] = self._call(f"hook:{point}", {**known, **fields}) or {}
        if point != "database.health_check" and (fixed := set(changed) - spec.mutable):
            raise ValueError(f"{point} does not let a hook change {', '.join(sorted(fixed))}")
        return changed

    def event(self, subscription: str, data: Mapping[str, Any], *, event_id: str = "", tries: int = 1) -> None:
        """Deliver one event to a subscription, whatever its filter says. Raises: HandlerFailed."""
        bindings = {one["name"]: one for one in self.manifest.get("events", ())}
        self._deliver(bindings[subscription], bindings[subscription]["topic"], data, event_id, tries)

    def gap(self, subscription: str, reason: str = "overflow") -> None:
        """Tell a subscription that events of it may be missing. Raises: HandlerFailed."""
        bindings = {one["name"]: one for one in self.manifest.get("events", ())}
        facts = {"reason": reason, "since_s": 0.0, "until_s": 0.0}
        self._deliver(bindings[subscription], GAP_TOPIC, facts, "", 1)

    def emit(self, topic: str, data: Mapping[str, Any]) -> list[str]:
        """Let an event happen: it goes to every subscription whose topic, tables and filter it passes, as far as the
        extension may see it.

        Returns: the names of those. Raises: HandlerFailed.
        """
        seen = self._node.sees(topic, data)
        if seen is None:
            return []
        taken = []
        event = {"id": self._event_id(), "topic": topic, "time_s": 0.0, "data": seen}
        table = f"{data.get('schema')}.{data.get('table')}"
        for one in self.manifest.get("events", ()):
            if not topic_matches(one["topic"], topic) or (one.get("tables") and table not in one["tables"]):
                continue
            if passes(one.get("where", {}), event):
                self._deliver(one, topic, seen, str(event["id"]), 1)
                taken.append(one["name"])
        return taken

    def request(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: Any = None,
        role: str = "",
        claims: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """Ask an endpoint; without a `role` the caller is anonymous. Raises: HandlerFailed."""
        argument = {
            "method": method, "path": path, "query": query, "headers": headers or {},
            "body": msgspec.json.encode(json) if json is not None else body,
            "role": role, "claims": claims or {}, "anonymous": not role,
        }  # fmt: skip
        return msgspec.convert(self._call(f"endpoint:{method} {path}", argument), HttpResponse)

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Run a command. Returns: what it answers. Raises: HandlerFailed."""
        return self._call(f"command:{name}", {"arguments": arguments})

    def job(self, name: str, arguments: Mapping[str, Any] | None = None, *, tries: int = 1) -> None:
        """Run a job. Raises: HandlerFailed."""
        self._call(f"job:{name}", {"id": self._event_id(), "arguments": arguments or {}, "tries": tries})

    def run_jobs(self) -> int:
        """Run the jobs that wait now. Returns: how many. Raises: HandlerFailed."""
        waiting, self._node.jobs = self._node.jobs, []
        for name, arguments in waiting:
            self.job(name, arguments)
        return len(waiting)

    def health(self) -> dict[str, str]:
        """Ask how it is: `{status, detail}`. Raises: HandlerFailed."""
        answer: dict[str, str] = self._call("health", {})
        return answer

    def close(self) -> None:
        """End it: its tasks, its modules, its loop."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()
        sys.path[:] = self._path
        self._forget_modules()

    def __enter__(self) -> FakeKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ frames

    def _call(self, handler: str, argument: Mapping[str, Any]) -> Any:
        frame = wire.Call(self._next_id(), handler, int(TIMEOUT_S * 1000), wire.raw(argument))
        match self._ask(frame):
            case wire.Done(result=result):
                return wire.value(result)
            case wire.Denied(reason=reason, retry_s=retry_s):
                raise HookDenied(reason, retry_s)
            case wire.Failed(error=error, message=message, trace=trace):
                raise HandlerFailed(error, message, trace)

    def _deliver(
        self, binding: Mapping[str, Any], topic: str, data: Mapping[str, Any], event_id: str, tries: int
    ) -> None:
        item = wire.Item(event_id or self._event_id(), topic, 0.0, tries, wire.raw(data))
        frame = wire.Deliver(self._next_id(), binding["name"], int(TIMEOUT_S * 1000), [item])
        match self._ask(frame):
            case wire.Acked(failed=[(_, reason), *_]):
                error, _, message = reason.partition(": ")
                raise HandlerFailed(error, message)
            case wire.Acked(later=[_, *_]):
                raise HandlerFailed("RateLimited", self.lines[-1][2]["error"])  # said before it answered
            case wire.Failed(error=error, message=message, trace=trace):
                raise HandlerFailed(error, message, trace)

    def _ask(self, frame: wire.Call | wire.Deliver) -> Any:
        answer = self._answers[frame.id] = self._loop.create_future()

        async def asked() -> Any:
            self._say(frame)
            async with asyncio.timeout(TIMEOUT_S):
                return await answer

        return self._loop.run_until_complete(asked())

    def _say(self, frame: wire.FromNode) -> None:
        self._session.take(wire.decode_from_node(wire.encode(frame)[4:]))

    def _receive(self, sent: wire.FromWorker) -> None:
        match wire.decode_from_worker(wire.encode(sent)[4:]):
            case wire.Log(level=level, message=message, fields=fields):
                self.lines.append((level, message, fields))
            case wire.Figure(name=name, value=value):
                if "system.metrics" not in self._node.capabilities():
                    raise ApiError(NOT_GRANTED, f"the figure {name} takes system.metrics, which is not granted")
                self.figures.append((name, value))
            case wire.Proceed(id=call_id):
                self.proceeded += 1
                self._loop.call_soon(self._say, wire.Proceeded(call_id, self._proceed_ok))
            case wire.Api() as api:
                self._loop.call_soon(self._say, self._reply(api))
            case wire.Done() | wire.Denied() | wire.Failed() | wire.Acked() as answer:
                self._answers.pop(answer.id).set_result(answer)

    def _reply(self, api: wire.Api) -> wire.FromNode:
        try:
            result = self._node.answer(api)
        except ApiError as error:
            return wire.Refuse(api.id, error.code, error.message, error.retry_s)
        if api.method == "config.set":
            self._tell_settings()
        return wire.Reply(api.id, wire.raw(result))

    def _tell_settings(self) -> None:
        self._say(wire.Settings(self._node.settings, self._node.capabilities()))

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _event_id(self) -> str:
        self._last_event += 1
        return f"event-{self._last_event}"

    def _forget_modules(self) -> None:
        for name in [name for name, module in sys.modules.items() if self._is_new(name, module)]:
            del sys.modules[name]
        for name, module in self._modules.items():
            sys.modules.setdefault(name, module)

    def _is_new(self, name: str, module: object) -> bool:
        file = getattr(module, "__file__", None)
        is_ours = bool(file) and Path(str(file)).is_relative_to(self._folder)
        return is_ours and self._modules.get(name) is not module


def _empty(kind: Any) -> Any:
    """The empty value of a field's type."""
    if get_args(kind) and get_origin(kind) is not dict:
        return get_args(kind)[0]  # the first of a Literal
    return (get_origin(kind) or kind)()
