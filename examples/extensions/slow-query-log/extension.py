"""Slow query log: statements that took long, how often, how long at worst, and when last."""

from collections.abc import Mapping
from typing import Any

from magx import Event, Extension

ext = Extension()

KEEP = """
insert into slow_queries (sql_hash, sql, worst_s, total_s, last_event) values ($1, $2, $3, $3, $4)
on conflict (sql_hash) do update set
    times = slow_queries.times + 1,
    worst_s = greatest(slow_queries.worst_s, excluded.worst_s),
    total_s = slow_queries.total_s + excluded.total_s,
    last_event = excluded.last_event,
    seen_at = now()
where slow_queries.last_event <> excluded.last_event
"""
TOP = """
select sql, times, worst_s, total_s, seen_at::text as seen_at
from slow_queries order by total_s desc, sql_hash limit $1
"""


@ext.on("slow-queries")
async def keep(event: Event) -> None:
    """Events of one statement come in order, so the last id tells whether this one came before."""
    query = event.data
    await ext.db.execute(KEEP, query["sql_hash"], query["sql"], query["duration_s"], event.id)
    if query["duration_s"] >= ext.config["tell_s"] and "realtime.broadcast" in ext.capabilities:
        told = {"sql": query["sql"], "duration_s": query["duration_s"]}
        await ext.realtime.broadcast("private-ops", "slow-query", told)


@ext.command("top")
async def top(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`mag extension:run slow-query-log top '{"limit": 5}'`."""
    return await ext.db.fetch(TOP, int(arguments.get("limit", 10)))


@ext.job("forget")
async def forget() -> None:
    """Forget what was not slow for a while."""
    gone = await ext.db.execute(
        "delete from slow_queries where seen_at < now() - make_interval(days => $1)", ext.config["keep_days"]
    )
    ext.log.info("forgot statements", count=gone)
