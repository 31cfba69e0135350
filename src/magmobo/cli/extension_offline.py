"""What authors of extensions do without a node: `extension:new`, `:validate`, `:test`, `:pack`, `:keygen`, `:sign`.

Boundary: no code of an extension runs in this process; its tests run in one of their own. A private key is read from a
file that is its owner's alone, and shown nowhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magmobo.cli import options
from magmobo.cli.output import as_typed, echo, flush_quietly, print_json, printable, shortened, styled
from magmobo.cli.statuses import counted

if TYPE_CHECKING:
    from magmobo.extensions.package.errors import Problem
    from magmobo.extensions.package.format import Package
    from magmobo.extensions.package.manifest import Manifest

_INVALID = 5
_folder = click.argument("folder", type=click.Path(path_type=Path), default=".")
_replace = click.option("--replace", is_flag=True, help="Replace the file if it is there.")


@click.command("extension:new")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Into this folder.  [default: ./NAME]")
@options.as_json
def new(name: str, folder: Path | None, as_json: bool) -> int:
    """Write a new extension called NAME, such as delay-alerts: a manifest, twenty lines of code, a test."""
    from magmobo.extensions.package.scaffold import scaffold

    place = Path(name) if folder is None else folder
    files = scaffold(place, name)
    if as_json:
        print_json("extension:new", {"id": name, "folder": str(place.absolute()), "files": files})
        return 0
    shown = printable(shortened(str(place.absolute())))
    echo(f"{counted(len(files), 'file')} in {shown}:")
    for path in files:
        echo(f"  {path}")
    echo(as_typed(f"next: change extension.py, then `mag extension:test {shown}` and `mag extension:pack {shown}`"))
    return 0


@click.command("extension:validate")
@click.argument("target", type=click.Path(path_type=Path), default=".")
@options.as_json
def validate(target: Path, as_json: bool) -> int:
    """Check an extension: a folder, a manifest.json or a .magx file, every mistake at once. Exit 0: none; 5: some.

    Whose signature a package carries is said, not checked: the node does that, with the keys that it trusts.
    """
    manifest, package, problems = _looked_at(target)
    if as_json:
        facts = {"problems": [{"path": one.path, "reason": one.reason} for one in problems]}
        print_json("extension:validate", {"ok": not problems, **facts, **_facts(manifest, package)})
    elif problems or manifest is None:
        echo(f"{styled('FAIL', 'red')}  {counted(len(problems), 'mistake')} in {printable(shortened(str(target)))}")
        for problem in problems:
            echo(f"  {as_typed(printable(str(problem)))}")
    else:
        echo("\n".join(_valid_lines(manifest, package)))
    return _INVALID if problems else 0


@click.command("extension:pack")
@_folder
@click.option("--output", type=click.Path(path_type=Path), help="Into this file.  [default: ./ID-VERSION.magx]")
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Sign it too, with this private key's file.")
@_replace
@options.as_json
def pack(folder: Path, output: Path | None, key_file: Path | None, replace: bool, as_json: bool) -> int:
    """Make the package of an extension's folder. The same folder gives the same file."""
    from magmobo.extensions.package.build import pack as packed
    from magmobo.extensions.package.build import sign as signed
    from magmobo.extensions.package.format import read_unverified
    from magmobo.extensions.package.keys import read_pair

    pair = None if key_file is None else read_pair(key_file)
    data = packed(folder) if pair is None else signed(packed(folder), pair)
    package = read_unverified(data)
    place = Path(f"{package.id}-{package.version}.magx") if output is None else output
    _write(place, data, replace=replace)
    return _tell_written("extension:pack", place, package, as_json=as_json)


