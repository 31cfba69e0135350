"""The book of prepared statements against a model of the server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.magds.statements import Plan, StatementCache

KEYS = st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([b"select %d" % n for n in range(8)]))
STEP = st.tuples(KEYS, st.sampled_from(["well", "parse fails", "stale"]))


def test_the_key_includes_the_role() -> None:
    cache = StatementCache(8)
    first = cache.plan(b"a", b"select 1")
    assert first.prepared is not None
    cache.acknowledge(first.prepared)
    assert cache.plan(b"a", b"select 1") == Plan(first.prepared)
    assert cache.plan(b"b", b"select 1").parse


def test_what_is_being_parsed_runs_unnamed_meanwhile() -> None:
    cache = StatementCache(8)
    assert cache.plan(b"a", b"x").parse
    assert cache.plan(b"a", b"x") == Plan(None)


@given(st.lists(STEP, max_size=200), st.integers(1, 5), st.integers(1, 4))
def test_never_uses_what_the_server_lacks_and_never_holds_more_than_its_size(
    steps: list[tuple[tuple[bytes, bytes], str]], size: int, depth: int
) -> None:
    cache = StatementCache(size)
    server: dict[bytes, tuple[bytes, bytes]] = {}
    flights: list[tuple[Plan, str]] = []

    def answer() -> None:
        plan, fate = flights.pop(0)
        entry = plan.prepared
        if entry is None:
            return
        if plan.parse and fate != "parse fails":
            cache.acknowledge(entry)
        elif plan.parse:
            cache.forget(entry, on_server=False)
        elif fate == "stale":
            cache.forget(entry, on_server=True)

    for key, fate in steps:
        plan = cache.plan(*key)
        # the server executes in the order sent, so it is as it will be when this request runs
        if plan.close is not None:
            del server[plan.close]  # KeyError: closed twice, or never there
        if plan.prepared is not None:
            if plan.parse:
                assert plan.prepared.name not in server
                if fate != "parse fails":
                    server[plan.prepared.name] = key
            else:
                assert server[plan.prepared.name] == key
        flights.append((plan, fate))
        if len(flights) >= depth:
            answer()
        assert len(cache) <= size
        assert len(server) <= size + depth + 1
