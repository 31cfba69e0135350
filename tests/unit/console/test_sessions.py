"""Sessions and the login throttle: bounded, expiring, and keyed by nothing a thief could use."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from magmobo.console.sessions import (
    FAILURE_WINDOW_S,
    IDLE_S,
    LIFETIME_S,
    MAX_ADDRESSES,
    MAX_FAILURES,
    MAX_SESSIONS,
    LoginThrottle,
    Sessions,
)


class Hands:
    """A clock moved by hand."""

    now_s = 0.0

    def time_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        raise AssertionError("nobody sleeps here")


def test_the_table_holds_no_session_id() -> None:
    sessions = Sessions(Hands(), lambda: 1)
    session_id, session = sessions.open()
    assert session_id not in repr(vars(sessions))
    assert sessions.find(session_id) is session
    assert sessions.find(session_id + "x") is None
    assert sessions.find("\ud800") is None
    assert not session.csrf_matches("\ud800")
    assert session.csrf_matches(session.csrf_token)


def test_the_least_used_session_makes_room() -> None:
    sessions = Sessions(Hands(), lambda: 1)
    kept, _ = sessions.open()
    pushed_out, _ = sessions.open()
    for _ in range(MAX_SESSIONS - 1):
        sessions.find(kept)
        sessions.open()
    assert len(sessions) == MAX_SESSIONS
    assert sessions.find(kept) is not None
    assert sessions.find(pushed_out) is None


def test_the_throttle_forgets_after_its_window_and_stays_small() -> None:
    clock = Hands()
    throttle = LoginThrottle(clock)
    for _ in range(MAX_FAILURES):
        assert throttle.wait_s("a") == 0
        throttle.failed("a")
    assert throttle.wait_s("a") == FAILURE_WINDOW_S
    assert throttle.wait_s("b") == 0
    clock.now_s += FAILURE_WINDOW_S
    assert throttle.wait_s("a") == 0
    throttle.failed("a")  # four old failures are outside the window now
    assert throttle.wait_s("a") == 0
    for number in range(MAX_ADDRESSES * 2):
        throttle.failed(str(number))
    assert len(throttle._failures) == MAX_ADDRESSES


class SessionLife(RuleBasedStateMachine):
    """Whatever happens in whatever order, a session is good exactly while it is neither idle, old nor ended."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Hands()
        self.token_number = 1
        self.sessions = Sessions(self.clock, lambda: self.token_number)
        self.known: dict[str, tuple[float, float]] = {}
        self.ended: list[str] = []

    def good(self, session_id: str) -> bool:
        opened_s, used_s = self.known[session_id]
        return self.clock.now_s - used_s <= IDLE_S and self.clock.now_s - opened_s <= LIFETIME_S

    @rule()
    def open(self) -> None:
        if len(self.sessions) < MAX_SESSIONS:
            self.known[self.sessions.open()[0]] = (self.clock.now_s, self.clock.now_s)

    @rule(step_s=st.sampled_from([1.0, IDLE_S - 1, IDLE_S + 1, LIFETIME_S / 3]))
    def wait(self, step_s: float) -> None:
        self.clock.now_s += step_s

    @rule()
    def take_another_token(self) -> None:
        self.token_number += 1
        self.ended += self.known
        self.known.clear()

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        if self.known:
            session_id = data.draw(st.sampled_from(list(self.known)))
            good = self.good(session_id)
            assert (self.sessions.find(session_id) is not None) == good
            if good:
                self.known[session_id] = (self.known[session_id][0], self.clock.now_s)
            else:
                self.ended.append(session_id)
                del self.known[session_id]

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.known:
            session_id = data.draw(st.sampled_from(list(self.known)))
            self.sessions.end(session_id)
            self.ended.append(session_id)
            del self.known[session_id]

    @invariant()
    def ended_stays_ended(self) -> None:
        assert all(self.sessions.find(session_id) is None for session_id in self.ended)
        assert len(self.sessions) <= MAX_SESSIONS


TestSessionLife = SessionLife.TestCase
TestSessionLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
