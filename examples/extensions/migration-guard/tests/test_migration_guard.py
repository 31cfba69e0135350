import pytest

from magx import HookDenied

HARMLESS = [
    "create table t (id int)",
    "alter table t drop constraint c",
    "alter table t alter column a drop not null, alter column b drop default",
    "comment on table t is 'we never drop table t'",
    "-- drop table t\nselect 1; /* truncate t */",
    "create function f() returns void as $body$ delete from t $body$ language sql",
    "delete from t where id = 1",
    "drop index i",
]
HARMFUL = {
    "DROP  TABLE t": "drops a table",
    "drop /* it's fine */ table t": "drops a table",
    "alter table t add column a int; alter table t drop column b": "drops a column",
    "alter table t drop b": "drops a column",
    "truncate t": "empties a table",
    "delete from t; delete from u where id = 1": "deletes every row",
    "drop schema s cascade": "drops a schema",
}


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_loses_nothing_passes(magx_kernel, sql):
    assert magx_kernel.hook("database.before_migration", version="0002", name="x", sql=sql) == {}


@pytest.mark.parametrize(("sql", "words"), HARMFUL.items())
def test_what_loses_data_is_refused_with_the_way_out(magx_kernel, sql, words):
    with pytest.raises(HookDenied, match=f"0002 x {words}.*allowed"):
        magx_kernel.hook("database.before_migration", version="0002", name="x", sql=sql)


@pytest.mark.magx_settings(allowed=["0002"])
def test_a_version_on_the_list_passes(magx_kernel):
    magx_kernel.hook("database.before_migration", version="0002", sql="drop table t")


def test_the_way_back_passes(magx_kernel):
    magx_kernel.hook("database.before_migration", version="0002", direction="down", sql="drop table t")


def test_each_that_ran_leaves_a_line(magx_kernel):
    magx_kernel.hook("database.after_migration", namespace="app", version="0002", direction="up", duration_s=0.1)
    assert magx_kernel.lines[0][2]["version"] == "0002"


def test_the_command_says_what_it_would_say(magx_kernel):
    assert magx_kernel.command("check", sql="truncate t") == {"losses": ["empties a table"]}
