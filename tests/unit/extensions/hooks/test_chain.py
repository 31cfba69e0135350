"""How each phase runs through a chain: order, changes, who decides, who is left out. Workers are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct
from tests.integration.extensions.mediation import Mediation, grant, installed, mediation, until

from magmobo.contracts.errors import HookDenied, HookUnavailable
from magmobo.contracts.hooks import HookContext, HookPoint, HookSpec, Phase
from magmobo.extensions.hooks import telling
from magmobo.extensions.hooks.breaker import FAILURES
from magmobo.extensions.hooks.router import HookRouter
from magmobo.extensions.installed import Grant, Installed, Question
from magmobo.extensions.workers.errors import CallTimedOut, HandlerDenied, HandlerFailed, WorkerEnded
from magx import wire


class Note(HookContext, frozen=True, kw_only=True):
    text: str
    number: int = 0


SPECS = {
    "plain": HookSpec("plain", "x", Phase.BEFORE, Note, "system.metrics", "", mutable=("text",)),
    "guard": HookSpec("guard", "x", Phase.BEFORE, Note, "system.metrics", "", mutable=("text",), on_error="deny"),
    "first": HookSpec("first", "x", Phase.BEFORE, Note, "system.metrics", "", "first_match", ("text",)),
    "all": HookSpec("all", "x", Phase.BEFORE, Note, "system.metrics", "", "parallel"),
    "told": HookSpec("told", "x", Phase.AFTER, Note, "system.metrics", ""),
    "wrap": HookSpec("wrap", "x", Phase.AROUND, Note, "system.metrics", ""),
    "hard": HookSpec("hard", "x", Phase.AROUND, Note, "system.metrics", "", on_error="deny"),
    "instead": HookSpec("instead", "x", Phase.REPLACE, Note, "system.metrics", "", on_error="fallback"),
    "said": HookSpec("said", "x", Phase.GATHER, Note, "system.metrics", "", "parallel"),
    "later": HookSpec("later", "x", Phase.BEFORE, Note, "system.metrics", "", planned="not yet"),
}
NOTE = Note(text="a")
Move = Callable[[dict[str, Any]], Awaitable[Any]]


class Board:
    def __init__(self) -> None:
        self._points = {name: HookPoint[Any](spec) for name, spec in SPECS.items()}

    def point(self, name: str) -> HookPoint[Any]:
        return self._points[name]

    def points(self) -> list[HookPoint[Any]]:
        return list(self._points.values())


class Player:
    """A worker whose one handler is a function of the test. `proceeds` counts for around hooks."""

    def __init__(self, extension: Installed, move: Move, *, proceeds: bool = True) -> None:
        self.installed, self.move, self.proceeds = extension, move, proceeds
        self.questions: list[Question] = []
        self.lives = 1

    async def ask(self, question: Question) -> Raw:
        self.questions.append(question)
        return wire.raw(await self.move(wire.value(question.argument)))

    async def around(self, question: Question, proceed: Callable[[], Awaitable[bool]]) -> Raw:
        self.questions.append(question)
        if not self.proceeds:
            await self.move(wire.value(question.argument))
            raise HandlerFailed(self.installed.id, question.handler, "RuntimeError", "without")
        await proceed()
        return wire.raw(await self.move(wire.value(question.argument)))


class Stage:
    def __init__(self, plane: Mediation, folder: Path) -> None:
        self.plane, self.folder, self.board = plane, folder, Board()
        self.router = HookRouter(self.board, plane.gatekeeper, structlog.stdlib.get_logger())

    def play(self, name: str, point: str, move: Move, *, proceeds: bool = True, **hook: Any) -> Player:
        extension = installed(self.folder, name, "", hooks=[{"point": point, **hook}])
        player = Player(extension, move, proceeds=proceeds)
        self.router.attach(player)
        return player

    def chain(self, point: str) -> Any:
        return self.board.point(point).chain


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with mediation(tmp_path) as plane:
        yield Stage(plane, tmp_path)


def says(answer: Any) -> Move:
    async def move(context: dict[str, Any]) -> Any:
        return answer

    return move


def adds(letter: str) -> Move:
    async def move(context: dict[str, Any]) -> Any:
        return {"text": context["text"] + letter}

    return move


def denies(reason: str = "no") -> Move:
    async def move(context: dict[str, Any]) -> Any:
        raise HandlerDenied("", reason)

    return move


def fails(error: Exception | None = None) -> Move:
    async def move(context: dict[str, Any]) -> Any:
        raise error or HandlerFailed("one", "hook:plain", "ValueError", "so not")

    return move


# ---------------------------------------------------------------- before


async def test_an_empty_point_has_no_chain(stage: Stage) -> None:
    assert stage.chain("plain") is None
    stage.play("one", "plain", says(None))
    assert stage.chain("plain") is not None
    stage.router.detach("one")
    assert stage.chain("plain") is None
    stage.router.detach("one")


async def test_changes_pass_on_in_the_order_of_priority_and_then_of_names(stage: Stage) -> None:
    stage.play("low", "plain", adds("l"), priority=0)
    stage.play("b", "plain", adds("b"))
    stage.play("a", "plain", adds("a"))
    stage.play("high", "plain", adds("h"), priority=100)
    assert (await stage.chain("plain").before(NOTE)).text == "ahabl"


async def test_what_is_told_is_encoded_once_unless_it_changes(stage: Stage) -> None:
    players = [stage.play(name, "plain", says(None)) for name in ("a", "b")]
    players.append(stage.play("c", "plain", adds("c")))
    players.append(stage.play("d", "plain", says(None)))
    await stage.chain("plain").before(NOTE)
    arguments = [player.questions[0].argument for player in players]
    assert arguments[0] is arguments[1] is arguments[2]
    assert wire.value(arguments[3]) == {"text": "ac", "number": 0}


async def test_a_no_ends_it_and_names_who_said_it(stage: Stage) -> None:
    stage.play("one", "plain", denies("not today"), priority=60)
    second = stage.play("two", "plain", says(None))
    with pytest.raises(HookDenied) as caught:
        await stage.chain("plain").before(NOTE)
    denied = caught.value
    assert (denied.point, denied.extension, denied.reason) == ("plain", "one", "not today")
    assert not second.questions


@pytest.mark.parametrize(
    "error",
    [HandlerFailed("one", "h", "E", "m"), CallTimedOut("one", "h", 0.05), WorkerEnded("one", 5)],
    ids=["raised", "late", "ended"],
)
async def test_a_failure_is_skipped_or_denied_as_the_point_says(stage: Stage, error: Exception) -> None:
    for point in ("plain", "guard"):
        stage.play(f"one-{point}", point, fails(error), priority=60)
        stage.play(f"two-{point}", point, adds("b"))
    assert (await stage.chain("plain").before(NOTE)).text == "ab"
    with pytest.raises(HookUnavailable) as caught:
        await stage.chain("guard").before(NOTE)
    told = "it raised an error, which is in its log" if isinstance(error, HandlerFailed) else str(error)
    assert (caught.value.extension, caught.value.reason) == ("one-guard", told)
    assert caught.value.__cause__ is error


async def test_a_manifest_may_harden_a_point_and_never_soften_it(stage: Stage) -> None:
    stage.play("hardened", "plain", fails(), on_error="deny")
    stage.play("softened", "guard", fails(), on_error="skip")
    for point in ("plain", "guard"):
        with pytest.raises(HookUnavailable):
            await stage.chain(point).before(NOTE)


@pytest.mark.parametrize("answer", [{"number": 5}, {"text": 5}, {"other": "x"}, [1]])
async def test_an_answer_that_is_none_is_a_failure(stage: Stage, answer: Any) -> None:
    stage.play("one", "plain", says(answer), priority=60)
    stage.play("two", "plain", adds("b"))
    stage.play("three", "guard", says(answer))
    assert await stage.chain("plain").before(NOTE) == Note(text="ab")
    with pytest.raises(HookUnavailable, match="was not taken"):
        await stage.chain("guard").before(NOTE)


async def test_time_is_the_less_of_point_and_manifest(stage: Stage) -> None:
    players = [
        stage.play("less", "plain", says(None), timeout_ms=20),
        stage.play("more", "plain", says(None), timeout_ms=5000),
        stage.play("same", "plain", says(None)),
    ]
    await stage.chain("plain").before(NOTE)
    assert [player.questions[0].timeout_s for player in players] == [0.02, 0.05, 0.05]


async def test_the_first_that_changes_something_ends_a_first_match(stage: Stage) -> None:
    stage.play("silent", "first", says(None), priority=60)
    stage.play("one", "first", adds("1"), priority=50)
    third = stage.play("two", "first", adds("2"), priority=40)
    assert (await stage.chain("first").before(NOTE)).text == "a1"
    assert not third.questions


async def test_all_are_asked_at_the_same_time_and_one_no_is_a_no(stage: Stage) -> None:
    begun: list[str] = []
    everybody = asyncio.Event()

    def waits(name: str, reason: str = "") -> Move:
        async def move(context: dict[str, Any]) -> Any:
            begun.append(name)
            if len(begun) == 3:
                everybody.set()
            async with asyncio.timeout(30):
                await everybody.wait()
            if reason:
                raise HandlerDenied("", reason)

        return move

    stage.play("one", "all", waits("one"))
    stage.play("two", "all", waits("two", "second"))
    stage.play("three", "all", waits("three", "third"))
    with pytest.raises(HookDenied, match="third"):
        await stage.chain("all").before(NOTE)
    assert sorted(begun) == ["one", "three", "two"]


async def test_who_is_denied_does_not_wait_for_the_others(stage: Stage) -> None:
    ended = asyncio.Event()

    async def slow(context: dict[str, Any]) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    stage.play("one", "all", denies(), priority=60)
    stage.play("two", "all", slow)
    async with asyncio.timeout(30):
        with pytest.raises(HookDenied):
            await stage.chain("all").before(NOTE)
        await ended.wait()


# ---------------------------------------------------------------- breaker, grants


async def test_one_that_keeps_failing_is_left_alone(stage: Stage) -> None:
    broken = stage.play("one", "plain", fails(), priority=60)
    stage.play("two", "plain", adds("b"))
    guard = stage.play("three", "guard", fails())
    for _ in range(FAILURES + 3):
        assert (await stage.chain("plain").before(NOTE)).text == "ab"
        with pytest.raises(HookUnavailable):
            await stage.chain("guard").before(NOTE)
    assert len(broken.questions) == len(guard.questions) == FAILURES
    with pytest.raises(HookUnavailable, match="left alone"):
        await stage.chain("guard").before(NOTE)


@pytest.mark.parametrize("point", ["guard", "hard"])
async def test_one_that_met_a_limit_says_how_long_it_lasts_also_when_it_is_left_alone(stage: Stage, point: str) -> None:
    limited = HandlerFailed("one", "h", "RateLimited", "m", retry_s=7200.0)
    player = stage.play("one", point, fails(limited), proceeds=False)
    chain = stage.chain(point)
    for _ in range(FAILURES + 2):
        with pytest.raises(HookUnavailable) as caught:
            await (chain.before(NOTE) if point == "guard" else chain.around(NOTE, Operation()))
        assert 7100 < caught.value.retry_s <= 7200
    assert len(player.questions) == FAILURES


async def test_a_failure_that_is_no_limit_has_no_known_end(stage: Stage) -> None:
    player = stage.play("one", "guard", fails(HandlerFailed("one", "h", "RateLimited", "m", retry_s=7200.0)))
    with pytest.raises(HookUnavailable):
        await stage.chain("guard").before(NOTE)
    player.move = fails()
    with pytest.raises(HookUnavailable) as caught:
        await stage.chain("guard").before(NOTE)
    assert caught.value.retry_s == 0


async def test_it_is_tried_again_after_a_while_and_with_a_new_worker_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = stage.play("one", "plain", fails())
    for _ in range(FAILURES):
        await stage.chain("plain").before(NOTE)
    player.move = adds("b")
    assert (await stage.chain("plain").before(NOTE)).text == "a"
    monkeypatch.setattr("magmobo.extensions.hooks.binding.Breaker.lets", lambda self, now_s: True)  # time passed
    assert (await stage.chain("plain").before(NOTE)).text == "ab"
    monkeypatch.undo()
    assert (await stage.chain("plain").before(NOTE)).text == "ab", "it is closed again"
    player.move = fails()
    for _ in range(FAILURES):
        await stage.chain("plain").before(NOTE)
    player.move = adds("b")
    player.lives += 1
    assert (await stage.chain("plain").before(NOTE)).text == "ab", "another process"
    player.move = fails()
    for _ in range(FAILURES):
        await stage.chain("plain").before(NOTE)
    stage.play("one", "plain", adds("c"))
    assert (await stage.chain("plain").before(NOTE)).text == "ac"


async def test_a_no_is_no_failure(stage: Stage) -> None:
    stage.play("one", "plain", denies())
    for _ in range(FAILURES * 2):
        with pytest.raises(HookDenied):
            await stage.chain("plain").before(NOTE)


async def test_what_is_taken_back_counts_from_the_next_call(stage: Stage) -> None:
    player = stage.play("one", "guard", denies())
    with pytest.raises(HookDenied):
        await stage.chain("guard").before(NOTE)
    granted, player.installed.grants = player.installed.grants, {}
    assert await stage.chain("guard").before(NOTE) == NOTE
    player.installed.grants = granted
    with pytest.raises(HookDenied):
        await stage.chain("guard").before(NOTE)
    over: Grant = grant("system.metrics", expires_at_s=1.0)
    player.installed.grants = {"system.metrics": over}
    assert await stage.chain("guard").before(NOTE) == NOTE


# ---------------------------------------------------------------- after


async def test_telling_returns_at_once_and_reaches_everybody(stage: Stage) -> None:
    players = [stage.play(name, "told", denies() if name == "b" else says(None)) for name in ("a", "b", "c")]
    for number in range(5):
        stage.chain("told").after(Note(text="a", number=number))
    assert not players[0].questions
    await until(lambda: all(len(player.questions) == 5 for player in players))
    numbers = sorted(wire.value(question.argument)["number"] for question in players[0].questions)
    assert numbers == [0, 1, 2, 3, 4]


async def test_who_is_slow_loses_what_does_not_fit_and_it_is_counted(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def slow(context: dict[str, Any]) -> None:
        await go_on.wait()

    slow_one, quick = stage.play("slow", "told", slow), stage.play("quick", "told", says(None))
    for _ in range(telling.MAX_WAITING):
        stage.chain("told").after(NOTE)
    await until(lambda: len(quick.questions) == telling.MAX_WAITING)
    for _ in range(telling.MAX_WAITING):
        stage.chain("told").after(NOTE)
    await until(lambda: len(quick.questions) == 2 * telling.MAX_WAITING)
    assert len(slow_one.questions) == telling.AT_ONCE
    go_on.set()
    await until(lambda: len(slow_one.questions) == telling.MAX_WAITING + telling.AT_ONCE)
    records = [line for record in await stage.plane.records("extension.calls") for line in record["calls"]]
    dropped = [line for line in records if line["result"] == "dropped"]
    assert sum(line["count"] for line in dropped) == telling.MAX_WAITING - telling.AT_ONCE
    assert {line["extension"] for line in dropped} == {"slow"}


# ---------------------------------------------------------------- around


class Operation(Struct):
    times: int = 0
    error: Exception | None = None

    async def __call__(self) -> str:
        self.times += 1
        if self.error is not None:
            raise self.error
        return "done"


async def test_an_operation_runs_once_inside_of_all(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        stage.play(name, "wrap", says(None))
    operation = Operation()
    assert await stage.chain("wrap").around(NOTE, operation) == "done"
    assert operation.times == 1


async def test_an_error_of_the_operation_is_the_callers(stage: Stage) -> None:
    stage.play("a", "wrap", fails())
    with pytest.raises(ZeroDivisionError):
        await stage.chain("wrap").around(NOTE, Operation(error=ZeroDivisionError()))


@pytest.mark.parametrize("move", [fails(), denies()], ids=["fails", "denies"])
async def test_once_it_ran_no_hook_changes_how_it_ended(stage: Stage, move: Move) -> None:
    stage.play("a", "hard", move)
    operation = Operation()
    assert await stage.chain("hard").around(NOTE, operation) == "done"
    assert operation.times == 1


async def test_a_hook_that_does_not_let_it_go_on_is_skipped_or_denies(stage: Stage) -> None:
    stage.play("a", "wrap", says(None), proceeds=False)
    stage.play("b", "hard", says(None), proceeds=False)
    operation = Operation()
    assert await stage.chain("wrap").around(NOTE, operation) == "done"
    with pytest.raises(HookUnavailable):
        await stage.chain("hard").around(NOTE, operation)
    assert operation.times == 1


async def test_the_no_of_an_inner_hook_reaches_the_caller(stage: Stage) -> None:
    stage.play("outer", "wrap", says(None), priority=60)
    stage.play("inner", "wrap", denies("inside"), proceeds=False)
    operation = Operation()
    with pytest.raises(HookDenied, match="inner denied it: inside"):
        await stage.chain("wrap").around(NOTE, operation)
    assert operation.times == 0


async def test_with_nobody_who_may_it_just_runs(stage: Stage) -> None:
    player = stage.play("a", "hard", denies(), proceeds=False)
    player.installed.grants = {}
    assert await stage.chain("hard").around(NOTE, Operation()) == "done"


OUTCOMES = st.sampled_from(["goes on", "fails first", "fails later", "denies", "denies later"])


@settings(max_examples=60, deadline=None)
@given(st.lists(OUTCOMES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_it_runs_at_most_once_and_its_outcome_stands(outcomes: list[str], works: bool, hard: bool) -> None:
    async def scenario(folder: Path) -> None:
        async with mediation(folder) as plane:
            stage = Stage(plane, folder)
            point = "hard" if hard else "wrap"
            for number, outcome in enumerate(outcomes):
                move = denies() if "denies" in outcome else fails() if "fails" in outcome else says(None)
                later = outcome in ("goes on", "fails later", "denies later")
                stage.play(f"e{number}", point, move, proceeds=later, priority=100 - number)
            operation = Operation(error=None if works else ZeroDivisionError())
            stops = [outcome == "denies" or (hard and outcome == "fails first") for outcome in outcomes]
            result: Any = None
            try:
                result = await stage.chain(point).around(NOTE, operation)
            except (HookDenied, HookUnavailable):
                assert any(stops)
            except ZeroDivisionError:
                assert not works
            assert operation.times == (0 if any(stops) else 1)
            assert (result == "done") is (works and not any(stops))

    with TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


# ---------------------------------------------------------------- replace, gather


async def test_the_first_that_has_an_answer_stands_in(stage: Stage) -> None:
    stage.play("silent", "instead", says(None), priority=70)
    stage.play("broken", "instead", fails(), priority=65)
    stage.play("odd", "instead", says([1]), priority=60)
    stage.play("one", "instead", says({"a": 1}))
    stage.play("two", "instead", says({"a": 2}), priority=10)
    assert await stage.chain("instead").replace(NOTE) == {"a": 1}
    for name in ("one", "two"):
        stage.router.detach(name)
    assert await stage.chain("instead").replace(NOTE) is None


async def test_everything_that_is_said_is_gathered(stage: Stage) -> None:
    stage.play("one", "said", says({"disk": {"status": "healthy"}}))
    stage.play("silent", "said", says(None))
    for name, move in (("broken", fails()), ("odd", says(5)), ("denies", denies())):
        stage.play(name, "said", move)
    assert await stage.chain("said").gather(NOTE) == {"one": {"disk": {"status": "healthy"}}}


# ---------------------------------------------------------------- the router


async def test_another_worker_takes_the_place_in_one_step(stage: Stage) -> None:
    old = stage.play("one", "plain", adds("1"))
    chain = stage.chain("plain")
    new = Player(installed(stage.folder, "one", "", hooks=[{"point": "plain"}, {"point": "guard"}]), adds("2"))
    stage.router.swap(old, new)
    assert (await stage.chain("plain").before(NOTE)).text == "a2"
    assert (await stage.chain("guard").before(NOTE)).text == "a2"
    assert (await chain.before(NOTE)).text == "a1", "what began with the old one ends with it"
    stage.router.swap(new, old)
    assert stage.chain("guard") is None
    other = Player(installed(stage.folder, "other", ""), adds("3"))
    with pytest.raises(ValueError, match="its extension"):
        stage.router.swap(old, other)


async def test_a_placeholder_denies_what_fails_closed_and_nothing_else(stage: Stage) -> None:
    hooks = [{"point": "plain"}, {"point": "guard"}, {"point": "hard"}, {"point": "told"}]
    extension = installed(stage.folder, "one", "", hooks=hooks)
    stage.router.guard(extension)
    assert stage.chain("plain") is None
    assert stage.chain("told") is None
    with pytest.raises(HookUnavailable, match="has not started yet"):
        await stage.chain("guard").before(NOTE)
    with pytest.raises(HookUnavailable, match="has not started yet"):
        await stage.chain("hard").around(NOTE, Operation())
    stage.router.attach(Player(extension, adds("b")))
    assert (await stage.chain("guard").before(NOTE)).text == "ab"
    stage.router.detach("one")
    assert all(point.chain is None for point in stage.board.points())


async def test_a_planned_point_stays_empty(stage: Stage) -> None:
    stage.play("one", "later", denies())
    assert stage.chain("later") is None
