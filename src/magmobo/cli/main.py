"""Entry point of `mag`: the one place where errors become text and an exit code.

Invariant: an error raised on purpose never shows a traceback; any other is written to a file that the message names.
What a status needs is looked at first, and click is imported only when that is not enough.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from magmobo.cli.output import flush_quietly, print_error
from magmobo.contracts.errors import MagError

if TYPE_CHECKING:
    from pathlib import Path

    from magmobo.cli.context import Session

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 ok, 1 error, 2 usage, 3 no node, 4 degraded, 5 config, 6 denied,
    7 timeout, 130 interrupted.
    """
    from magmobo.cli import fast

    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = fast.run(words)
    except Exception as error:
        return _told(error, None)
    except KeyboardInterrupt:
        return INTERRUPTED
    if code is None:
        return _run_with_click(words)
    flush_quietly()
    return code


def _run_with_click(words: list[str]) -> int:
    import click

    from magmobo.cli.context import Session
    from magmobo.cli.group import mag
    from magmobo.cli.output import colours_allowed

    session = Session()
    try:
        result = mag.main(
            args=list(words), prog_name="mag", standalone_mode=False, color=colours_allowed(), obj=session
        )
        flush_quietly()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        return _told(error, session)


def _told(error: Exception, session: Session | None) -> int:
    """Say what went wrong on standard error; the exit code."""
    if isinstance(error, MagError):
        return print_error(error, None if session is None else session.hide)
    if isinstance(error, BrokenPipeError):
        flush_quietly()
        return 1
    return _report_unexpected(error, session)


def _report_unexpected(error: Exception, session: Session | None) -> int:
    folder = None if session is None else session.log_dir
    places = [folder, None] if folder is not None and folder.is_dir() else [None]
    where = "no file could be written for the details"
    for place in places:
        try:
            where = f"details are in {_write_details(error, place, session)}"
            break
        except OSError:  # a full disk may be what happened
            continue
    return print_error(MagError(f"something unexpected happened ({type(error).__name__}); {where}"))


def _write_details(error: Exception, folder: Path | None, session: Session | None) -> str:
    """The name of a new file with the traceback, in `folder` or where temporary files are. Raises: OSError."""
    import tempfile
    import traceback

    from magmobo.kernel.redact import redact_text

    hide = (None if session is None else session.hide) or redact_text
    with tempfile.NamedTemporaryFile(
        "w", prefix="mag-crash-", suffix=".txt", delete=False, encoding="utf-8", dir=folder
    ) as file:
        file.writelines(hide(part) for part in traceback.format_exception(error))
    return file.name


if __name__ == "__main__":
    sys.exit(main())
