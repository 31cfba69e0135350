"""What the user has probably overlooked: said where it is so, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from magmobo.components.listener.config import ListenerConfig
from magmobo.node.oversights import oversights
from magmobo.node.settings import NodeOptions, read_settings

SECTIONS = {"listener": ListenerConfig}


def said(place: Path, environment: str | None = None, **environ: str) -> list[str]:
    options = NodeOptions(working_dir=place, environment=environment, environ=environ)
    return oversights(options, read_settings(options), SECTIONS)


def write(place: Path, name: str) -> None:
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("# nothing\n")
    path.chmod(0o600)


def test_a_mistyped_environment_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path, "mag.production.toml")
    (line,) = said(tmp_path, "prodution")
    assert line == ("no mag.prodution.toml is here, so nothing is set for prodution alone; did you mean production?")
    write(tmp_path, "secrets/east.toml")
    (line,) = said(tmp_path, MAG_KERNEL__ENVIRONMENT="x")
    assert line.endswith("; there are files for east, production")


@pytest.mark.parametrize("name", ["mag.production.toml", "secrets/production.toml"])
def test_an_environment_with_a_file_of_its_own_is_none(tmp_path: Path, name: str) -> None:
    write(tmp_path, "mag.staging.toml")
    write(tmp_path, name)
    assert said(tmp_path, "production") == []


def test_no_file_is_needed_where_there_is_none_for_any_environment_nor_for_the_default_one(tmp_path: Path) -> None:
    assert said(tmp_path, "production") == []
    write(tmp_path, "mag.production.toml")
    assert said(tmp_path) == []


@pytest.mark.parametrize(
    ("variable", "key", "right"),
    [
        ("MAG_ENVIRONMENT", "kernel.environment", "MAG_KERNEL__ENVIRONMENT"),
        ("MAG_KERNEL_ENVIRONMENT", "kernel.environment", "MAG_KERNEL__ENVIRONMENT"),
        ("MAG_LISTENER_PORT", "listener.port", "MAG_LISTENER__PORT"),
        ("MAG_LISTENER_PORT_FILE", "listener.port", "MAG_LISTENER__PORT_FILE"),
    ],
)
def test_a_variable_that_sets_nothing_is_named_with_the_one_that_would(
    tmp_path: Path, variable: str, key: str, right: str
) -> None:
    assert said(tmp_path, **{variable: "hunter2"}) == [f"the variable {variable} sets nothing; {key} is set by {right}"]


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    others = {"MAG_ROLE": "viewer", "MAG_SERVICE_HOST": "10.0.0.1", "MAG_PORT": "tcp://10.0.0.1:80", "PORT": "8080"}
    assert said(tmp_path, **others, MAG_LISTENER__PORT="80") == []
