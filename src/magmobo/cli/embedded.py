"""Commands that lead into the embedded database: `magds:psql` and `magds:dsn`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from magmobo.cli import options
from magmobo.cli.context import folder_of, insist_on_operator
from magmobo.cli.output import print_json


@click.command(context_settings={"ignore_unknown_options": True})
@options.data_dir
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(data_dir: Path | None, arguments: tuple[str, ...]) -> None:
    """Open psql on the embedded database, as the node's own role. ARGUMENTS go to psql, such as -c 'select 1'."""
    from magmobo.admin.offline import embedded_access

    insist_on_operator("magds:psql")
    dsn, program = embedded_access(folder_of(data_dir))
    # The environment of a process is its owner's to read, its command line is everybody's: the password goes there.
    values = dict(os.environ) | _as_environment(dsn)
    os.execvpe(program, ["psql", *arguments], values)  # noqa: S606  # becoming psql is the point


@click.command()
@options.data_dir
@options.as_json
def dsn(data_dir: Path | None, as_json: bool) -> int:
    """Print the connection string of the embedded database. It holds the password of the node's own role."""
    from magmobo.admin.offline import embedded_access

    insist_on_operator("magds:dsn")
    text, _ = embedded_access(folder_of(data_dir))
    if as_json:
        print_json("magds:dsn", {"dsn": text})
    else:
        click.echo(text)
    return 0


def _as_environment(dsn: str) -> dict[str, str]:
    from psycopg.conninfo import conninfo_to_dict

    names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in names}
