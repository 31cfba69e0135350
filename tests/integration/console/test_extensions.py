"""Extensions in the console: shown to a session, changed with its token, by commands that are exactly those meant."""

from __future__ import annotations

import pytest
from tests.integration.console.support import running_console

PATH = "/console/api/extensions"


async def test_they_are_told_once_and_again_when_they_are_others() -> None:
    async with running_console(realtime=False) as browser:
        await browser.sign_in()
        first = await browser.request("GET", PATH)
        assert [one["id"] for one in first.json["page"]["extensions"]] == ["delay-alerts", "guard"]
        assert [one["reads"] for one in first.json["details"]] == [["public.flights"]] * 2
        same = await browser.request("GET", f"{PATH}?unless={first.json['mark']}")
        assert same.status == 204
        browser.operators.extensions.stopped = True
        assert (await browser.request("GET", f"{PATH}?unless={first.json['mark']}")).status == 200


async def test_nothing_without_a_session_and_no_order_without_its_token() -> None:
    async with running_console(realtime=False) as browser:
        assert (await browser.request("GET", PATH)).status == 401
        assert (await browser.request("POST", PATH, {"verb": "disable", "id": "guard"})).status == 401
        await browser.sign_in()
        browser.csrf = "another"
        assert (await browser.request("POST", PATH, {"verb": "disable", "id": "guard"})).status == 403
        assert browser.operators.extensions.asked == []


@pytest.mark.parametrize(
    ("order", "command", "fields"),
    [
        ({"verb": "disable", "id": "guard"}, "extension:disable", {"id": "guard"}),
        ({"verb": "kill", "id": "guard"}, "extension:kill", {"id": "guard"}),
        ({"verb": "kill-all"}, "extension:kill", {}),
        ({"verb": "release"}, "extension:kill", {"release": True}),
        (
            {"verb": "approve", "id": "guard", "confirm": "guard", "sha256": "1" * 64},
            "extension:approve",
            {"id": "guard", "confirm": "guard", "sha256": "1" * 64},
        ),
        (
            {"verb": "revoke", "id": "delay-alerts", "wanted": "database.read"},
            "extension:revoke",
            {"id": "delay-alerts", "wanted": "database.read"},
        ),
        (
            {"verb": "grant", "id": "delay-alerts", "wanted": "database.read"},
            "extension:grant",
            {"id": "delay-alerts", "wanted": "database.read", "confirm": ""},
        ),
    ],
)
async def test_an_order_is_one_command(order: object, command: str, fields: object) -> None:
    async with running_console(realtime=False) as browser:
        await browser.sign_in()
        assert (await browser.request("POST", PATH, order)).status == 200
        assert browser.operators.extensions.asked == [(command, fields, False)]


@pytest.mark.parametrize(
    "order",
    [
        {"verb": "kill"},  # without an id it would be all of them
        {"verb": "kill-all", "id": "guard"},
        {"verb": "release", "id": "guard"},
        {"verb": "uninstall", "id": "guard"},
        {"verb": "disable", "id": "guard", "more": 1},
        {"verb": "disable", "id": 7},
        {"id": "guard"},
        [],
    ],
)
async def test_what_is_not_exactly_an_order_is_refused(order: object) -> None:
    async with running_console(realtime=False) as browser:
        await browser.sign_in()
        assert (await browser.request("POST", PATH, order)).status == 400
        assert browser.operators.extensions.asked == []


async def test_a_refusal_of_the_node_is_told_with_its_next_step() -> None:
    async with running_console(realtime=False) as browser:
        await browser.sign_in()
        answer = await browser.request("POST", PATH, {"verb": "approve", "id": "guard", "confirm": "gard"})
        assert answer.status == 422
        assert (answer.json["code"], answer.json["remedy"]) == ("MAG-TEST-001", "Type it.")
