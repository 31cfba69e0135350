"""Extensions in a real browser: what an operator reads before saying yes, and the ways to say no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace
from playwright.async_api import Locator, Page, expect
from tests.browser.support import Visit, sign_in, visiting
from tests.integration.console.played_extensions import MARKUP, PlayedExtensions, grant
from tests.integration.console.support import TOKEN, running_console

from magmobo.contracts.extensions import BindingInfo, LimitInfo, UpgradeInfo, WaitInfo, Widening


@asynccontextmanager
async def looking_at_extensions(
    *, width: int = 1280, dark: bool = False
) -> AsyncIterator[tuple[Visit, PlayedExtensions]]:
    async with (
        running_console(realtime=False) as console,
        visiting(f"http://127.0.0.1:{console.port}", width=width, dark=dark) as visit,
    ):
        await sign_in(visit.page, TOKEN)
        await visit.page.get_by_role("link", name="Extensions").click()
        await expect(visit.page.locator("#extensions section")).to_have_count(2)
        yield visit, console.operators.extensions
        assert visit.foreign_requests == []
        assert visit.problems == []


def card(page: Page, extension_id: str) -> Locator:
    return page.get_by_role("region", name=extension_id)


async def test_each_shows_what_it_may_do_why_and_what_it_reads_and_writes() -> None:
    async with looking_at_extensions() as (visit, _):
        shown = card(visit.page, "delay-alerts")
        for words in (
            "Delay alerts", "delay-alerts 1.0.0", "database.read", "medium", "public.flights", "It sees late flights.",
            "100 a minute", "its own tables", "event late (database.change)", "acme", "S3", "calls 12",
        ):  # fmt: skip
            await expect(shown).to_contain_text(words)
        await expect(card(visit.page, "guard")).to_contain_text(MARKUP)
        assert await visit.page.title() == "MagMoBo console"


async def test_what_is_used_up_and_what_waits_for_it_is_seen() -> None:
    async with looking_at_extensions() as (visit, played):
        detail = played.details["delay-alerts"]
        at = "2026-11-24T00:00:00Z"
        limits = [
            LimitInfo("database.read", 100, 3, "budget", 50, 50, at), LimitInfo("system.metrics", 10, 2, "rate"),
            LimitInfo("api.emit_events", 100),
        ]  # fmt: skip
        waits = [WaitInfo("event:late", ["database.read"], "budget", at, 12)]
        played.details["delay-alerts"] = replace(detail, limits=limits, waits=waits)
        await visit.page.reload()
        shown = card(visit.page, "delay-alerts")
        for words in (
            "database.read: 50 of 50 calls of today on all nodes, anew at", "3 refused here since the node started",
            "calls wait for the next day", "system.metrics: 10 a minute, 2 refused", "calls wait for the rate",
            "event:late waits until", "the budget of database.read is used up. 12 wait with it, none is lost.",
        ):  # fmt: skip
            await expect(shown).to_contain_text(words)
        await expect(shown).not_to_contain_text("api.emit_events")
        await expect(card(visit.page, "guard")).not_to_contain_text("Used up")


async def test_the_riskiest_is_read_first() -> None:
    async with looking_at_extensions() as (visit, played):
        detail = played.details["delay-alerts"]
        more = [grant("system.metrics", "low", "granted", {}, "It counts."), *detail.grants]
        more += [grant("network.outbound", "high", "granted", {}, "It tells."), detail.grants[0]]
        played.details["delay-alerts"] = replace(detail, grants=more)
        await visit.page.reload()
        rows = card(visit.page, "delay-alerts").locator(".grants th")
        await expect(rows).to_have_text(["network.outbound", "database.read", "database.read", "system.metrics"])


async def test_a_critical_approval_takes_the_id_typed() -> None:
    async with looking_at_extensions() as (visit, extensions):
        page = visit.page
        await card(page, "guard").get_by_role("button", name="Look and approve").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("It stops DROP.")
        await expect(dialog).to_contain_text("It would read public.flights and write its own tables.")
        do = dialog.get_by_role("button", name="Do it")
        await expect(do).to_be_disabled()
        await dialog.get_by_label("Type the extension's id").fill("gard")
        await expect(do).to_be_disabled()
        await dialog.get_by_label("Type the extension's id").fill("guard")
        await do.click()
        await expect(dialog).to_be_hidden()
        await expect(card(page, "guard")).to_contain_text("granted")
        confirmed = {"id": "guard", "confirm": "guard", "sha256": "0" * 64}
        assert extensions.asked[-1] == ("extension:approve", confirmed, False)


async def test_of_an_upgrade_that_waits_is_shown_what_it_changes() -> None:
    async with looking_at_extensions() as (visit, played):
        detail = played.details["delay-alerts"]
        new = replace(grant("database.write", "high", "pending", {"tables": ["public.notes"]}, "It notes."), new=True)
        played.details["delay-alerts"] = replace(
            detail, info=replace(detail.info, pending_version="2.0.0"), grants=[*detail.grants, new],
            versions=["1.0.0", "2.0.0"],
            upgrade=UpgradeInfo(
                "2.0.0", "high", ["database.write"], [Widening("database.read", "tables", MARKUP)], ["api.emit_events"],
                [BindingInfo("hook", "api.before_request", "priority 20")], [],
                ["public.flights", "public.notes"], ["public.notes"],
            ),
        )  # fmt: skip
        changes = [
            "+ database.write", f"+ database.read: tables {MARKUP}", "+ hook api.before_request (priority 20)",
            "− api.emit_events",
        ]  # fmt: skip
        await visit.page.reload()
        shown = card(visit.page, "delay-alerts")
        await expect(shown.get_by_role("list", name="What version 2.0.0 changes").locator("li")).to_have_text(changes)
        await expect(shown.get_by_role("button", name="Go back")).to_have_count(0)
        await shown.get_by_role("button", name="Look and approve").click()
        dialog = visit.page.get_by_role("dialog")
        await expect(dialog).to_contain_text("It would read public.flights, public.notes and write public.notes.")
        await expect(dialog.get_by_role("list").locator("li")).to_have_text(changes)
        assert await visit.page.title() != "owned"


async def test_a_capability_is_taken_back_and_given_again() -> None:
    async with looking_at_extensions() as (visit, extensions):
        shown = card(visit.page, "delay-alerts")
        for verb, state in (("Revoke", "revoked"), ("Grant", "granted")):
            await shown.get_by_role("button", name=f"{verb}…").click()
            await visit.page.get_by_role("dialog").get_by_role("button", name="Do it").click()
            await expect(shown.locator(".grants")).to_contain_text(state)
        assert [command for command, _, _ in extensions.asked] == ["extension:revoke", "extension:grant"]


async def test_the_kill_switch_stops_all_and_is_taken_back() -> None:
    async with looking_at_extensions() as (visit, extensions):
        page = visit.page
        await page.get_by_role("button", name="Stop all").click()
        await page.get_by_role("dialog").get_by_role("button", name="Do it").click()
        await expect(page.locator("#extensions-stopped")).to_be_visible()
        await page.get_by_role("button", name="Let them run again").click()
        await page.get_by_role("dialog").get_by_role("button", name="Do it").click()
        await expect(page.locator("#extensions-stopped")).to_be_hidden()
        assert [params for _, params, _ in extensions.asked] == [{}, {"release": True}]


async def test_who_cancels_orders_nothing() -> None:
    async with looking_at_extensions() as (visit, extensions):
        await card(visit.page, "delay-alerts").get_by_role("button", name="Kill…").click()
        await visit.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        await expect(visit.page.get_by_role("dialog")).to_be_hidden()
        assert extensions.asked == []


async def test_on_a_phone_nothing_is_wider_than_the_screen() -> None:
    async with looking_at_extensions(width=375) as (visit, _):
        assert await visit.page.evaluate("document.documentElement.scrollWidth") <= 375
