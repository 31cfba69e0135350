"""The console page in a real browser, with a realtime server that the test plays by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect
from tests.browser.support import HandPlayedPusher, Visit, sign_in, visiting
from tests.integration.console.support import TOKEN, Browser, running_console

FLIGHTS = "db.public.flights"


@asynccontextmanager
async def signed_in(
    *, width: int = 1280, height: int = 900, dark: bool = False
) -> AsyncIterator[tuple[Visit, Browser, HandPlayedPusher]]:
    async with running_console() as console:
        pusher = HandPlayedPusher(console.listener)
        async with visiting(f"http://127.0.0.1:{console.port}", width=width, height=height, dark=dark) as visit:
            await sign_in(visit.page, TOKEN)
            await expect(visit.page.get_by_text("Following flights, orders.")).to_be_visible()
            await visit.page.wait_for_function("document.getElementById('connection').textContent === 'connected'")
            await pusher.wait_for("private-db.public.orders")
            yield visit, console, pusher
            assert visit.foreign_requests == []
            assert visit.problems == []


def flight(number: int, **record: object) -> dict[str, object]:
    return {
        "op": "insert", "schema": "public", "table": "flights", "record": {"id": number, "dest": "SEA", **record},
        "old_record": None, "commit_time": "2026-01-02T03:04:05.678Z",
    }  # fmt: skip


async def test_a_wrong_token_is_told_and_the_right_one_opens_the_page(tmp_path: Path) -> None:
    async with running_console() as console, visiting(f"http://127.0.0.1:{console.port}") as visit:
        page = visit.page
        await expect(page.get_by_label("Admin token")).to_be_focused()
        await sign_in(page, "wrong")
        await expect(page.get_by_role("alert").filter(has_text="that is not the admin token")).to_be_visible()
        await expect(page.get_by_role("heading", name="Components")).to_be_hidden()
        await sign_in(page, TOKEN)
        await expect(page.get_by_role("heading", name="Components")).to_be_visible()
        await expect(page.get_by_role("row", name="magds")).to_contain_text("degraded")
        await expect(page.get_by_role("row", name="magds")).to_contain_text("<b>disk</b> nearly full")
        for name, words in (("fresh", "unchecked"), ("off", "disabled"), ("stuck", "quarantined–")):
            await expect(page.get_by_role("row", name=name)).to_contain_text(words)
        assert "unknown" not in await page.inner_text("#components")
        assert (await page.inner_text("#components")).count("disabled") == 1
        await expect(page.get_by_text("wal_level is replica: no live changes")).to_be_visible()
        await expect(page.locator("#uptime")).to_have_text("1 d 02:03:04")
        assert await page.evaluate("document.cookie") == ""
        assert TOKEN not in await page.content()
        await page.reload()  # the session is in the cookie
        await expect(page.get_by_role("heading", name="Components")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Admin token")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Admin token")).to_be_visible()
        assert visit.foreign_requests == []
        assert visit.problems == []


async def test_changes_are_shown_newest_first_and_as_text() -> None:
    async with signed_in() as (visit, _console, pusher):
        page, hostile = visit.page, "<img src=x onerror=document.title='owned'>"
        pusher.send(FLIGHTS, "insert", flight(1))
        pusher.send(FLIGHTS, "insert", flight(2, tailnum=hostile))
        pusher.send(FLIGHTS, "delete", {"op": "delete", "schema": "sales", "table": "o", "old_record": {"id": 9}})
        pusher.send(FLIGHTS, "truncate", {"op": "truncate", "schema": "public", "table": "flights"})
        rows = page.locator("#ticker tr")
        await expect(rows).to_have_count(4)
        await expect(rows.nth(0)).to_contain_text("truncate")
        await expect(rows.nth(1)).to_contain_text("sales.o")
        await expect(rows.nth(1)).to_contain_text("id 9")
        await expect(rows.nth(2)).to_contain_text(hostile[:30])
        await expect(rows.nth(3)).to_contain_text("id 1")
        await rows.nth(2).locator("summary").click()
        await expect(rows.nth(2).locator("pre")).to_contain_text(hostile)
        await expect(page.locator("#received")).to_have_text("4")
        assert await page.title() == "MagMoBo console"


async def test_private_channels_are_joined_with_a_signature_and_channels_follow_the_node() -> None:
    async with signed_in() as (visit, console, pusher):
        assert pusher.subscribed["private-db.public.orders"] == "app-key:signed-11.22-private-db.public.orders"
        console.realtime.channels = ["db.public.flights", "db.s@2eales.it@65ms"]
        await expect(visit.page.get_by_text("Following flights, s.ales.items.")).to_be_visible()
        await pusher.wait_for("db.s@2eales.it@65ms")
        assert "private-db.public.orders" not in pusher.subscribed


async def test_a_pause_holds_rows_back_and_counts_on() -> None:
    async with signed_in() as (visit, _console, pusher):
        page = visit.page
        await page.get_by_role("button", name="Pause").click()
        for number in range(500):
            pusher.send(FLIGHTS, "insert", flight(number))
        await expect(page.locator("#received")).to_have_text("500")
        await expect(page.get_by_text("500 since the pause")).to_be_visible()
        await expect(page.locator("#ticker tr")).to_have_count(0)
        await page.get_by_role("button", name="Go on").click()
        await expect(page.locator("#ticker tr")).to_have_count(200)  # the newest; the page stays small
        await expect(page.locator("#ticker tr").first).to_contain_text("id 499")
        await page.get_by_role("button", name="Clear").click()
        await expect(page.get_by_text("Nothing has changed yet.")).to_be_visible()


async def test_a_gap_is_never_silent() -> None:
    async with signed_in() as (visit, _console, pusher):
        gap = {"channel": FLIGHTS, "from": "1", "to": "9", "reason": "too_old", "refetch": "/rest/v1/flights"}
        pusher.send(FLIGHTS, "mag:gap", gap)
        await expect(visit.page.locator("#gaps")).to_have_text("1")
        await expect(visit.page.locator("#ticker")).to_contain_text("Changes were missed here (too_old)")


async def test_a_lost_connection_is_resumed_from_the_last_position_seen() -> None:
    async with signed_in() as (visit, _console, pusher):
        pusher.send(FLIGHTS, "insert", flight(1) | {"epoch": "e", "serial": "0001"})
        await expect(visit.page.locator("#received")).to_have_text("1")
        pusher.subscribed.clear()
        pusher.drop_all()
        await pusher.wait_for(FLIGHTS)
        assert pusher.hellos == [{"resume": []}, {"resume": [{"channel": FLIGHTS, "epoch": "e", "serial": "0001"}]}]
        pusher.send(FLIGHTS, "insert", flight(1) | {"epoch": "e", "serial": "0001"})  # a repetition is not shown twice
        pusher.send(FLIGHTS, "insert", flight(2) | {"epoch": "e", "serial": "0002"})
        pusher.send(FLIGHTS, "mag:resumed", {"channel": FLIGHTS, "epoch": "e", "serial": "0002"})
        await expect(visit.page.locator("#ticker")).to_contain_text("Connection resumed, nothing missed.")
        await expect(visit.page.locator("#received")).to_have_text("2")
        await expect(visit.page.locator("#gaps")).to_have_text("0")


async def test_a_lost_session_and_a_silent_node_are_told() -> None:
    async with signed_in() as (visit, console, _pusher):
        await console.listener.stop()
        banner = visit.page.get_by_text("This node does not answer. Trying again…")
        await expect(banner).to_be_visible(timeout=60_000)  # each idle connection of the browser may ask once more
        await console.listener.start()
        await expect(banner).to_be_hidden(timeout=15_000)
        await console.console.stop()
        await console.console.start()
        await expect(visit.page.get_by_text("Your session has ended.")).to_be_visible()


async def test_without_realtime_the_page_says_why() -> None:
    async with running_console(realtime=False) as console, visiting(f"http://127.0.0.1:{console.port}") as visit:
        await sign_in(visit.page, TOKEN)
        await expect(visit.page.get_by_text("This node runs no realtime component.")).to_be_visible()
        await expect(visit.page.get_by_role("heading", name="Components")).to_be_visible()


@pytest.mark.parametrize(("name", "width", "dark"), [("wide", 1280, False), ("phone", 390, True)])
async def test_the_page_fits_its_screen_and_has_names_for_everything(
    tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    async with signed_in(width=width, height=844, dark=dark) as (visit, _console, pusher):
        for number in range(30):
            pusher.send(
                FLIGHTS, "insert", flight(number, carrier="UA", tailnum="N14228", time_hour="2013-01-01T10:00Z")
            )
        await expect(visit.page.locator("#ticker tr")).to_have_count(30)
        picture = await visit.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert len(picture) > 10_000
        assert await visit.page.evaluate("document.documentElement.scrollWidth") == width
        assert await visit.page.evaluate("window.scrollY") == 0
        unnamed = await visit.page.evaluate(
            "[...document.querySelectorAll('button, input, a, [role=img], [role=region]')].filter(e => !e.innerText"
            " && !e.getAttribute('aria-label') && !(e.labels && e.labels.length)).map(e => e.outerHTML)"
        )
        assert unnamed == []
