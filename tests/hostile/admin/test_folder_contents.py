"""A data folder whose files were damaged or exchanged: a coded refusal, never a crash, never a fresh start."""

from __future__ import annotations

from pathlib import Path

import pytest

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import DataFolderError


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * 100_000, b"abc\x1b[31m", b"two words", b"line\nline", b"\0"])
def test_an_instance_id_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    folder = DataFolder(tmp_path)
    folder.instance_file.write_bytes(content)
    with pytest.raises(DataFolderError, match="instance_id"):
        folder.instance_id()
    assert folder.instance_file.read_bytes() == content


def test_an_empty_one_is_made_anew(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.instance_file.write_bytes(b"\n")
    assert folder.instance_id() == folder.instance_id() != ""
