"""Delay alerts: tells everybody who listens that a flight leaves late, and keeps what it told."""

from typing import Any

from magx import Event, Extension, Request

ext = Extension()

KEEP = """
insert into alerts (event_id, carrier, flight, origin, dest, delay_minutes)
values ($1, $2, $3, $4, $5, $6) on conflict do nothing
"""
LATEST = """
select carrier, flight, origin, dest, delay_minutes, told_at::text as told_at
from alerts order by told_at desc, event_id limit $1
"""


@ext.on("late-flights")
async def alert(event: Event) -> None:
    """The manifest's filter lets 15 minutes and more through; the setting says from when on it is an alert."""
    flight = event.data["record"]
    if flight["dep_delay"] < ext.config["minutes"]:
        return
    if await ext.db.fetchval("select true from alerts where event_id = $1", event.id):
        return  # it came before, and was told
    names = (flight["carrier"], flight["flight"], flight["origin"], flight["dest"], flight["dep_delay"])
    text = "{} {} from {} to {} leaves {} minutes late".format(*names)
    await ext.realtime.broadcast("delay-alerts", "late", {"text": text, "minutes": flight["dep_delay"]})
    await ext.db.execute(KEEP, event.id, *names)  # last: when anything fails before, the event comes again
    ext.metrics.inc("alerts_total")


@ext.endpoint("GET", "/alerts")
async def alerts(request: Request) -> list[dict[str, Any]]:
    """The latest alerts, `?limit=` of them."""
    asked = request.params.get("limit", "20")
    return await ext.db.fetch(LATEST, min(int(asked), 100) if asked.isdecimal() else 20)


@ext.health
async def health() -> dict[str, bool]:
    """Healthy while its table answers."""
    return {"alerts": await ext.db.fetchval("select count(*) from alerts") is not None}
