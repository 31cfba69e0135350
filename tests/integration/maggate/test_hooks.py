"""Extensions beside REST requests: what they are asked and told, and what of their answers counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.maggate.support import ANONYMOUS, NOW_S, Stack, bearer, call_app, load_schema, running_stack

from magmobo.contracts.errors import HookDenied, HookUnavailable
from magmobo.contracts.events import ApiResponseSent
from magmobo.contracts.hooks import ErrorContext, RequestContext, ResponseContext

QUESTIONS = ("api.rate_limit_check", "api.before_request", "api.rbac_check")


class Chain:
    """What a test puts into a point: answers with `answer`, and keeps what it was asked and told."""

    def __init__(self, answer: Callable[[Any], Any] = lambda context: context) -> None:
        self._answer = answer
        self.asked: list[Any] = []
        self.told: list[Any] = []

    async def before(self, context: Any) -> Any:
        self.asked.append(context)
        answer = self._answer(context)
        return await answer if asyncio.iscoroutine(answer) else answer

    def after(self, context: Any) -> None:
        self.told.append(context)


def put(stack: Stack, point: str, answer: Callable[[Any], Any] = lambda context: context) -> Chain:
    chain = Chain(answer)
    stack.hooks.point(point).chain = chain  # type: ignore[assignment]
    return chain


def denying(point: str) -> Callable[[Any], Any]:
    def deny(_: Any) -> Any:
        raise HookDenied(point, "night-guard", "not after dark")

    return deny


def changing(**fields: Any) -> Callable[[Any], Any]:
    return lambda context: msgspec.structs.replace(context, **fields)


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[Stack]:
    load_schema(dsn)
    config = msgspec.structs.replace(ANONYMOUS, max_body_bytes=100_000)
    async with running_stack(dsn, config) as stack:
        yield stack


async def test_an_extension_is_told_what_is_asked_and_never_who_could_ask_again(stack: Stack) -> None:
    chain = put(stack, "api.before_request")
    secrets = {"Cookie": "c", "Proxy-Authorization": "p", "apikey": "k", "X-Api-Key": "k", "X-Session-Id": "s"}
    body = '{"carrier":"QX","name":"Zed"}'
    await stack.ask("POST", "airlines?select=name", body, bearer(role="gate_user") | secrets, **{"X-Trace": "1"})

    [told] = chain.asked
    assert isinstance(told, RequestContext)
    assert (told.method, told.path, told.query, told.table) == ("POST", "/rest/v1/airlines", "select=name", "airlines")
    assert (told.role, told.anonymous, told.body, told.body_bytes) == ("gate_user", False, body, len(body))
    assert msgspec.json.decode(told.claims) == {"role": "gate_user"}
    assert told.headers == {"x-trace": "1"}
    assert told.request_id


@pytest.mark.parametrize("point", ["api.before_request", "api.rbac_check"])
async def test_a_refusal_is_403_and_names_the_extension(stack: Stack, point: str) -> None:
    put(stack, point, denying(point))
    answer = await stack.get("airlines")

    assert (answer.status, answer.json["mag_code"]) == (403, "MAG-EXT-001")
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "night-guard" in answer.json["detail"]
    assert "not after dark" in answer.json["message"]


async def test_a_guard_that_does_not_answer_is_503(stack: Stack) -> None:
    def silent(_: Any) -> Any:
        raise HookUnavailable("api.rbac_check", "night-guard", "its breaker is open")

    put(stack, "api.rbac_check", silent)
    answer = await stack.get("airlines")

    assert (answer.status, answer.json["mag_code"], answer.headers["retry-after"]) == (503, "MAG-EXT-002", "1")


async def test_a_guard_that_met_a_limit_of_the_node_says_when_it_answers_again(stack: Stack) -> None:
    def limited(_: Any) -> Any:
        raise HookUnavailable("api.rbac_check", "night-guard", "its budget is used up", 7200.4)

    put(stack, "api.rbac_check", limited)
    answer = await stack.get("airlines")

    assert (answer.status, answer.headers["retry-after"]) == (503, "7201")


async def test_too_often_is_429_and_nobody_else_is_asked(stack: Stack) -> None:
    put(stack, "api.rate_limit_check", denying("api.rate_limit_check"))
    others = [put(stack, point) for point in QUESTIONS[1:]]
    answer = await stack.get("airlines")

    assert (answer.status, answer.json["mag_code"], answer.headers["retry-after"]) == (429, "MAG-GATE-035", "1")
    assert "night-guard" in answer.json["message"]
    assert [chain.asked for chain in others] == [[], []]


@pytest.mark.parametrize(
    ("retry_s", "told"), [(0.0, "1"), (0.2, "1"), (12.0, "12"), (12.01, "13"), (86_400.0, "86400")]
)
async def test_too_often_says_when_as_the_guard_does(stack: Stack, retry_s: float, told: str) -> None:
    def deny(_: Any) -> Any:
        raise HookDenied("api.rate_limit_check", "counter", "ten a minute", retry_s)

    put(stack, "api.rate_limit_check", deny)
    answer = await stack.get("airlines")

    assert (answer.status, answer.headers["retry-after"]) == (429, told)


async def test_a_changed_query_is_what_runs_and_what_is_judged(stack: Stack) -> None:
    put(stack, "api.before_request", changing(query="carrier=eq.UA&select=carrier"))
    judge = put(stack, "api.rbac_check")
    answer = await stack.get("airlines")

    assert answer.json == [{"carrier": "UA"}]
    assert judge.asked[0].query == "carrier=eq.UA&select=carrier"


async def test_a_changed_body_is_what_is_written_and_what_is_judged(stack: Stack) -> None:
    changed = '{"carrier":"QX","name":"as the extension says: ü"}'
    put(stack, "api.before_request", changing(body=changed))
    judge = put(stack, "api.rbac_check")
    headers = bearer(role="gate_user") | {"Prefer": "return=representation"}
    answer = await stack.ask("POST", "airlines", '{"carrier":"QX","name":"as sent"}', headers)

    assert answer.json == [{"carrier": "QX", "name": "as the extension says: ü"}]
    assert (judge.asked[0].body, judge.asked[0].body_bytes) == (changed, len(changed.encode()))


async def test_fields_that_are_not_mutable_change_nothing(stack: Stack) -> None:
    put(
        stack, "api.before_request", changing(table="flights", role="gate_user", path="/rest/v1/flights", method="POST")
    )
    judge = put(stack, "api.rbac_check", changing(query="carrier=eq.none"))
    answer = await stack.get("airlines?carrier=eq.UA&select=carrier")

    assert answer.json == [{"carrier": "UA"}]
    [judged] = judge.asked
    assert (judged.table, judged.role, judged.path, judged.method) == (
        "airlines",
        "gate_anon",
        "/rest/v1/airlines",
        "GET",
    )


@pytest.mark.parametrize("body", ['{"carrier":"QX","name":"%s"}' % ("x" * 70_000), b'{"carrier":"\xff"}'])
async def test_a_body_that_is_not_shown_is_not_changed(stack: Stack, body: str | bytes) -> None:
    chain = put(stack, "api.before_request", changing(body='{"carrier":"QY","name":"blind"}'))
    await stack.ask("POST", "airlines", body, bearer(role="gate_user"))

    assert (chain.asked[0].body, chain.asked[0].body_bytes) == ("", len(body))
    assert (await stack.get("airlines?carrier=eq.QY")).json == []


async def test_a_changed_body_keeps_the_limit_of_bodies(stack: Stack) -> None:
    put(stack, "api.before_request", changing(body='{"carrier":"QX","name":"%s"}' % ("x" * 100_000)))
    answer = await stack.ask("POST", "airlines", '{"carrier":"QX","name":"n"}', bearer(role="gate_user"))

    assert (answer.status, answer.json["mag_code"]) == (413, "MAG-GATE-023")


async def test_who_may_not_ask_at_all_is_refused_before_any_extension_hears_of_it(stack: Stack) -> None:
    chains = [put(stack, point) for point in QUESTIONS]
    answer = await stack.get("airlines", {"Authorization": "Bearer forged.token.here"})

    assert answer.status == 401
    assert [chain.asked for chain in chains] == [[], [], []]


async def test_an_answered_request_is_told_with_its_status_and_size(stack: Stack) -> None:
    chain = put(stack, "api.after_request")
    good = await stack.get("airlines?carrier=eq.UA", {"X-Request-Id": "r-1"})
    await stack.get("nothing")

    first, second = chain.told
    assert isinstance(first, ResponseContext)
    assert (first.request_id, first.method, first.path, first.table) == ("r-1", "GET", "/rest/v1/airlines", "airlines")
    assert (first.role, first.status, first.body_bytes, first.duration_s) == ("gate_anon", 200, len(good.body), 0.0)
    assert (second.status, second.table) == (404, "nothing")


async def test_a_failure_is_told_as_the_client_reads_it(stack: Stack, dsn: str) -> None:
    chain = put(stack, "api.on_error")
    refused = await stack.get("nothing")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("alter table airlines rename to gone")
    broken = await stack.get("airlines")
    await stack.get("flights?select=id&limit=1")

    first, second = chain.told
    assert isinstance(first, ErrorContext)
    assert (first.status, first.code, first.message) == (404, refused.json["mag_code"], refused.json["message"])
    assert (second.path, second.status) == ("/rest/v1/airlines", broken.status)


async def test_the_event_is_emitted_while_somebody_listens(stack: Stack) -> None:
    heard: list[ApiResponseSent] = []
    await stack.get("airlines")
    subscription = stack.bus.on(ApiResponseSent, lambda envelope: heard.append(envelope.data))
    await stack.get("airlines", bearer(role="gate_user"))
    subscription.cancel()
    await stack.get("airlines")

    assert heard == [ApiResponseSent("GET", "/rest/v1/airlines", 200, 0.0, "gate_user")]
    assert stack.clock.time_s() == NOW_S


async def test_a_point_emptied_between_two_requests_is_asked_no_more(stack: Stack) -> None:
    put(stack, "api.rbac_check", denying("api.rbac_check"))
    refused = await stack.get("airlines")
    stack.hooks.point("api.rbac_check").chain = None
    allowed = await stack.get("airlines")

    assert (refused.status, allowed.status) == (403, 200)


async def test_a_client_that_leaves_takes_its_question_with_it(stack: Stack) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def wait(context: Any) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    put(stack, "api.before_request", wait)
    told = put(stack, "api.after_request")
    scope = {"type": "http", "method": "GET", "path": "/rest/v1/airlines", "raw_path": b"/rest/v1/airlines",
             "query_string": b"", "headers": []}  # fmt: skip

    async def receive() -> Any:
        await asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there to be answered")

    async with asyncio.timeout(30):
        await stack.app(scope, receive, send)
    assert ended.is_set()
    assert told.told == []
    assert await stack.app.drain(1)


async def test_preflights_and_options_are_asked_of_nobody(stack: Stack) -> None:
    chains = [put(stack, point) for point in QUESTIONS]
    scope = {"type": "http", "method": "OPTIONS", "path": "/rest/v1/airlines", "raw_path": b"/rest/v1/airlines",
             "query_string": b"", "headers": []}  # fmt: skip
    answer = await call_app(stack.app, scope, [])

    assert answer.status == 200
    assert [chain.asked for chain in chains] == [[], [], []]
