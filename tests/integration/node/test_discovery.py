"""Components of installed packages: found by entry point, and a broken one keeps nobody from starting.

The packages are what pip leaves behind: a module and a `.dist-info` folder on `sys.path`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from magmobo.kernel.errors import BadDeclaration
from magmobo.node.components import (
    BUILT_IN,
    DEFAULT_COMPONENTS,
    find_components,
    installed_components,
    load_components,
    locate,
)
from magmobo.node.errors import ComponentNotLoadable

WORKING = """
from magmobo.contracts.component import Component

class {cls}(Component):
    name = "{name}"
"""


class Site:
    """A folder on `sys.path`, as `pip install --target` fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: list[str] = []

    def install(self, package: str, points: str, *, module: str = "", code: str = "", version: str = "1.0") -> None:
        info = self.path / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_bytes(dedent(points).encode("latin-1"))
        if module:
            (self.path / f"{module}.py").write_text(code)
            self.modules.append(module)

    def component(self, package: str, name: str, *, version: str = "1.0") -> None:
        """A package with one component that works; its module is called as the component."""
        self.install(
            package, f"[magmobo.components]\n{name} = {name}_module:Thing\n", module=f"{name}_module",
            code=WORKING.format(cls="Thing", name=name), version=version,
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    there = Site(tmp_path)
    yield there
    for module in there.modules:
        sys.modules.pop(module, None)


def names(configured: list[str] | None = None, **more: bool) -> list[str]:
    found = find_components(configured or [], **{"demo": False, **more})
    return [one.name for one in found.classes]


def test_the_names_of_ours_are_those_of_their_classes() -> None:
    assert [one.name for one in load_components(list(BUILT_IN.values()))] == list(BUILT_IN)
    assert load_components(list(BUILT_IN)) == load_components(list(BUILT_IN.values()))


def test_what_is_installed_takes_part(site: Site) -> None:
    site.component("mag-beat", "beat", version="2.3")
    found = find_components([], demo=False)
    assert [one.name for one in found.classes] == [*names_of_ours(), "beat"]
    assert found.optional == ("beat",)
    assert found.sources["beat"] == "mag-beat 2.3 (beat_module:Thing)"
    assert found.sources["magds"] == f"built in ({BUILT_IN['magds']})"
    assert found.notices == ()


def names_of_ours() -> list[str]:
    return [one.name for one in load_components(DEFAULT_COMPONENTS)]


def test_a_list_of_components_is_the_whole_list(site: Site) -> None:
    site.component("mag-beat", "beat")
    site.component("mag-other", "other")
    assert names(["magds"]) == ["magds"]
    found = find_components(["beat", "other_module:Thing"], demo=False)
    assert [one.name for one in found.classes] == ["beat", "other"]
    assert found.optional == ()
    assert found.sources == {"beat": "mag-beat 1.0 (beat_module:Thing)", "other": "other_module:Thing"}


def test_a_demo_by_its_name_joins_once() -> None:
    assert names(["demo", "magds"], demo=True) == ["demo", "magds"]


@pytest.mark.parametrize(
    ("points", "code", "complaint"),
    [
        ("beat = beat_module:Thing", "raise RuntimeError('half installed')", "RuntimeError: half installed"),
        ("beat = beat_module:Thing", "raise SystemExit(3)", "SystemExit: 3"),
        ("beat = beat_module:Thing", "import no_such_module_of_mine", "No module named 'no_such_module_of_mine'"),
        ("beat = beat_module:Nothing", WORKING.format(cls="Thing", name="beat"), "has no attribute 'Nothing'"),
        ("beat = beat_module", "", "expected `module:Class`"),
        ("beat = os:path", "", "it is not a Component class"),
        ("beat = beat_module:Thing", WORKING.format(cls="Thing", name="drum"), 'entry point "beat" leads to "drum"'),
        ("magds = beat_module:Thing", WORKING.format(cls="Thing", name="magds"), '"magds" is the name of another'),
        ("kernel = beat_module:Thing", WORKING.format(cls="Thing", name="kernel"), "belongs to the node itself"),
        ("beat = beat_module:Thing", WORKING.format(cls="Thing", name="beat") + "    after = 'x'\n", "`after` is not"),
    ],
)
def test_a_broken_package_is_a_notice(site: Site, points: str, code: str, complaint: str) -> None:
    site.install("mag-beat", f"[magmobo.components]\n{points}\n", module="beat_module", code=code)
    site.component("mag-fine", "fine")
    found = find_components([], demo=False)
    assert [one.name for one in found.classes] == [*names_of_ours(), "fine"]
    assert found.missing == (() if points.startswith("magds") else (points.partition(" ")[0],))
    [notice] = found.notices
    assert notice.startswith("mag-beat 1.0 (")
    assert complaint in notice
    assert "[MAG-" in notice


def test_a_broken_package_that_was_named_is_refused(site: Site) -> None:
    site.install("mag-beat", "[magmobo.components]\nbeat = beat_module:Thing\n", module="beat_module", code="1 / 0")
    with pytest.raises(ComponentNotLoadable, match="beat_module:Thing cannot be loaded: ZeroDivisionError"):
        find_components(["beat"], demo=False)
    with pytest.raises(ComponentNotLoadable, match="ZeroDivisionError"):
        find_components([], demo=False, asked=["beat"])
    assert find_components([], demo=False, asked=["magds"]).missing == ("beat",)
    assert find_components([], demo=False, asked=["beat"], lenient=True).missing == ("beat",)
    found = find_components(["beat", "magds"], demo=False, lenient=True)
    assert [one.name for one in found.classes] == ["magds"]
    assert found.notices[0].startswith("beat is left out: ")
    site.install(
        "mag-odd", "[magmobo.components]\nodd = odd_module:Thing\n", module="odd_module",
        code=WORKING.format(cls="Thing", name="odd") + "    after = 'x'\n",
    )  # fmt: skip
    with pytest.raises(BadDeclaration):
        find_components(["odd"], demo=False)


def test_a_name_that_nobody_has_is_refused_with_those_there_are(site: Site) -> None:
    site.component("mag-beat", "beat")
    with pytest.raises(ComponentNotLoadable, match=r"there are listener, magds, .*beat"):
        locate("baet")


def test_a_name_that_two_have_is_undecided(site: Site) -> None:
    site.component("mag-beat", "beat")
    site.install("mag-drum", "[magmobo.components]\nbeat = drum_module:Thing\n", module="drum_module")
    (site.path / "drum_module.py").write_text(WORKING.format(cls="Thing", name="beat"))
    with pytest.raises(ComponentNotLoadable, match=r"it is offered by mag-beat 1\.0 and mag-drum 1\.0"):
        locate("beat")
    found = find_components([], demo=False)
    assert found.sources["beat"].startswith("mag-beat 1.0")
    [notice] = found.notices
    assert notice.startswith("mag-drum 1.0 (drum_module:Thing) is left out")
    assert "mag-beat 1.0" in notice


def test_damaged_metadata_hides_no_other_package(site: Site) -> None:
    site.component("mag-fine", "fine")
    site.install("mag-broken", "[magmobo.components]\nx = \xff\xfe:Y\n")
    site.install("mag-torn", "magmobo.components\n[[[=\n")
    nameless = site.path / "nameless-1.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text("[magmobo.components]\ny = y:Y\n")
    notices: list[str] = []
    assert [(offer.name, offer.package) for offer in installed_components(notices)] == [
        ("fine", "mag-fine 1.0"),
        ("y", "a package without a name"),
    ]
    assert notices
    assert all("cannot be read" in notice for notice in notices)


def test_of_two_installations_of_a_package_the_first_counts(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    older = Site(tmp_path_factory.mktemp("older"))
    older.component("mag-beat", "beat", version="0.9")
    site.component("mag-beat", "beat", version="1.1")
    sys.path.append(str(older.path))
    try:
        assert [offer.package for offer in installed_components([])] == ["mag-beat 1.1"]
    finally:
        sys.path.remove(str(older.path))


def test_nothing_is_scanned_for_a_list_of_paths(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.component("mag-beat", "beat")
    read: list[str] = []
    monkeypatch.setattr("magmobo.node.components.installed_components", lambda notices: read.append("all") or iter(()))
    assert names(["beat_module:Thing", "magds"]) == ["beat", "magds"]
    assert read == []
    assert names() == names_of_ours()
    assert read == ["all"]
