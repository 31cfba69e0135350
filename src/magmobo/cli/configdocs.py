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
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.authority import is_reserved
from magmobo.kernel.config.expected import expectation
from magmobo.kernel.config.shapes import fields_of, structure
from magmobo.kernel.config.view import setting_effect
from magmobo.node.components import DEFAULT_COMPONENTS, DEMO_COMPONENT, load_components, sections_of

HOW = "python -m magmobo.cli.configdocs docs/configuration.md"

_EFFECTS = {Effect.LIVE: "live", Effect.COMPONENT: "component restart", Effect.NODE: "node restart"}
_HEAD = "| key | value | default | change takes | meaning |\n|---|---|---|---|---|\n"

_TITLE = f"""# Configuration

Later wins: built-in defaults, a demo's preset, what the node made up at its first start
(`mag_data/secrets/generated.toml`), `mag.toml` (or `--config FILE`), beside it `mag.<environment>.toml`, `mag.d/*.toml`
and `secrets/<environment>.toml` (mode 0600), secrets of the vault that are named like a setting, the environment,
systemd's credentials, the command line, and what `mag config:set` said. Tables merge key by key, lists are replaced as
a whole. An unknown key is an error, and every mistake is named at once, with file and line.

`section.key` is `key` under `[section]` in a file, `MAG_SECTION__KEY` in the environment, and the file
`magmobo.section.key` among the credentials; `MAG_SECTION__KEY_FILE` names a file that holds the value. `DATABASE_URL`
and `PORT` stand in for `magds.dsn` and `listener.port`.

Where a secret is expected, its text may say where it is kept: `vault:name` (or `vault:name@3`), `file:path` (from the
folder of the file that says so), `env:NAME`, `cred:NAME` (systemd's credentials). Inside of a longer text such as
`postgres://app:${{vault:app}}@db/app` the secret is put in, encoded as its place needs it. `plain:` before a secret
says that it only looks like that.

A changed setting counts after `mag config:reload`, or by itself when the files are watched. The column *change takes*
says how: *live*, while everything serves; *component restart*, of the one component; *node restart*: it waits until the
node is started again. Keys with *admins* let others in, run code or lead to secrets: `mag config:set`, `config:unset`
and a `config:rollback` that would change one ask for the capability `kernel.config.authority`. Who can write the files
needs none.

<!-- Written from the sections by `{HOW}`. Edit the section in the code, not this page. -->
"""


class Setting(NamedTuple):
    """One row of the page."""

    key: str
    expected: str
    default: str
    effect: str
    description: str


def configuration_page() -> str:
    """The whole page, Markdown."""
    return _TITLE + "".join(_section(name, section) for name, section in all_sections().items())


def all_sections() -> Mapping[str, type[Struct]]:
    """The sections of a node with everything that comes with MagMoBo."""
    return sections_of(load_components([*DEFAULT_COMPONENTS, DEMO_COMPONENT]))


def settings_of(section: type[Struct], name: str) -> Iterator[Setting]:
    """Every setting of a section, those inside tables and lists of tables included."""
    for key, field in _fields(section, name):
        whole = key.replace("[]", "[0]")
        effect = _EFFECTS[setting_effect(section, whole)]
        if is_reserved(section, whole.partition(".")[2]):
            effect += "; admins"
        yield Setting(key, expectation(field.type), _default(field), effect, _description(field.type))


def _fields(struct: type[Struct], prefix: str) -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    for name, field in fields_of(struct).items():
        key = f"{prefix}.{name}"
        shape, inner = structure(field.type)
        item = structure(inner[0]) if shape is list else (None, ())
        if shape is Struct:
            yield from _fields(inner[0], key)
        elif item[0] is Struct:
            yield from _fields(item[1][0], f"{key}[]")
        else:
            yield key, field


def _section(name: str, section: type[Struct]) -> str:
    rows = "".join(
        f"| `{row.key}` | {_cell(row.expected)} | {_cell(row.default)} | {row.effect} | {_cell(row.description)} |\n"
        for row in settings_of(section, name)
    )
    about = " ".join(cleandoc(section.__doc__ or "").split())
    return (
        f"\n## [{name}]\n\n{about}\n\n| key | value | default | change takes | meaning |\n|---|---|---|---|---|\n{rows}"
    )


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