@click.command("extension:sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="File of the private key.")
@click.option("--output", type=click.Path(path_type=Path), help="Into this new file.  [default: FILE itself]")
@options.as_json
def sign(file: Path, key_file: Path, output: Path | None, as_json: bool) -> int:
    """Sign the package FILE; a signature that it had is replaced."""
    from magmobo.extensions.package.build import sign as signed
    from magmobo.extensions.package.format import read_unverified
    from magmobo.extensions.package.keys import read_pair

    data = signed(_read(file), read_pair(key_file))
    place = file if output is None else output
    _write(place, data, replace=output is None)
    return _tell_written("extension:sign", place, read_unverified(data), as_json=as_json)


@click.command("extension:keygen")
@click.argument("file", type=click.Path(path_type=Path), default="magx.key")
@options.as_json
def keygen(file: Path, as_json: bool) -> int:
    """Make a pair of keys to sign packages with: FILE, which is yours alone, and FILE.pub, which you give away."""
    from magmobo.extensions.package.keys import generate, public_text, write_pair

    pair = generate()
    public_file = write_pair(pair, file)
    if as_json:
        names = {"private_file": str(file.absolute()), "public_file": str(public_file.absolute())}
        print_json("extension:keygen", {"key_id": pair.key_id, "public": public_text(pair.public), **names})
        return 0
    echo(f"key {pair.key_id}")
    echo(f"  {printable(shortened(str(file.absolute())))}: sign with it, keep it to yourself, keep a copy")
    echo(f"  {printable(shortened(str(public_file.absolute())))}: for whoever installs what you sign")
    echo(as_typed(f"next: on a node, `mag extension:trust --add {printable(shortened(str(public_file.absolute())))}`"))
    return 0


@click.command("extension:test", context_settings={"ignore_unknown_options": True})
@_folder
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
@options.as_json
def test(folder: Path, pytest_arguments: tuple[str, ...], as_json: bool) -> int:
    """Run the tests in an extension's FOLDER with pytest and a node that is not there; what follows goes to pytest.

    Exit 0: all passed; 1: some failed, or there are none. Without tests in the way: `mag extension:validate`.
    """
    code = _run_tests(folder, pytest_arguments, quiet=as_json)
    if as_json:
        print_json("extension:test", {"ok": code == 0, "folder": str(folder.absolute()), "pytest_exit_code": code})
    return 0 if code == 0 else 1


def _run_tests(folder: Path, arguments: Sequence[str], *, quiet: bool) -> int:
    """pytest's exit code. `quiet`: what it prints goes to standard error. Raises: PytestMissing, FileUnreadable."""
    import subprocess
    from importlib.util import find_spec

    from magmobo.cli.errors import FileUnreadable
    from magmobo.extensions.package.errors import PytestMissing

    if find_spec("pytest") is None:
        raise PytestMissing
    if not folder.is_dir():
        raise FileUnreadable(str(folder), "there is no such folder")
    place = folder.absolute()
    own = [
        place / name for name in ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg") if (place / name).is_file()
    ]
    # The settings of a project around it are not the extension's; and the plugin counts whether or not it is installed.
    settings = ["--rootdir", str(place), "-c", str(own[0]) if own else os.devnull]
    if not own and find_spec("pytest_asyncio") is not None:  # it warns whoever does not say
        settings += ["-o", "asyncio_default_fixture_loop_scope=function"]
    plugin = ["-p", "no:magx", "-p", "magx.pytest_plugin"]
    flush_quietly()
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *plugin, *arguments],
        cwd=place,
        stdout=sys.stderr if quiet else None,
        check=False,
    )
    return finished.returncode


