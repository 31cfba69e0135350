"""`mag version` and `mag explain`: what needs neither node nor data folder."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Mapping
from importlib import resources

import click

from magmobo import __version__
from magmobo.cli import options
from magmobo.cli.output import as_typed, print_json


@click.command()
@options.as_json
def version(as_json: bool) -> int:
    """Version of this program."""
    if as_json:
        print_json("version", {"version": __version__, "python": platform.python_version()})
    else:
        click.echo(f"magmobo {__version__} (Python {platform.python_version()})")
    return 0


@click.command()
@click.argument("name", required=False)
@options.as_json
def runbook(name: str | None, as_json: bool) -> int:
    """Print the runbook NAME; without one, list those there are."""
    from magmobo.cli.errors import RunbookUnknown

    pages = runbooks()
    if name is None:
        if as_json:
            print_json("runbook", {"runbooks": {known: title_of(text) for known, text in pages.items()}})
        else:
            width = max(map(len, pages))
            click.echo("\n".join(f"  {known:<{width}}  {_about(text)}" for known, text in pages.items()))
        return 0
    if name not in pages:
        raise RunbookUnknown(name, next(iter(difflib.get_close_matches(name, pages, n=1)), None))
    text = pages[name]
    if as_json:
        print_json("runbook", {"name": name, "title": title_of(text), "text": text})
    else:
        click.echo(text.rstrip("\n"))
    return 0


def runbooks() -> Mapping[str, str]:
    """Name -> Markdown, as installed with this version."""
    pages = [path for path in resources.files("magmobo.cli").joinpath("runbooks").iterdir() if path.name[-3:] == ".md"]
    return {path.name[:-3]: path.read_text("utf-8") for path in sorted(pages, key=lambda path: path.name)}


def _about(text: str) -> str:
    """The title, in a list that says already what it is of."""
    return title_of(text).removeprefix("Runbook: ")


def title_of(text: str) -> str:
    """The first heading of a page."""
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


@click.command()
@click.argument("code")
@options.as_json
def explain(code: str, as_json: bool) -> int:
    """Cause and next step of an error CODE, such as MAG-CONF-001."""
    from magmobo.cli.catalogue import cause_of, error_classes
    from magmobo.cli.errors import CodeUnknown

    asked = code.strip().strip("[]").upper()
    classes = {error.code: error for error in error_classes()}
    error = classes.get(asked)
    if error is None:
        raise CodeUnknown(code, next(iter(difflib.get_close_matches(asked, classes, n=1)), None))
    if as_json:
        facts = {"name": error.__name__, "cause": cause_of(error), "next": error.remedy, "exit_code": error.exit_code}
        print_json("explain", {"code": error.code, **facts, "retryable": error.retryable})
        return 0
    click.echo(f"{click.style(error.code, bold=True)}  {error.__name__}")
    click.echo(f"cause: {cause_of(error)}")
    click.echo(f"next:  {as_typed(error.remedy)}")
    return 0
