"""Commands about settings files, without a node: `config:validate`, `config:schema`, and two environments compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magmobo.cli import options
from magmobo.cli.context import fields_of, remember_log_dir
from magmobo.cli.output import as_typed, echo, json_line, print_json, printable, shortened, styled
from magmobo.cli.statuses import counted
from magmobo.contracts.errors import ConfigError

if TYPE_CHECKING:
    from magmobo.cli.configfiles import Here


@click.command("config:validate")
@click.option("--environment", help="As if this were kernel.environment: mag.ENVIRONMENT.toml counts.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Instead of mag.toml.")
@options.data_dir
@options.as_json
def validate(environment: str | None, config_file: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Check the settings that `mag up` would read here, every mistake at once. Exit 0: none; 5: there are some.

    Whether a database answers or a port is free is not asked: `mag doctor` and `config:reload --dry-run` do that.
    """
    from magmobo.cli.configfiles import read_here
    from magmobo.node.settings import NodeOptions

    found: dict[str, Sequence[str]] = {"problems": [], "sources": [], "notes": []}
    named, remedy = environment or "", ""
    try:
        here = read_here(NodeOptions(data_dir=data_dir, environment=environment, config_file=config_file))
        remember_log_dir(here.folder)
        named = here.environment
        found["sources"] = [shortened(source) for source in here.sources()]
        found["notes"] = here.notes()
        _, unasked = here.checked()
        said = [f"{read.key} takes {read.reference}; whether the vault holds it was not looked at" for read in unasked]
        found["notes"] = [*found["notes"], *said]
    except ConfigError as error:
        found["problems"], remedy = error.problems, error.next_step()
    if as_json:
        print_json("config:validate", {"ok": not found["problems"], "environment": named, **found})
    else:
        _tell(named, remedy, **found)
    return ConfigError.exit_code if found["problems"] else 0


def _tell(
    environment: str, remedy: str, *, problems: Sequence[str], sources: Sequence[str], notes: Sequence[str]
) -> None:
    where = f" for {printable(environment)}" if environment else ""
    if problems:
        echo(f"{styled('FAIL', 'red')}  {counted(len(problems), 'mistake')} in the settings{where}")
    else:
        said = ", ".join(map(printable, sources)) or "nothing but defaults"
        echo(f"{styled('ok', 'green')}    the settings{where} are valid: {said}")
    for problem in problems:
        echo(f"  {as_typed(printable(problem))}")
    for note in notes:
        echo(f"note: {as_typed(printable(note))}")
    if remedy:
        echo(f"next: {as_typed(printable(remedy))}")


@click.command("config:schema")
@click.option("--output", type=click.Path(path_type=Path), help="Into this new file instead of standard output.")
@options.data_dir
@options.as_json
def schema(output: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """JSON Schema 2020-12 of every setting that a node of this folder has, for editors that complete and warn."""
    from magmobo.cli.audit import new_file, written_whole
    from magmobo.cli.configfiles import read_here
    from magmobo.kernel.config.schema import tree_schema
    from magmobo.node.settings import NodeOptions

    document = tree_schema(read_here(NodeOptions(data_dir=data_dir)).sections)
    if output is not None:
        with written_whole(output, new_file(output)) as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
    if as_json:
        where: dict[str, Any] = {"document": document} if output is None else {"file": str(output.absolute())}
        print_json("config:schema", where)
    elif output is None:
        echo(json.dumps(json.loads(json_line(document)), indent=2))
    else:
        count = counted(len(document["properties"]), "section")
        echo(f"{count} in {printable(shortened(str(output.absolute())))}")
    return 0


def show_differences(before: str | None, after: str | None, data_dir: Path | None, *, as_json: bool) -> int:
    """`config:diff --from … --to …`: what the files of one environment say otherwise than those of another.

    None stands for the environment that counts here. Raises: ConfigError with the mistakes of either.
    """
    from magmobo.cli.configfiles import differences, read_here
    from magmobo.cli.plans import change_lines
    from magmobo.node.settings import NodeOptions

    old, new = (read_here(NodeOptions(data_dir=data_dir, environment=name)) for name in (before, after))
    changes = differences(old, new)
    if as_json:
        sides = {"from": _side(old), "to": _side(new)}
        plan = {"changes": fields_of(changes), "live": [], "restarts": [], "waiting": []}
        print_json("config:diff", plan | sides)
        return 0
    for note in dict.fromkeys([*old.notes(), *new.notes()]):
        echo(f"note: {as_typed(printable(note))}")
    for word, here in (("from", old), ("to", new)):
        echo(f"{word:<5}{printable(here.environment)}: {', '.join(_side(here)['sources']) or 'nothing but defaults'}")
    echo(f"{counted(len(changes), 'difference')}" if changes else "no setting differs")
    for line in change_lines(changes):
        echo(line)
    return 0


def _side(here: Here) -> dict[str, Any]:
    return {"environment": here.environment, "sources": [printable(shortened(source)) for source in here.sources()]}
