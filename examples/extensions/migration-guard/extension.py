"""Migration guard: refuses migrations that would lose data, unless an operator put their version on the list."""

import re
from collections.abc import Mapping
from typing import Any

from magx import Extension, HookCall, HookDenied
from magx.contexts import MigrationContext

ext = Extension()

# Comments and texts first, so that nothing inside of them counts; each branch ends where it must, so none runs long.
QUIET = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
LOSES = {
    "drops a table": re.compile(r"\bdrop\s+table\b"),
    "drops a schema": re.compile(r"\bdrop\s+schema\b"),
    "drops a column": re.compile(
        r"\balter\s+table\b[^;]*\bdrop\s+(?:column\s+)?(?!(?:constraint|default|not|expression|identity)\b)"
    ),
    "empties a table": re.compile(r"\btruncate\b"),
    "deletes every row": re.compile(r"\bdelete\s+from\b(?![^;]*\bwhere\b)"),
}


def losses(sql: str) -> list[str]:
    """What these statements would lose, in words."""
    bare = QUIET.sub(" ", sql).lower()
    return [words for words, pattern in LOSES.items() if pattern.search(bare)]


@ext.hook("database.before_migration", priority=90)
def guard(call: HookCall[MigrationContext]) -> None:
    """Ways back are not looked at: whoever undoes a migration means to."""
    migration = call.data
    if migration["direction"] == "down" or migration["version"] in ext.config["allowed"]:
        return
    if found := losses(migration["sql"]):
        raise HookDenied(
            f"{migration['version']} {migration['name']} {' and '.join(found)}; "
            f"`mag extension:configure migration-guard` can put {migration['version']} on the list `allowed`"
        )


@ext.hook("database.after_migration")
def note(call: HookCall[MigrationContext]) -> None:
    """Leave a line for each that ran."""
    migration = call.data
    ext.log.info(
        "migration ran", **{key: migration[key] for key in ("namespace", "version", "direction", "duration_s")}
    )


@ext.command("check")
def check(arguments: Mapping[str, Any]) -> dict[str, list[str]]:
    """`mag extension:run migration-guard check '{"sql": "…"}'`."""
    return {"losses": losses(str(arguments["sql"]))}
