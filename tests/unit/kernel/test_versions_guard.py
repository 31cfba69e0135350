"""Files of settings that are gone or cut off are told from edits, in a running node and over a restart."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from magmobo.kernel.config.guard import FileGuard

MAIN = b"""\
# the shop
[listener]
port = 8787

[magws]
limit = 3
tables = [
  "a",
  "b",
]

# that is all
"""


class Project:
    """A folder with files of settings, and a guard that begins anew with each start."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder, self.record = folder, data_dir / "config" / "files.json"
        data_dir.mkdir(exist_ok=True)
        (folder / "mag.d").mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.guard = FileGuard(self.record, self.folder)

    def write(self, name: str, text: bytes) -> None:
        (self.folder / name).write_bytes(text)

    def texts(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(self.folder.rglob("*.toml"))}

    def problems(self) -> list[str]:
        return list(self.guard.problems(self.texts()))

    def accept(self) -> None:
        self.guard.accept(self.texts())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "shop", tmp_path / "data")
    made.write("mag.toml", MAIN)
    made.write("mag.d/10-limits.toml", b"[magws]\nlimit = 4\n")
    made.accept()
    return made


def test_a_first_start_with_no_file_remembers_nothing(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path / "config" / "files.json", tmp_path)
    assert guard.problems({}) == []
    guard.accept({})
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_is_gone_is_told_until_that_is_accepted(project: Project, restart: bool) -> None:
    if restart:
        project.start()
    assert project.problems() == []
    (project.folder / "mag.d" / "10-limits.toml").unlink()
    (problem,) = project.problems()
    assert problem.startswith(f"{project.folder}/mag.d/10-limits.toml: counted until now and is gone")
    assert "mag config:reload --accept-removed" in problem
    assert project.problems() == [problem], "asking changes nothing"
    project.accept()
    assert project.problems() == []
    project.start()
    assert project.problems() == []


def test_every_file_that_is_gone_is_told(project: Project) -> None:
    (project.folder / "mag.d" / "10-limits.toml").unlink()
    (project.folder / "mag.toml").unlink()
    assert len(project.problems()) == 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_is_cut_off_anywhere_is_told(project: Project, restart: bool) -> None:
    last = MAIN.index(b"]\n\n#")
    for length in range(len(MAIN)):
        if restart:
            project.start()
        project.write("mag.toml", MAIN[:length])
        found = project.problems()
        if length <= last:
            assert len(found) == 1, MAIN[:length]
            is_line_end = MAIN[length : length + 1] == b"\n" and not MAIN[:length].endswith(b"\n")
            kept = MAIN[:length].count(b"\n") + is_line_end
            assert f"mag.toml: ends after line {kept} of 12; was it half written?" in found[0]
        else:
            assert found == [], "only blank lines and comments are missing"


@pytest.mark.parametrize(
    "edited",
    [
        MAIN,
        MAIN.removesuffix(b"\n"),
        MAIN + b"more = 1\n",
        MAIN + b"more = 1",
        MAIN.replace(b"port = 8787", b"port = 87"),
        MAIN.replace(b"[listener]\nport = 8787\n", b""),
        MAIN.replace(b"limit = 3\n", b"limit = 33333"),
        MAIN[: MAIN.index(b"[magws]")] + b"[magws]\nlimit = 4\n",
        MAIN[: MAIN.index(b"tables")] + b"# tables = []\n",
        MAIN[: MAIN.index(b"tables")] + b"# all the tables there are",
        b"# emptied\n",
        b"[kernel]\nenvironment = 'staging'\n" + MAIN,
    ],
)
@pytest.mark.parametrize("restart", [False, True])
def test_an_edit_is_an_edit(project: Project, edited: bytes, restart: bool) -> None:
    if restart:
        project.start()
    project.write("mag.toml", edited)
    assert project.problems() == []


def test_what_is_accepted_is_what_is_compared_with(project: Project) -> None:
    longer = MAIN + b"[health]\nfailures = 2\n"
    project.write("mag.toml", longer)
    project.accept()
    project.write("mag.toml", MAIN)
    assert len(project.problems()) == 1
    project.start()
    assert len(project.problems()) == 1
    project.accept()
    assert project.problems() == []


def test_a_file_that_is_there_but_not_read_is_left_out_on_purpose(project: Project) -> None:
    """Another environment, or another main file: the old one does not count, and nobody lost it."""
    del (texts := project.texts())[project.folder / "mag.d" / "10-limits.toml"]
    assert project.guard.problems(texts) == []


