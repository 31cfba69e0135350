"""The folder that the fast path finds is the one that the settings reader would find, or it finds none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magmobo.cli.folder import find_folder
from magmobo.contracts.errors import ConfigError
from magmobo.node.settings import NodeOptions, read_settings

PATHS = st.sampled_from(["a", "b/c", "/tmp/x", "./d", "../e", "~/f", "~nobody-of-that-name/f", "", ".", "a b", "ä"])
NAMES = st.sampled_from(["test", "development", "x-1", "Test", "", "1x", "test\n", "x" * 40])
KERNEL = st.sampled_from(
    [
        "", "[kernel]\n", '[kernel]\ndata_dir = "from_file"\n', '[kernel]\nenvironment = "test"\n', "[kernel\n", "\0",
        '[kernel]\ndata_dir = "f"\nenvironment = "x-1"\n', "[kernel]\ndata_dir = 7\n", 'kernel = "no"\n', "# nothing\n",
        "[kernel]\nstart_timeout_s = 5\n", "[kernel]\nstart_timeout_s = -5\n", "[kernel]\ndatadir = 'x'\n",
        '[kernel]\nenvironment = "Not Good"\n', '[magds]\ndsn = "x"\n', "[nonsense]\nx = 1\n",
        "kernel.data_dir = 'dotted'\n", '[kernel]\ndata_dir = ""\n', '[kernel]\ndata_dir = "~/x"\n',
        '[kernel.data_dir]\nx = "y"\n', "[[kernel]]\n",
    ]
)  # fmt: skip
FILES = st.dictionaries(
    st.sampled_from(
        [
            "mag.toml",
            "mag.test.toml",
            "mag.development.toml",
            "mag.x-1.toml",
            "mag.d/1.toml",
            "mag.d/2.toml",
            "secrets/test.toml",
            "secrets/development.toml",
            "creds/magmobo.kernel.data_dir",
            "creds/other",
        ]
    ),
    KERNEL,
    max_size=3,
)
OTHER = st.sampled_from(
    [
        "MAG_ROLE", "MAG_KERNEL", "MAG_KERNEL__COMPONENTS", "MAG_KERNEL__DATA_DIR__X", "MAG_MAGDS__DSN",
        "MAG_MAGDS__DSN__X", "MAG_MAGGATE__JWT__SECRET", "MAG_MAGGATE__JWT", "MAG_KERNEL__DATA_DIR_FILE",
        "MAG_MAGDS__DSN_FILE", "PORT", "DATABASE_URL", "MAG_X__Y_FILE", "mag_kernel__data_dir", "MAG_KERNEL__DATADIR",
        "MAG__KERNEL__DATA_DIR", "HOME", "CREDENTIALS_DIRECTORY",
        "MAG_KERNEL__STAGE_TIMEOUT_S", "MAG_A__B__C__D", "MAG_A__B",
    ]
)  # fmt: skip
ENVIRON = st.fixed_dictionaries(
    {},
    optional={"MAG_KERNEL__DATA_DIR": PATHS, "MAG_KERNEL__ENVIRONMENT": NAMES},
).flatmap(lambda said: st.dictionaries(OTHER, PATHS, max_size=2).map(lambda more: {**more, **said}))


def found_by_settings(data_dir: str | None, folder: Path, environ: Mapping[str, str]) -> Path | None:
    """None for what the settings reader refuses."""
    options = NodeOptions(data_dir=None if data_dir is None else Path(data_dir), working_dir=folder, environ=environ)
    try:
        return read_settings(options).folder.path
    except (ConfigError, RuntimeError):  # RuntimeError: no such user as after ~
        return None


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)


@settings(max_examples=400, deadline=None)
@given(st.none() | PATHS, FILES, ENVIRON)
@example(None, {"mag.toml": '[kernel]\nenvironment = "test"\n', "mag.test.toml": '[kernel]\ndata_dir = "t"\n'}, {})
@example(None, {"mag.toml": "x = 1\n" + "#" * 2_000_000}, {})
@example("a", {"mag.toml": "[kernel\n"}, {})
@example(None, {}, {"MAG_MAGDS__DSN": "x", "MAG_MAGDS__DSN__X": "y"})
@example(None, {}, {"MAG_A__B": "x", "MAG_A__B__C__D": "y"})
@example(None, {}, {"MAG_MAGDS__DSN_FILE": "/nowhere"})
@example(None, {}, {"MAG_KERNEL__STAGE_TIMEOUT_S": "-1"})
@example(None, {"creds/magmobo.kernel.data_dir": "there\n"}, {"CREDENTIALS_DIRECTORY": "creds"})
@example(
    None, {"secrets/development.toml": '[kernel]\ndata_dir = "s"\n', "mag.d/1.toml": "kernel.data_dir = 'd'\n"}, {}
)
@example(None, {"mag.toml": "\n \n"}, {})
def test_what_is_found_is_what_the_settings_say(
    data_dir: str | None, files: Mapping[str, str], environ: Mapping[str, str]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mag-folder-"))
    try:
        write(folder, files)
        if "CREDENTIALS_DIRECTORY" in environ:
            environ = {**environ, "CREDENTIALS_DIRECTORY": str(folder / "creds")}
        found = find_folder(data_dir, folder, environ)
        assert found is None or found.path == found_by_settings(data_dir, folder, environ)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("data_dir", "files", "environ", "expected"),
    [
        (None, {}, {}, "mag_data"),
        ("there", {}, {"MAG_KERNEL__DATA_DIR": "here"}, "there"),
        (None, {}, {"MAG_KERNEL__DATA_DIR": "here", "MAG_MAGGATE__JWT__SECRET": "x"}, "here"),
        (None, {"mag.toml": '[kernel]\ndata_dir = "file"\n[magds]\ndsn = "x"\n'}, {}, "file"),
        (None, {"mag.toml": '[kernel]\ndata_dir = "file"\n'}, {"MAG_KERNEL__DATA_DIR": "here"}, "here"),
        (None, {"mag.test.toml": '[kernel]\ndata_dir = "test"\n'}, {"MAG_KERNEL__ENVIRONMENT": "test"}, "test"),
        (None, {"mag.d/1.toml": '[kernel]\ndata_dir = "d"\n', "mag.toml": "#\n"}, {}, "d"),
        (None, {"secrets/development.toml": '[magds]\ndsn = "x"\n'}, {}, "mag_data"),
    ],
)
def test_what_people_do_is_found_without_the_settings_reader(
    tmp_path: Path, data_dir: str | None, files: Mapping[str, str], environ: Mapping[str, str], expected: str
) -> None:
    write(tmp_path, files)
    found = find_folder(data_dir, tmp_path, environ)
    assert found is not None
    assert found.path == tmp_path / expected


@pytest.mark.parametrize("name", ["mag.toml", "mag.development.toml", "secrets/development.toml"])
def test_what_is_no_file_and_a_secret_that_others_read_are_left_to_who_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("nowhere")
    assert find_folder(None, tmp_path, {}) is None
    path.unlink()
    os.mkfifo(path)
    assert find_folder(None, tmp_path, {}) is None
    path.unlink()
    path.write_text("# nothing\n")
    path.chmod(0o640)
    assert (find_folder(None, tmp_path, {}) is None) is name.startswith("secrets")