def _looked_at(target: Path) -> tuple[Manifest | None, Package | None, Sequence[Problem]]:
    """What is there as far as it can be read, and its problems. Raises: FileUnreadable."""
    from magmobo.extensions.package.build import read_folder
    from magmobo.extensions.package.errors import ManifestRefused, PackageRefused, PackFailed, Problem
    from magmobo.extensions.package.format import MANIFEST, content_problems, read_unverified
    from magmobo.extensions.package.validate import read_manifest

    try:
        if target.is_dir():
            files = read_folder(target)
            manifest = read_manifest(files.get(MANIFEST) or _read(target / MANIFEST))
            return manifest, None, [Problem("files", one) for one in content_problems(manifest, files)]
        data = _read(target)
        if target.suffix == ".json":
            return read_manifest(data), None, []
        package = read_unverified(data)
    except ManifestRefused as error:
        return None, None, error.problems
    except PackFailed as error:
        return None, None, [Problem(error.path, error.reason)]
    except PackageRefused as error:
        return None, None, [Problem("package", error.reason)]
    return package.manifest, package, []


def _facts(manifest: Manifest | None, package: Package | None) -> dict[str, Any]:
    from magmobo.extensions.package.upgrades import effective_requests, highest_risk

    if manifest is None:
        return {}
    names = [one.name for one in manifest.capabilities]
    found: dict[str, Any] = {
        "id": manifest.id,
        "version": manifest.version,
        "risk": highest_risk(sorted(effective_requests(manifest))),
        "capabilities": names,
        "handlers": sorted(manifest.handlers()),
    }
    if package is not None:
        found |= {"sha256": package.sha256, "size_bytes": package.size_bytes, "key_id": package.key_id}
    return found


def _valid_lines(manifest: Manifest, package: Package | None) -> Sequence[str]:
    from magmobo.contracts.extensions import EXTENSION_CAPABILITIES
    from magmobo.extensions.package.scopes import KINDS

    lines: list[str] = []
    for request in manifest.capabilities:
        scope = ", ".join(one for kind in KINDS for one in getattr(request, kind))
        risk = EXTENSION_CAPABILITIES[request.name].risk
        optional = ", optional" if request.optional else ""
        lines.append(f"  asks for   {request.name} ({risk}{optional}){f': {scope}' if scope else ''}")
    lines += [f"  takes part {handler}" for handler in sorted(manifest.handlers())]
    if package is not None:
        signed = f"key {package.key_id} (not checked here)" if package.key_id else "nobody yet"
        lines += [f"  signed by  {signed}", f"  sha256     {package.sha256}"]
    return [f"{styled('ok', 'green')}    {manifest.id} {manifest.version} is valid", *map(printable, lines)]


def _tell_written(command: str, place: Path, package: Package, *, as_json: bool) -> int:
    if as_json:
        print_json(command, {"file": str(place.absolute()), **_facts(package.manifest, package)})
        return 0
    shown = printable(shortened(str(place.absolute())))
    echo(f"{shown}: {package.id} {package.version}, {counted(len(package.files), 'file')}, {package.size_bytes} bytes")
    echo(f"  sha256     {package.sha256}")
    if package.key_id:
        echo(f"  signed by  key {package.key_id}")
    else:
        echo(as_typed(f"next: `mag extension:sign {shown} --key KEYFILE`; `mag extension:keygen` makes a key"))
    return 0


def _read(file: Path) -> bytes:
    """Raises: FileUnreadable."""
    from magmobo.cli.errors import FileUnreadable
    from magmobo.contracts.extensions import MAX_PACKAGE_BYTES
    from magmobo.kernel.durable import read_regular

    try:
        return read_regular(file, MAX_PACKAGE_BYTES)
    except OSError as error:
        raise FileUnreadable(str(file), (error.strerror or type(error).__name__).lower()) from error


def _write(place: Path, data: bytes, *, replace: bool) -> None:
    """The whole file or nothing of it. Raises: OutputFileExists, OutputFileRefused."""
    from magmobo.cli.audit import new_file, written_whole
    from magmobo.cli.errors import OutputFileRefused

    beside = place.with_name(f".{place.name}.{os.getpid()}") if replace else place
    with written_whole(beside, new_file(beside)) as file:
        file.write(data)
    try:
        beside.chmod(0o644)  # a package is there to be given away
        beside.replace(place)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputFileRefused(str(place), error.strerror or type(error).__name__) from error
