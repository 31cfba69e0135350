"""Settings as the files, the environment and the options say, without a node: `config:validate`.

Invariant: what is found here is what `mag up` would find from the same place; nothing is changed and nothing is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from magmobo.cli import options
from magmobo.cli.context import remember_log_dir
from magmobo.cli.output import as_typed, echo, print_json, printable, shortened, styled
from magmobo.cli.statuses import counted
from magmobo.contracts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Struct

    from magmobo.kernel.config.loader import Config
    from magmobo.node.components import Found
    from magmobo.node.settings import NodeOptions, Settings

_environment = click.option("--environment", help="As if this were kernel.environment: mag.ENVIRONMENT.toml counts.")
_config_file = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Instead of mag.toml.")


class _Read(NamedTuple):
    """The layers, and what a node of theirs would be made of."""

    settings: Settings
    found: Found
    sections: Mapping[str, type[Struct]]

    def config(self) -> Config:
        """The whole configuration, with what the node made up for itself. Raises: ConfigError."""
        from magmobo.node.secrets import GeneratedSecrets

        folder = self.settings.folder
        generated = GeneratedSecrets(folder).layer(demo=False) if folder.secrets_file.exists() else None
        return self.settings.config(self.sections, generated)

    def sources(self) -> Sequence[str]:
        """Who says anything, lowest first."""
        return [shortened(layer.origin) for layer in self.settings.layers if layer.values]


def _read(chosen: NodeOptions) -> _Read:
    """Raises: ConfigError, ComponentNotLoadable, BadDeclaration."""
    from magmobo.node.components import find_components, sections_of
    from magmobo.node.settings import read_settings

    settings = read_settings(chosen)
    remember_log_dir(settings.folder)
    found = find_components(
        settings.kernel.components, demo=False, sections={name for layer in settings.layers for name in layer.values}
    )
    return _Read(settings.without_sections(found.missing), found, sections_of(found.classes))


@click.command("config:validate")
@_environment
@_config_file
@options.data_dir
@options.as_json
def validate(environment: str | None, config_file: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Check the settings that `mag up` would read here, every mistake at once. Exit 0: none; 5: there are some.

    Whether a database answers or a port is free is not asked: `mag doctor` and `config:reload --dry-run` do that.
    """
    from magmobo.node.settings import NodeOptions

    problems: Sequence[str] = []
    facts: dict[str, Sequence[str]] = {"sources": [], "notes": []}
    named, remedy = environment or "", ""
    try:
        read = _read(NodeOptions(data_dir=data_dir, environment=environment, config_file=config_file))
        named = read.settings.kernel.environment
        facts = {"sources": read.sources(), "notes": read.found.notices}
        read.config()
    except ConfigError as error:
        problems, remedy = error.problems, error.next_step()
    if as_json:
        print_json("config:validate", {"ok": not problems, "environment": named, "problems": problems, **facts})
    else:
        _tell(named, problems, remedy, **facts)
    return ConfigError.exit_code if problems else 0


def _tell(
    environment: str, problems: Sequence[str], remedy: str, *, sources: Sequence[str], notes: Sequence[str]
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
