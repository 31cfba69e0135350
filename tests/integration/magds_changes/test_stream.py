"""Every committed change once, in commit order, as it was written."""

from __future__ import annotations

import psycopg
from tests.integration.magds_changes.harness import execute, old_record, record, running, until


async def test_insert_update_delete_and_truncate_arrive_in_order(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, name text)")
    async with running(dsn, "t") as node:
        await node.service.caught_up()
        execute(dsn, "insert into t values (1, 'a'), (2, 'é\"\\')", "update t set name = 'b' where id = 1",
                "update t set id = 9 where id = 1", "delete from t where id = 2", "truncate t")  # fmt: skip
        await until(lambda: len(node.changes) == 6)
    seen = [(c.op, record(c), old_record(c)) for c in node.changes]
    assert seen == [
        ("insert", {"id": 1, "name": "a"}, None),
        ("insert", {"id": 2, "name": 'é"\\'}, None),
        ("update", {"id": 1, "name": "b"}, None),
        ("update", {"id": 9, "name": "b"}, {"id": 1}),
        ("delete", None, {"id": 2}),
        ("truncate", None, None),
    ]
    positions = [c.position for c in node.changes]
    assert positions == sorted(set(positions))
    assert not any(c.replayed for c in node.changes)
    assert {(c.source, c.schema, c.table) for c in node.changes} == {("test", "public", "t")}
    assert all(c.commit_time.endswith("+00:00") for c in node.changes)