def test_a_project_can_move(project: Project, tmp_path: Path) -> None:
    moved = Project(tmp_path / "moved", tmp_path / "data")
    (project.folder / "mag.d").rename(moved.folder / "mag.d")
    (project.folder / "mag.toml").rename(moved.folder / "mag.toml")
    assert moved.problems() == []
    assert moved.guard.problems({}) == [], "all of it is there, and left out on purpose"
    moved.accept()
    (moved.folder / "mag.toml").unlink()
    moved.start()
    assert len(moved.problems()) == 1


def test_another_project_on_the_same_data_folder_lacks_nothing(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other", tmp_path / "data")
    assert other.problems() == []
    (project.folder / "mag.toml").unlink()
    assert len(other.problems()) == 1


def test_a_file_elsewhere_is_known_by_its_whole_path(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "secrets.toml"
    elsewhere.write_bytes(b"[a]\nb = 1\n")
    project.guard.accept({elsewhere: elsewhere.read_bytes()})
    project.start()
    assert project.guard.problems({elsewhere: b"[a]\n"}) != []
    elsewhere.unlink()
    assert str(elsewhere) in project.guard.problems({})[0]


def test_the_record_tells_nothing_of_the_text_and_is_private(project: Project) -> None:
    project.write("mag.toml", b"[magds]\ndsn = 'hunter2'\n")
    project.accept()
    content = project.record.read_bytes()
    assert b"hunter2" not in content
    assert b"dsn" not in content
    assert stat.S_IMODE(project.record.stat().st_mode) == 0o600


def test_what_is_the_same_is_not_written_again(project: Project) -> None:
    before = project.record.stat().st_ino
    project.accept()
    project.start()
    project.accept()
    assert project.record.stat().st_ino == before


def test_a_damaged_record_is_told_and_begun_anew_when_that_is_accepted(project: Project) -> None:
    whole = project.record.read_bytes().rstrip(b"\n")
    cut = [whole[:length] for length in range(len(whole))]
    turned = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [*cut, *turned, whole + b"x"]:
        project.record.write_bytes(content)
        project.start()
        (problem,) = project.problems()
        assert problem.startswith(f"{project.record}: cannot be read (it is not as MagMoBo wrote it)")
        assert "--accept-removed" in problem
    project.accept()
    project.start()
    assert project.problems() == []
    project.write("mag.toml", MAIN[:40])
    assert len(project.problems()) == 1


def test_what_cannot_be_written_counts_in_this_process(project: Project) -> None:
    blocker = project.record.parent / ".files.json.tmp"
    blocker.mkdir()
    project.write("mag.toml", MAIN + b"[health]\n")
    with structlog.testing.capture_logs() as lines:
        project.accept()
    assert [(line["log_level"], line["error"]) for line in lines] == [("warning", "Is a directory")]
    project.write("mag.toml", MAIN)
    assert len(project.problems()) == 1
    project.write("mag.toml", MAIN + b"[health]\n")
    blocker.rmdir()
    project.accept()
    project.write("mag.toml", MAIN)
    project.start()
    assert len(project.problems()) == 1, "it was written at the next occasion"


def test_a_record_that_cannot_be_read_is_told(project: Project) -> None:
    project.record.unlink()
    project.record.mkdir()
    project.start()
    (problem,) = project.problems()
    assert problem.startswith(f"{project.record}: cannot be read (this is no regular file)")


TEXTS = st.lists(st.sampled_from([b"a = 1", b"bb = 22", b"", b"# c", b"[t]"]), max_size=8).map(b"\n".join)


@given(text=TEXTS, other=TEXTS, data=st.data())
def test_only_a_beginning_that_lacks_something_is_told(
    text: bytes, other: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shop")
    guard, path = FileGuard(folder / "config" / "files.json", folder), folder / "mag.toml"
    path.write_bytes(text)
    guard.accept({path: text})
    lines = text.split(b"\n")
    kept = data.draw(st.integers(0, len(lines)))
    beginning, lost = b"".join(line + b"\n" for line in lines[:kept]), lines[kept:]
    says_something = any(line and not line.startswith(b"#") for line in lost)
    assert bool(guard.problems({path: beginning})) == says_something
    if not text.startswith(other):
        assert guard.problems({path: other + b"\n"}) == []
