"""docs/configuration.md, written from the sections: `python -m magmobo.cli.configdocs docs/configuration.md`."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.expected import expectation
from magmobo.kernel.config.shapes import structure
from magmobo.node.components import DEFAULT_COMPONENTS, DEMO_COMPONENT, load_components, sections_of

HOW = "python -m magmobo.cli.configdocs docs/configuration.md"

_TITLE = f"""# Configuration

Later wins: built-in defaults, a demo's preset, what the node made up at its first start
(`mag_data/secrets/generated.toml`), `mag.toml` (or `--config FILE`), `mag.<environment>.toml` and `mag.d/*.toml` beside
it, the environment, the command line. Tables merge key by key, lists are replaced as a whole. An unknown key is an
error, and every mistake is named at once.

`section.key` is `key` under `[section]` in a file and `MAG_SECTION__KEY` in the environment; `MAG_SECTION__KEY_FILE`
names a file that holds the value. `DATABASE_URL` and `PORT` stand in for `magds.dsn` and `listener.port`.

<!-- Written from the sections by `{HOW}`. Edit the section in the code, not this page. -->
"""


class Setting(NamedTuple):
    """One row of the page."""

    key: str
    expected: str
    default: str
    description: str


def configuration_page() -> str:
    """The whole page, Markdown."""
    return _TITLE + "".join(_section(name, section) for name, section in all_sections().items())


def all_sections() -> Mapping[str, type[Struct]]:
    """The sections of a node with everything that comes with MagMoBo."""
    return sections_of(load_components([*DEFAULT_COMPONENTS, DEMO_COMPONENT]))


def settings_of(section: type[Struct], prefix: str) -> Iterator[Setting]:
    """Every setting of a section, those inside tables and lists of tables included."""
    for field in msgspec.structs.fields(section):
        key = f"{prefix}.{field.encode_name}"
        shape, inner = structure(field.type)
        item = structure(inner[0]) if shape is list else (None, ())
        if shape is Struct:
            yield from settings_of(inner[0], key)
        elif item[0] is Struct:
            yield from settings_of(item[1][0], f"{key}[]")
        else:
            yield Setting(key, expectation(field.type), _default(field), _description(field.type))


def _section(name: str, section: type[Struct]) -> str:
    rows = "".join(
        f"| `{row.key}` | {_cell(row.expected)} | {_cell(row.default)} | {_cell(row.description)} |\n"
        for row in settings_of(section, name)
    )
    about = " ".join(cleandoc(section.__doc__ or "").split())
    return f"\n## [{name}]\n\n{about}\n\n| key | value | default | meaning |\n|---|---|---|---|\n{rows}"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, Secret):
        return "***"
    return f"`{json.dumps(value, default=str)}`"


def _description(type_: Any) -> str:
    """The description nearest to the outside of a type."""
    for note in get_args(type_)[1:] if get_origin(type_) is Annotated else ():
        if isinstance(note, Meta) and note.description:
            return note.description
    if get_origin(type_) is Annotated:
        return _description(get_args(type_)[0])
    inner = get_args(type_) if get_origin(type_) in (Union, types.UnionType) else ()
    return next((text for option in inner if (text := _description(option))), "")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(configuration_page(), encoding="utf-8")
