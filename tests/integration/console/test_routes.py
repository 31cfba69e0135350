"""The console's routes over a real socket: who gets in, who does not, and what every answer carries."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.console.support import running_console

from magmobo.console.sessions import FAILURE_WINDOW_S, IDLE_S, LIFETIME_S, MAX_FAILURES
from magmobo.contracts.configuration import ConfigEntry
from magmobo.contracts.settings import Effect


async def test_nothing_is_shown_without_a_session() -> None:
    async with running_console() as browser:
        for path in ("api/status", "api/session", "api/settings"):
            answer = await browser.request("GET", f"/console/{path}")
            assert (answer.status, answer.json["code"]) == (401, "MAG-CONS-002")
        for path in ("logout", "auth", "api/rollback"):
            assert (await browser.request("POST", f"/console/{path}", {})).status == 401
        browser.cookie = f"mag_console_{browser.port}=guessed"
        assert (await browser.request("GET", "/console/api/status")).status == 401


async def test_the_right_token_opens_a_session_that_shows_the_node() -> None:
    async with running_console() as browser:
        login = await browser.sign_in()
        flags = {part.strip().lower() for part in login.headers["set-cookie"].split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/console/"} <= flags
        assert "secure" not in flags
        assert login.headers["cache-control"] == "no-store"
        assert (await browser.request("GET", "/console/api/session")).json == {"csrf_token": browser.csrf}
        status = (await browser.request("GET", "/console/api/status")).json
        assert [component["name"] for component in status["node"]["components"]][:2] == ["listener", "magds"]
        assert status["realtime"] == {"available": True, "app_key": "app-key", "channels": browser.realtime.channels}


async def test_wrong_tokens_are_refused_and_slowed_down() -> None:
    async with running_console() as browser:
        for _ in range(MAX_FAILURES):
            assert (await browser.sign_in("wrong")).json["code"] == "MAG-CONS-001"
        refused = await browser.sign_in()
        assert (refused.status, refused.json["code"]) == (429, "MAG-CONS-004")
        assert 0 < int(refused.headers["retry-after"]) <= FAILURE_WINDOW_S + 1
        browser.context.clock.now_s += FAILURE_WINDOW_S
        assert (await browser.sign_in()).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"},
     {"Origin": "null"}],
)  # fmt: skip
async def test_other_sites_can_neither_sign_in_nor_act(headers: dict[str, str]) -> None:
    async with running_console() as browser:
        await browser.sign_in()
        for path, body in (
            ("login", {"token": "x"}),
            ("logout", {}),
            ("auth", {}),
            ("api/rollback", {"version": 1, "dry_run": False}),
        ):
            answer = await browser.request("POST", f"/console/{path}", body, headers)
            assert (answer.status, answer.json["code"]) == (403, "MAG-CONS-003")
        assert (await browser.request("GET", "/console/api/session")).status == 200
        own = {"Origin": f"http://127.0.0.1:{browser.port}", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.request("POST", "/console/logout", {}, own)).status == 204
        assert browser.settings.asked == []


async def test_changing_anything_needs_the_csrf_token() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        good, browser.csrf = browser.csrf, "wrong"
        for path, body in (("logout", {}), ("auth", {}), ("api/rollback", {"version": 1, "dry_run": False})):
            assert (await browser.request("POST", f"/console/{path}", body)).status == 403
        assert browser.settings.asked == []
        browser.csrf = good
        channel = {"socket_id": "1.2", "channel_name": "private-db.public.orders"}
        answer = await browser.request("POST", "/console/auth", channel)
        assert answer.json == {"auth": "app-key:signed-1.2-private-db.public.orders"}


@pytest.mark.parametrize(
    ("channel", "status"),
    [
        ({"socket_id": "1.2", "channel_name": "private-db.public.secrets"}, 403),
        ({"socket_id": "1.2", "channel_name": "private-orders"}, 403),
        ({"socket_id": "1.2:private-db.public.x", "channel_name": "private-db.public.orders"}, 400),
        ({"socket_id": "1", "channel_name": "private-db.public.orders"}, 400),
        ({"socket_id": "1.2"}, 400),
        ({"socket_id": "1.2", "channel_name": "x" * 401}, 400),
        ([], 400),
        (b"{", 400),
        (b"[" * 4000, 400),
        (b"\xff", 400),
        (b" " * 5000, 400),
    ],
)
async def test_it_signs_for_channels_of_published_tables_only(channel: object, status: int) -> None:
    async with running_console() as browser:
        await browser.sign_in()
        answer = await browser.request("POST", "/console/auth", channel)
        assert answer.status == status
        assert b"signed" not in answer.body


async def test_the_settings_are_told_once_and_again_when_they_are_others() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        first = await browser.request("GET", "/console/api/settings")
        assert first.headers["cache-control"] == "no-store"
        assert first.json["tree"]["entries"][0]["key"] == "magds.pool_size"
        assert [version["version"] for version in first.json["history"]["versions"]] == [2, 1]
        again = f"/console/api/settings?unless={first.json['mark']}"
        assert (await browser.request("GET", again)).status == 204
        browser.settings.entries.append(ConfigEntry("a.b", 1, "default", "default", Effect.LIVE))
        other = await browser.request("GET", again)
        assert (other.status, len(other.json["tree"]["entries"])) == (200, 2)
        browser.settings.note = "only the history is another one"
        assert (await browser.request("GET", f"/console/api/settings?unless={other.json['mark']}")).status == 200


async def test_going_back_asks_the_command_bus_and_tells_what_it_says() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        plan = await browser.request("POST", "/console/api/rollback", {"version": 1, "dry_run": True})
        assert (plan.json["version"], plan.json["applied"], plan.json["plan"]["live"]) == (2, False, ["magds"])
        done = await browser.request("POST", "/console/api/rollback", {"version": 1, "dry_run": False})
        assert (done.json["version"], done.json["applied"]) == (3, True)
        assert browser.settings.asked == [(1, True), (1, False)]
        browser.settings.refusal = "no route to planted-secret"
        refused = await browser.request("POST", "/console/api/rollback", {"version": 1, "dry_run": False})
        assert (refused.status, refused.json["title"]) == (422, "no route to ***")


@pytest.mark.parametrize(
    "body",
    [{}, {"version": 1}, {"dry_run": True}, {"version": "1", "dry_run": True}, {"version": 0, "dry_run": True},
     {"version": 2**53, "dry_run": True}, {"version": 1, "dry_run": 0}, {"version": 1, "dry_run": True, "x": 1}, []],
)  # fmt: skip
async def test_what_is_not_exactly_a_version_to_go_back_to_is_refused(body: object) -> None:
    async with running_console() as browser:
        await browser.sign_in()
        assert (await browser.request("POST", "/console/api/rollback", body)).status == 400
        assert browser.settings.asked == []


async def test_no_session_outlives_the_token_that_opened_it() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        browser.operators.admin_token_number += 1
        for method, path, body in (
            ("GET", "api/session", None),
            ("GET", "api/settings", None),
            ("POST", "api/rollback", {"version": 1, "dry_run": False}),
        ):
            assert (await browser.request(method, f"/console/{path}", body)).status == 401
        assert browser.settings.asked == []
        assert (await browser.sign_in()).status == 200


async def test_a_request_whose_body_comes_after_its_session_ended_changes_nothing() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        body = b'{"version": 1, "dry_run": false}'
        head = (
            f"POST /console/api/rollback HTTP/1.1\r\nHost: 127.0.0.1:{browser.port}\r\nCookie: {browser.cookie}\r\n"
            f"X-CSRF-Token: {browser.csrf}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        seen = asyncio.Event()
        find = browser.console._sessions.find

        def watched(session_id: str) -> object:
            seen.set()
            return find(session_id)

        browser.console._sessions.find = watched  # type: ignore[method-assign, assignment]
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.port)
        writer.write(head.encode())
        await asyncio.wait_for(seen.wait(), 30)  # it was let in
        browser.operators.admin_token_number += 1
        writer.write(body)
        assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 401")
        writer.close()
        assert browser.settings.asked == []


async def test_a_form_of_another_site_cannot_be_mistaken_for_a_login() -> None:
    async with running_console() as browser:
        answer = await browser.request("POST", "/console/login", b"token=x", {"Content-Type": "text/plain"})
        assert (answer.status, answer.json["code"]) == (400, "MAG-CONS-005")


async def test_sessions_end_by_logout_by_rest_and_by_age() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        old = browser.cookie
        gone = await browser.request("POST", "/console/logout", {})
        assert gone.status == 204
        assert "max-age=0" in gone.headers["set-cookie"].lower()
        browser.cookie = old
        assert (await browser.request("GET", "/console/api/session")).status == 401

        await browser.sign_in()
        browser.context.clock.now_s += IDLE_S + 1
        assert (await browser.request("GET", "/console/api/session")).status == 401

        await browser.sign_in()
        for _ in range(int(LIFETIME_S / IDLE_S) + 1):
            last = await browser.request("GET", "/console/api/session")
            browser.context.clock.now_s += IDLE_S - 1
        assert last.status == 200
        assert (await browser.request("GET", "/console/api/session")).status == 401


async def test_every_answer_carries_the_security_headers() -> None:
    async with running_console() as browser:
        requests = [("GET", "/console/"), ("GET", "/console/static/app.js"), ("GET", "/console/none"),
                    ("GET", "/console/api/status"), ("DELETE", "/console/login"), ("GET", "/console")]  # fmt: skip
        for method, path in requests:
            answer = await browser.request(method, path)
            assert answer.headers["x-frame-options"] == "DENY", path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert f"ws://127.0.0.1:{browser.port} " in policy


async def test_files_are_served_from_a_closed_list() -> None:
    async with running_console() as browser:
        page = await browser.request("GET", "/console/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        again = await browser.request("GET", "/console/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        for path in (
            "../app.py",
            "%2e%2e/app.py",
            "/etc/passwd",
            "vendor/LICENSE.pusher-js",
            "",
            "vendor",
            b"x\x00".hex(),
        ):
            assert (await browser.request("GET", f"/console/static/{path}")).status == 404, path
        assert (await browser.request("GET", "/console")).headers["location"] == "/console/"


async def test_it_works_without_realtime_and_says_why() -> None:
    async with running_console(realtime=False) as browser:
        await browser.sign_in()
        view = (await browser.request("GET", "/console/api/status")).json["realtime"]
        assert (view["available"], "realtime" in view["reason"]) == (False, True)
        channel = {"socket_id": "1.2", "channel_name": "private-db.public.orders"}
        assert (await browser.request("POST", "/console/auth", channel)).status == 503
    async with running_console() as browser:
        await browser.sign_in()
        browser.realtime.down = True
        view = (await browser.request("GET", "/console/api/status")).json["realtime"]
        assert (view["available"], "MAG-CORE-001" in view["reason"]) == (False, True)


async def test_a_stopped_console_is_gone_and_forgets_its_sessions() -> None:
    async with running_console() as browser:
        await browser.sign_in()
        await browser.console.stop()
        assert (await browser.request("GET", "/console/")).status == 503
        await browser.console.start()
        assert (await browser.request("GET", "/console/api/session")).status == 401


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: repr(x).encode()))
def test_any_body_is_answered_and_never_lets_anybody_in(body: bytes) -> None:
    async def attempt() -> None:
        async with running_console() as browser:
            answer = await browser.request("POST", "/console/login", body)
            assert answer.status in {400, 401}
            assert "set-cookie" not in answer.headers

    asyncio.run(attempt())


async def test_the_root_leads_to_the_console_and_stands_for_nothing_else() -> None:
    async with running_console() as browser:
        root = await browser.request("GET", "/")
        assert (root.status, root.headers["location"]) == (307, "/console/")
        assert (await browser.request("GET", "/favicon.ico")).status == 404
        await browser.console.stop()
        assert (await browser.request("GET", "/")).status == 503
