"""The corpus is whole: each case has its extension, each extension packs, and its README tells of all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.hostile.extensions.attacks import ATTACKS, INHERITED
from tests.hostile.extensions.gate_cases_system import CASES as SYSTEM_CASES
from tests.hostile.extensions.node_gate import CORPUS, load_corpus

from magmobo.extensions.package.build import pack
from magmobo.extensions.package.format import read_unverified

corpus = load_corpus()


def test_each_case_has_an_extension() -> None:
    assert {case for one in corpus.CORPUS for case in one.cases} == set(range(1, 41))
    assert len({one.id for one in corpus.CORPUS}) == len(corpus.CORPUS)


def test_each_attack_on_the_system_belongs_to_a_case_of_a_system_extension() -> None:
    attacked = {attack.case for attack in (*ATTACKS.values(), *INHERITED.values())}
    assert attacked <= set(SYSTEM_CASES)
    assert set(SYSTEM_CASES) - attacked == {13}, "case 13 is tried with the sockets of its neighbours"


@pytest.mark.parametrize("extension_id", [one.id for one in corpus.CORPUS])
def test_each_extension_packs_as_its_manifest_says(tmp_path: Path, extension_id: str) -> None:
    hostile = corpus.find(extension_id)
    package = read_unverified(pack(corpus.write(hostile, tmp_path / extension_id)))
    assert package.id == extension_id
    code = package.files["extension.py"].decode()
    for handler in package.manifest.handlers():
        name = handler.partition(":")[2]
        assert f'"{name}"' in code, f"{handler} has no code"


def test_the_readme_names_every_file_of_code() -> None:
    readme = (CORPUS.parent / "README.md").read_text(encoding="utf-8")
    for code in {one.code for one in corpus.CORPUS}:
        ids = [one.id for one in corpus.CORPUS if one.code == code]
        assert any(one in readme for one in ids), code


def test_the_program_writes_all_of_them_out(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, str(CORPUS), str(tmp_path)], capture_output=True, text=True, check=True)
    assert len(said.stdout.splitlines()) == len(corpus.CORPUS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.id for one in corpus.CORPUS)
    assert subprocess.run([sys.executable, str(CORPUS)], capture_output=True, check=False).returncode == 2
