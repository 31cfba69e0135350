"""Entry point of `mag`: the group, and the one place where errors become text and an exit code.

Invariant: an error raised on purpose never shows a traceback; any other is written to a file that the message names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from magmobo.cli.group import NounVerbGroup
from magmobo.cli.output import colours_allowed, flush_quietly, print_error
from magmobo.contracts.errors import MagError

INTERRUPTED = 130


@click.group(cls=NounVerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="magmobo", prog_name="mag")
def mag() -> None:
    """A self-hosted backend over any Postgres: REST, gap-free realtime and a console, in one process tree."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 ok, 1 error, 2 usage, 3 no node, 4 degraded, 5 config, 6 denied,
    7 timeout, 130 interrupted.
    """
    try:
        result = mag.main(args=arguments, prog_name="mag", standalone_mode=False, color=colours_allowed())
        flush_quietly()
        return result if isinstance(result, int) else 0
    except MagError as error:
        return print_error(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        flush_quietly()
        return 1
    except Exception as error:
        return _report_unexpected(error)


def _report_unexpected(error: Exception) -> int:
    import traceback

    from magmobo.kernel.observe.redact import redact_text

    with tempfile.NamedTemporaryFile(
        "w", prefix="mag-crash-", suffix=".txt", dir=_log_dir(), delete=False, encoding="utf-8"
    ) as file:
        file.writelines(redact_text(part) for part in traceback.format_exception(error))
    return print_error(MagError(f"something unexpected happened ({type(error).__name__}); details are in {file.name}"))


def _log_dir() -> Path | None:
    """Where the node of this command keeps its logs, when the command has found out; None is the system's own place."""
    context = click.get_current_context(silent=True)
    known = context.meta.get("magmobo.log_dir") if context else None
    return known if isinstance(known, Path) and known.is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
