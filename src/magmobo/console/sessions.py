"""Who is signed in, and how often somebody may guess. In memory, bounded, no I/O.

Invariant: the table holds hashes of session ids, so neither a dump of it nor the timing of a look-up gives one away.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256

from magmobo.contracts.clock import Clock

IDLE_S = 1_800.0
LIFETIME_S = 43_200.0
MAX_SESSIONS = 100

MAX_FAILURES = 5
FAILURE_WINDOW_S = 60.0
MAX_ADDRESSES = 1_024


class Session:
    """One signed-in browser."""

    def __init__(self, now_s: float, token_number: int) -> None:
        self.csrf_token = secrets.token_urlsafe(32)
        self.token_number = token_number
        self.opened_s = self.used_s = now_s

    def csrf_matches(self, candidate: str) -> bool:
        """Whether a request carries this session's CSRF token, compared in constant time."""
        return hmac.compare_digest(self.csrf_token.encode(), candidate.encode(errors="surrogatepass"))


class Sessions:
    """Opens, finds and ends sessions. A session ends after 30 idle minutes, after 12 hours, pushed out by 100 newer
    ones, or with the admin token that opened it.

    Args:
        token_number: `Operators.admin_token_number` now. It is asked at every look, because an event would come after
            the restarts of a reload, and not at all when that reload is taken back.
    """

    def __init__(self, clock: Clock, token_number: Callable[[], int]) -> None:
        self._clock, self._token_number = clock, token_number
        self._by_hash: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_hash)

    def open(self) -> tuple[str, Session]:
        """A new session and the id that only the browser keeps."""
        session_id, session = secrets.token_urlsafe(32), Session(self._clock.monotonic_s(), self._token_number())
        while len(self._by_hash) >= MAX_SESSIONS:
            self._by_hash.popitem(last=False)
        self._by_hash[_hash(session_id)] = session
        return session_id, session

    def find(self, session_id: str) -> Session | None:
        """The session of this id if it is still good; finding counts as use."""
        key, now_s = _hash(session_id), self._clock.monotonic_s()
        session = self._by_hash.get(key)
        if session is None:
            return None
        is_old = now_s - session.used_s > IDLE_S or now_s - session.opened_s > LIFETIME_S
        if is_old or session.token_number != self._token_number():
            del self._by_hash[key]
            return None
        session.used_s = now_s
        self._by_hash.move_to_end(key)
        return session

    def end(self, session_id: str) -> None:
        """Forget the session; unknown ids are fine."""
        self._by_hash.pop(_hash(session_id), None)

    def end_all(self) -> None:
        """Sign everybody out."""
        self._by_hash.clear()


class LoginThrottle:
    """Five wrong tokens a minute and address; remembers the last 1,024 addresses that failed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        failures = self._failures.get(address)
        if failures is None or len(failures) < MAX_FAILURES:
            return 0.0
        return max(0.0, failures[0] + FAILURE_WINDOW_S - self._clock.monotonic_s())

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        failures = self._failures.setdefault(address, deque(maxlen=MAX_FAILURES))
        failures.append(self._clock.monotonic_s())
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _hash(session_id: str) -> bytes:
    return sha256(session_id.encode(errors="surrogatepass")).digest()
