from __future__ import annotations

import hashlib

import pytest

from magmobo.components.magws.errors import BadSignature
from magmobo.components.magws.signing import RequestGuard, channel_auth, hmac_hex, request_text
from magmobo.contracts.secret import Secret

KEY, SECRET = "278d425bdf160c739803", Secret("7ad3773142a6692b25b8")
BODY = rb'{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}'


def call(now_s: float = 1_353_088_179, body: bytes = BODY, **changes: str) -> dict[str, str]:
    query = {
        "auth_key": KEY,
        "auth_timestamp": str(int(now_s)),
        "auth_version": "1.0",
        "body_md5": hashlib.md5(body).hexdigest(),
    }
    query["auth_signature"] = hmac_hex(SECRET, request_text("POST", "/apps/3/events", query))
    return query | changes


def check(guard: RequestGuard, query: dict[str, str], now_s: float = 1_353_088_179, body: bytes = BODY) -> None:
    guard.check("POST", ("/apps/3/events",), query, body, now_s)


def test_the_worked_examples_of_pusher() -> None:
    assert call()["auth_signature"] == "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
    expected = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    assert channel_auth(KEY, SECRET, "1234.1234", "private-foobar") == f"{KEY}:{expected}"
    presence = channel_auth(
        KEY, SECRET, "1234.1234", "presence-foobar", '{"user_id":10,"user_info":{"name":"Mr. Pusher"}}'
    )
    assert presence == f"{KEY}:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_key": "x"},
        {"auth_version": "2.0"},
        {"auth_timestamp": "1353088000"},
        {"auth_timestamp": "now"},
        {"auth_timestamp": "١٢٣"},
        {"body_md5": "0" * 32},
        {"auth_signature": "0" * 64},
        {"auth_signature": "ü"},
        {"more": "1"},
    ],
)
def test_any_changed_part_is_refused(changes: dict[str, str]) -> None:
    check(RequestGuard(KEY, SECRET), call())
    with pytest.raises(BadSignature):
        check(RequestGuard(KEY, SECRET), call(**changes))


def test_another_body_or_none_is_refused() -> None:
    with pytest.raises(BadSignature):
        check(RequestGuard(KEY, SECRET), call(), body=b"{}")
    query = call()
    del query["body_md5"]
    with pytest.raises(BadSignature):
        check(RequestGuard(KEY, SECRET), query)


def test_old_and_future_calls_are_refused() -> None:
    for shift in (601, -601):
        with pytest.raises(BadSignature):
            check(RequestGuard(KEY, SECRET), call(), now_s=1_353_088_179 + shift)


def test_a_call_is_taken_once_but_twins_of_one_moment_pass() -> None:
    guard = RequestGuard(KEY, SECRET)
    check(guard, call())
    check(guard, call(), now_s=1_353_088_180)
    with pytest.raises(BadSignature):
        check(guard, call(), now_s=1_353_088_182.5)


def test_a_full_memory_never_takes_a_call_twice() -> None:
    guard = RequestGuard(KEY, SECRET, max_seen=3)
    start = 1_353_088_000
    for shift in range(10):
        check(guard, call(start + shift), now_s=start + shift)
    for shift in range(10):
        with pytest.raises(BadSignature):
            check(guard, call(start + shift), now_s=start + 20)
    assert len(guard._seen) <= 3
