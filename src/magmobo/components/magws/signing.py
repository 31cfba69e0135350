"""Who may subscribe and who may publish: Pusher's two HMAC signatures, compared in constant time.

A call of the HTTP API is valid for ten minutes around its timestamp and is taken once. Pusher's libraries stamp whole
seconds, so two equal events in one second carry the same signature: a repetition is taken while `REPEAT_S` since the
first have not passed. The memory of seen calls is bounded; when it is full the window shrinks, and no call is taken
twice.
Source: Pusher Channels, "Generating authentication signatures" and "HTTP API reference".
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from collections.abc import Mapping

from magmobo.components.magws.errors import BadSignature
from magmobo.contracts.secret import Secret

WINDOW_S = 600
REPEAT_S = 2.0
MAX_SEEN = 65_536


def hmac_hex(secret: Secret, text: str) -> str:
    """HMAC-SHA256 of the text, 64 lower-case hex digits."""
    return hmac.new(secret.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()


def channel_auth(key: str, secret: Secret, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """The `auth` value that admits one socket to one private channel: `key:hex`.

    >>> channel_auth("278d425bdf160c739803", Secret("7ad3773142a6692b25b8"), "1234.1234", "private-foobar")[21:37]
    '58df8b0c36d6982b'
    """
    text = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    return f"{key}:{hmac_hex(secret, text)}"


def same(given: str, expected: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def request_text(method: str, path: str, query: Mapping[str, str]) -> str:
    """What an API call signs: method, path and every query parameter but the signature, sorted."""
    pairs = sorted((k, v) for k, v in query.items() if k != "auth_signature")
    return "\n".join((method, path, "&".join(f"{k}={v}" for k, v in pairs)))


class RequestGuard:
    """Admits API calls of one app, each once."""

    def __init__(self, key: str, secret: Secret, *, max_seen: int = MAX_SEEN) -> None:
        self._key, self._secret, self._max_seen = key, secret, max_seen
        self._seen: dict[bytes, float] = {}
        self._by_time: list[tuple[int, bytes]] = []
        self._floor_s = 0

    def check(self, method: str, paths: tuple[str, ...], query: Mapping[str, str], body: bytes, now_s: float) -> None:
        """Return when the call is signed by the app, fresh, whole and new; calls that only read may be repeated.

        Args:
            paths: the spellings of the path that may have been signed (raw and percent-decoded).
            now_s: seconds since 1970 UTC.
        Raises: BadSignature, which says what is wrong and never what would be right.
        """
        if not same(query.get("auth_key", ""), self._key) or query.get("auth_version") != "1.0":
            raise BadSignature("auth_key or auth_version is missing or wrong")
        stamp = query.get("auth_timestamp", "")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or abs(now_s - int(stamp)) > WINDOW_S:
            raise BadSignature("auth_timestamp is missing or more than 600 seconds away from this server's clock")
        digest = query.get("body_md5")
        if (body or digest is not None) and not same(digest or "", hashlib.md5(body).hexdigest()):  # noqa: S324 (protocol)
            raise BadSignature("body_md5 is missing or does not match the body")
        given = query.get("auth_signature", "")
        expected = [hmac_hex(self._secret, request_text(method, path, query)) for path in paths]
        if not any(same(given, signature) for signature in expected):
            raise BadSignature("auth_signature does not match")
        if method != "GET":
            self._take_once(hashlib.sha256(given.encode()).digest()[:16], int(stamp), now_s)

    def _take_once(self, digest: bytes, stamp_s: int, now_s: float) -> None:
        first_s = self._seen.get(digest)
        if first_s is not None:
            if now_s - first_s > REPEAT_S:
                raise BadSignature("this call was made before")
            return
        if stamp_s <= self._floor_s:
            raise BadSignature("auth_timestamp is too old for the number of calls being made")
        self._seen[digest] = now_s
        heapq.heappush(self._by_time, (stamp_s, digest))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Drop calls too old to be taken again; drop the oldest above the bound, and take nothing as old any more."""
        while self._by_time and (len(self._by_time) > self._max_seen or self._by_time[0][0] < now_s - WINDOW_S - 1):
            stamp_s, digest = heapq.heappop(self._by_time)
            self._floor_s = max(self._floor_s, stamp_s)
            del self._seen[digest]
