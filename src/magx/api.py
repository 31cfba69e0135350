"""What an extension may ask of the node: one small class for each part of it, as `ext.db`, `ext.kv` and so on.

Boundary: names and arguments; the node decides. Every `async` method here raises `ApiError` when the node refuses
(`RateLimited` when it was asked too often), `NoNode` outside of a worker, and `ValueError` when the arguments are
larger than a frame may be or are not what msgpack can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from magx.model import HttpResponse, NoNode


class Channel(Protocol):
    """The way to the node."""

    async def ask(self, method: str, args: Mapping[str, Any]) -> Any:
        """The node's answer. Raises: ApiError, ValueError."""
        ...

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """One line; never raises, never waits."""
        ...

    def figure(self, name: str, kind: str, value: float) -> None:
        """One figure; never raises, never waits."""
        ...


class Link:
    """The channel of one extension, once there is one, and what the node said about it last."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.settings: Mapping[str, Any] = {}
        self.capabilities: frozenset[str] = frozenset()
        self.data_dir = ""

    def there(self) -> Channel:
        """The channel. Raises: NoNode."""
        if self.channel is None:
            raise NoNode
        return self.channel

    async def ask(self, method: str, /, **args: Any) -> Any:
        """Ask the node, when there is one."""
        return await self.there().ask(method, args)


class _Part:
    def __init__(self, link: Link) -> None:
        self._link = link


class Database(_Part):
    """`ext.db`: SQL as the extension's own role. Parameters are `$1`, `$2`, … in the text, values behind it."""

    async def execute(self, sql: str, *params: Any) -> int:
        """Run one statement. Returns: how many rows it concerned."""
        rows: int = await self._link.ask("db.execute", sql=sql, params=params)
        return rows

    async def fetch(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """The rows that one statement returns, each as a map from column to value."""
        rows: list[dict[str, Any]] = await self._link.ask("db.fetch", sql=sql, params=params)
        return rows

    async def fetchval(self, sql: str, *params: Any) -> Any:
        """The first column of the first row; None when there is no row."""
        return await self._link.ask("db.fetchval", sql=sql, params=params)


class Events(_Part):
    """`ext.events`: events of its own, and its subscriptions."""

    async def publish(self, name: str, payload: Mapping[str, Any], *, key: str = "") -> str:
        """Publish an event; it is durable when this returns. Events with the same `key` keep their order for those who
        ask for it (`partition_by: data.key`). Returns: its id.
        """
        answer = await self._link.ask("events.publish", name=name, payload=payload, key=key)
        return str(answer["id"])

    async def subscribe(self, subscription: str, *, active: bool = True) -> None:
        """Pause a subscription of the manifest (`active=False`), or let it go on. What comes meanwhile waits."""
        await self._link.ask("events.subscribe", subscription=subscription, active=active)

    async def replay(self, subscription: str, *, seconds: float) -> None:
        """Have the events of the last so many seconds delivered again, at most seven days."""
        await self._link.ask("events.replay", subscription=subscription, seconds=seconds)


class Realtime(_Part):
    """`ext.realtime`: messages to clients."""

    async def broadcast(self, channels: str | Sequence[str], event: str, data: Any) -> None:
        """Send one event to the subscribers of one channel, or of several."""
        names = [channels] if isinstance(channels, str) else list(channels)
        await self._link.ask("realtime.broadcast", channels=names, event=event, data=data)


class Http(_Part):
    """`ext.http`: requests to the hosts that the manifest names. The node makes them, and follows redirects."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        json: Any = None,
        timeout_s: float = 10.0,
    ) -> HttpResponse:
        """One request; `json` instead of `body` sends what JSON can say. An answer of any status is returned."""
        sent = dict(headers or {})
        if json is not None:
            body = msgspec.json.encode(json)
            if not any(name.lower() == "content-type" for name in sent):
                sent["content-type"] = "application/json"
        packed = body.encode() if isinstance(body, str) else body
        answer = await self._link.ask(
            "http.request", method=method.upper(), url=url, headers=sent, body=packed, timeout_s=timeout_s
        )
        return msgspec.convert(answer, HttpResponse)

    async def get(self, url: str, **more: Any) -> HttpResponse:
        """`request("GET", …)`."""
        return await self.request("GET", url, **more)

    async def post(self, url: str, **more: Any) -> HttpResponse:
        """`request("POST", …)`."""
        return await self.request("POST", url, **more)


class KeyValue(_Part):
    """`ext.kv`: small values that outlive the worker."""

    async def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` when there is none."""
        answer = await self._link.ask("kv.get", key=key)
        return default if answer["value"] is None else answer["value"]

    async def put(self, key: str, value: Any) -> None:
        """Keep a value: what JSON can say, at most 64 KiB."""
        await self._link.ask("kv.put", key=key, value=value)

    async def delete(self, key: str) -> None:
        """Forget a value; one that is not there is fine."""
        await self._link.ask("kv.delete", key=key)

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 100) -> Sequence[str]:
        """Keys that begin with `prefix`, in order, those behind `after`; at most 1,000 at a time."""
        answer = await self._link.ask("kv.list", prefix=prefix, after=after, limit=limit)
        keys: Sequence[str] = answer["keys"]
        return keys


class Jobs(_Part):
    """`ext.jobs`: work for later."""

    async def enqueue(self, job: str, arguments: Mapping[str, Any] | None = None, *, delay_s: float = 0.0) -> None:
        """Have a job of the manifest run, in so many seconds at the earliest; it is noted durably when this returns."""
        await self._link.ask("jobs.enqueue", job=job, arguments=arguments or {}, delay_s=delay_s)


class Config(Mapping[str, Any]):
    """`ext.config`: the settings that count now; they may change between two calls."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getitem__(self, key: str) -> Any:
        return self._link.settings[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._link.settings)

    def __len__(self) -> int:
        return len(self._link.settings)

    async def fetch(self) -> Mapping[str, Any]:
        """Ask the node for the settings, instead of those it told last."""
        self._link.settings = await self._link.ask("config.get")
        return self._link.settings

    async def set(self, values: Mapping[str, Any]) -> None:
        """Change settings of its own, by the schema of the manifest; None takes one back. They count when this
        returns.
        """
        self._link.settings = await self._link.ask("config.set", values=values)


class Log(_Part):
    """`ext.log`: lines for `mag extension:logs`. Fields are shown beside the text."""

    def debug(self, message: str, **fields: Any) -> None:
        self._link.there().log("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._link.there().log("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._link.there().log("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._link.there().log("error", message, fields)


class Metrics(_Part):
    """`ext.metrics`: figures beside those of the node."""

    def inc(self, name: str, value: float = 1.0) -> None:
        """Add to a counter."""
        self._link.there().figure(name, "inc", value)

    def observe(self, name: str, value: float) -> None:
        """Add one value to a histogram."""
        self._link.there().figure(name, "observe", value)
