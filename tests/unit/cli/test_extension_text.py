"""What people read of limits, of what is used up and of what waits."""

from __future__ import annotations

import pytest
from click import unstyle
from msgspec.structs import replace

from magmobo.cli.extension import told
from magmobo.cli.extension_text import ask_lines, detail_lines, letter_lines, upgrade_lines
from magmobo.contracts.extensions import (
    BindingInfo,
    DeadLetter,
    DeadLetters,
    ExtensionDetail,
    ExtensionInfo,
    GrantInfo,
    LimitInfo,
    UpgradeInfo,
    WaitInfo,
    Widening,
)

MIDNIGHT = "2026-11-24T00:00:00Z"
INFO = ExtensionInfo("desk", "Desk", "1.0.0", "enabled", "healthy", "high", "acme", "S3", "", 0)
WRITE = GrantInfo("database.write", "high", "granted", "", False, {}, 100, budget_per_day=50)
DETAIL = ExtensionDetail(INFO, "", "Ann", "0" * 64, [WRITE], [], [], [], {}, ["1.0.0"], 0, 0, {})
WAIT = WaitInfo("event:orders", ["database.read"], "budget", MIDNIGHT, 1)


def lines(*limits: LimitInfo, waits: tuple[WaitInfo, ...] = ()) -> list[str]:
    return [unstyle(line) for line in detail_lines(replace(DETAIL, limits=limits, waits=waits))]


def of(label: str, found: list[str]) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in found if line.startswith(f"  {label} ")]


def test_of_a_budget_is_said_what_is_spent_and_when_it_begins_anew() -> None:
    limit = LimitInfo("database.write", 100, 0, "", 50, 12, MIDNIGHT)
    assert of("used", lines(limit)) == [
        f"database.write  12 of 50 calls of today on all nodes (each tells every second), anew at {MIDNIGHT}"
    ]
    assert "calls wait for the next day" in of("used", lines(replace(limit, spent_today=50, limited="budget")))[0]


def test_of_a_rate_is_said_what_it_refused() -> None:
    assert of("used", lines(LimitInfo("database.read", 100))) == [], "nothing of what nothing happened to"
    assert of("used", lines(LimitInfo("database.read", 100, 3, "rate"))) == [
        "database.read  100 a minute, 3 refused here since the node started; calls wait for the rate"
    ]


def test_what_waits_is_said_with_the_order_that_lets_it_go_on() -> None:
    found = lines(waits=(WAIT,))
    assert of("waits", found) == [
        f"event:orders until {MIDNIGHT}: the budget of database.read is used up; 1 event behind it, none is lost"
    ]
    step = next(line for line in found if "lets it go on at once" in line)
    assert "extension:grant desk database.write --budget N" in step, "reading comes with what was granted"


def test_a_rate_is_over_by_itself() -> None:
    found = lines(waits=(WaitInfo("job:tidy", ["network.outbound"], "rate", MIDNIGHT, 4),))
    assert of("waits", found) == [
        f"job:tidy until {MIDNIGHT}: a rate of network.outbound is used up; 4 jobs behind it, none is lost"
    ]
    assert not any("lets it go on" in line for line in found)
    assert "a rate is used up" in lines(waits=(WaitInfo("job:tidy", [], "rate", MIDNIGHT, 4),))[-1]


@pytest.mark.parametrize("state", ["revoked", "pending"])
def test_nothing_is_proposed_for_what_is_not_had(state: str) -> None:
    detail = replace(DETAIL, grants=[replace(WRITE, state=state)], waits=[WAIT])
    assert not any("--budget N" in line for line in detail_lines(detail))


def test_events_that_wait_were_not_taken_and_are_no_dead_letters() -> None:
    assert list(letter_lines("desk", DeadLetters([]))) == ["every event was taken"]
    first, hint = letter_lines("desk", DeadLetters([], [WAIT]))
    assert first.startswith(f"waits: event:orders until {MIDNIGHT}")
    assert "extension:show desk" in hint
    found = list(letter_lines("desk", DeadLetters([DeadLetter(7, "a.b", MIDNIGHT, 4, "no")], [WAIT])))
    assert found[0] == first
    assert "a.b" in found[-1]


UPGRADE = UpgradeInfo(
    "2.0.0", "high", ["database.write"], [Widening("database.read", "tables", "public.prices")], ["api.emit_events"],
    [BindingInfo("hook", "api.before_request", "priority 20")],
    [BindingInfo("hook", "api.before_request", "priority 10")],
    ["public.orders", "public.prices"], ["public.prices"],
)  # fmt: skip
CHANGES = [
    "+ database.write", "+ database.read  tables public.prices", "+ hook api.before_request  priority 20",
    "- api.emit_events", "- hook api.before_request  priority 10",
]  # fmt: skip


def test_an_upgrade_that_waits_is_shown_as_what_it_changes() -> None:
    detail = replace(DETAIL, reads=["public.orders"], upgrade=UPGRADE)
    found = [unstyle(line) for line in detail_lines(detail)]
    assert of("upgrade", found) == ["to 2.0.0, up to high risk"]
    assert [line.strip() for line in found if line.strip()[:2] in ("+ ", "- ")] == CHANGES
    assert of("reads", found) == ["public.orders"], "what runs goes on as it is"
    assert found[-2:] == ["  would read  public.orders, public.prices", "  would write public.prices"]


def test_who_approves_an_upgrade_reads_what_it_would_read_not_what_it_reads_now() -> None:
    found = [unstyle(line) for line in ask_lines(replace(DETAIL, reads=["public.orders"], upgrade=UPGRADE))]
    assert not of("reads", found)
    assert [line.strip() for line in found[2:-2]] == CHANGES
    assert of("reads", [unstyle(line) for line in ask_lines(replace(DETAIL, reads=["public.orders"]))])


def test_after_an_order_an_upgrade_that_waits_is_said_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = replace(DETAIL, info=replace(INFO, pending_version="2.0.0"), upgrade=UPGRADE)
    told("extension:upgrade", waiting, "", as_json=False)
    said = capsys.readouterr()
    assert said.out == "desk 1.0.0 is enabled (2.0.0 waits)\n"
    assert "mag extension:approve desk" in said.err


def test_a_higher_rate_and_an_upgrade_that_asks_for_nothing_more_are_said() -> None:
    rate = replace(UPGRADE, widened=[Widening("database.read", "rate_per_minute", "500")])
    assert any("+ database.read  500 a minute" in line for line in upgrade_lines(rate))
    same = UpgradeInfo("2.0.0", "", [], [], [], [], [], [], [])
    assert list(upgrade_lines(same)) == ["  upgrade     to 2.0.0, asks for nothing more"]


def test_words_of_others_draw_nothing() -> None:
    evil = replace(WAIT, handler="event:\x1b[31m", capabilities=["\n"])
    upgrade = replace(UPGRADE, version="\x1b[2J", bindings_added=[BindingInfo("hook", "\n", "\x1b[0m")])
    drawn = lines(waits=(evil,)), list(letter_lines("desk", DeadLetters([], [evil]))), list(upgrade_lines(upgrade))
    for found in drawn:
        assert not any("\x1b" in line or "\n" in line for line in found)
