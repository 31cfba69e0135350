"""What the user has probably overlooked: an environment whose files are not there, and variables that set nothing.

Boundary: says so and refuses nothing, because both may be meant: a service manager and Kubernetes make variables of
their own. Names are told, values never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import fields

from magmobo.kernel.config.core import KernelConfig
from magmobo.node.settings import NodeOptions, Settings, environment_file, secrets_file

_PREFIX = "MAG_"
_FILE = "_FILE"


def oversights(options: NodeOptions, settings: Settings, sections: Mapping[str, type[Struct]]) -> list[str]:
    """A line for people each."""
    return [*_unknown_environment(options, settings.kernel.environment), *_idle_variables(options, sections)]


def _unknown_environment(options: NodeOptions, name: str) -> Iterator[str]:
    """Whoever mistypes an environment gets the settings of none. The default one needs no file."""
    main_file = options.main_file
    if name == KernelConfig().environment or any(
        path.exists() for path in (environment_file(main_file, name), secrets_file(main_file, name))
    ):
        return
    others = sorted(
        {path.name.split(".")[1] for path in main_file.parent.glob("mag.*.toml")}
        | {path.stem for path in (main_file.parent / "secrets").glob("*.toml")}
    )
    if others:
        import difflib  # only a mistake needs it

        near = difflib.get_close_matches(name, others, n=1)
        meant = f"; did you mean {near[0]}?" if near else f"; there are files for {', '.join(others)}"
        yield f"no {environment_file(main_file, name).name} is here, so nothing is set for {name} alone{meant}"


def _idle_variables(options: NodeOptions, sections: Mapping[str, type[Struct]]) -> Iterator[str]:
    """A section and its key are two underscores apart; with one, or without the section, a variable sets nothing."""
    mine = [name for name in options.environ if name.startswith(_PREFIX) and "__" not in name]
    if not mine:
        return
    meant = {f"{_PREFIX}{field.encode_name}".upper(): ("kernel", field.encode_name) for field in fields(KernelConfig)}
    everything: dict[str, type[Struct]] = {**sections, "kernel": KernelConfig}
    for section, type_ in everything.items():
        meant |= {f"{_PREFIX}{section}_{one.encode_name}".upper(): (section, one.encode_name) for one in fields(type_)}
    for name in sorted(mine):
        suffix = _FILE if name.endswith(_FILE) else ""
        if found := meant.get(name.removesuffix(suffix)):
            section, key = found
            right = f"{_PREFIX}{section}__{key}".upper() + suffix
            yield f"the variable {name} sets nothing; {section}.{key} is set by {right}"
