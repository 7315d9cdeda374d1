"""The command line.  Every command is a file of ``recbole_ser.commands``."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any

import click

from recbole_ser import WITHOUT_RECBOLE, __version__
from recbole_ser.commands.arguments import LazyGroup
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.workers.started import started_as_several, told_launcher

COMMANDS = (
    "run", "tune", "study", "codes", "texts", "recommend", "explain", "compare", "groups", "figure", "validate",
    "describe", "convert", "synthesize", "doctor",
)  # fmt: skip


class _Commands(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C, or a closed pipe on standard output, ends it without a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            return 141


@click.group(cls=_Commands, modules={name: f"recbole_ser.commands.{name}" for name in COMMANDS})
@click.version_option(__version__, prog_name="recbole-ser", message="%(prog)s %(version)s")
def commands() -> None:
    """Search-enhanced recommendation on RecBole.

    Shell completion: eval "$(_RECBOLE_SER_COMPLETE=bash_source recbole-ser)", or zsh_source, or fish_source.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2, with a message on standard error, if the user's input is wrong."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if started_as_several() and arguments[:1] != ["run"]:
            raise ConfigError("of several workers 'recbole-ser run' alone makes one run: start this without torchrun")
        status = commands.main(args=arguments, prog_name="recbole-ser", standalone_mode=False)
        return status or 0
    except click.UsageError as error:
        where = "" if error.ctx is None else f" (see '{error.ctx.command_path} --help')"
        print(f"error: {error.format_message()}{where}", file=sys.stderr)
        return 2
    except UserError as error:
        if not told_launcher(error):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name != "recbole":
            raise
        print(f"error: {WITHOUT_RECBOLE}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {_about(error)}", file=sys.stderr)
        return 2


def _about(error: OSError) -> str:
    """What the operating system refused, in one line."""
    where = "" if error.filename is None else f"{error.filename}: "
    hint = " (free some space; a run or sweep that had begun can be resumed)" if error.errno == errno.ENOSPC else ""
    return f"{where}{error.strerror or error}{hint}"


if __name__ == "__main__":
    sys.exit(main())
