"""The command line: `python -m nin_core summary|check|train|fan|probe|export|runs|data`.

The commands are in `cli`. An error is one sentence on stderr and exit code 2. Ctrl-C ends a
command with 130, as a shell expects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import garbage
from .checks import ConfigError
from .cli.data import add_data
from .cli.network import add_export, add_summary
from .cli.output import CommandError
from .cli.runs import add_runs
from .cli.training import add_check, add_fan, add_probe, add_train

# In the order in which --help lists them.
COMMANDS = (
    add_summary,
    add_check,
    add_train,
    add_fan,
    add_probe,
    add_export,
    add_runs,
    add_data,
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m nin_core", description="NiN Explorer on the command line.")
    commands = parser.add_subparsers(
        title="commands",
        dest="command",
        required=True,
        metavar="summary|check|train|fan|probe|export|runs|data",
    )
    for add in COMMANDS:
        add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except (ConfigError, CommandError) as error:
        text = str(error)
        field = "_" in text.split(" ", 1)[0]  # names of fields stay as they are written
        print(text if field else text[:1].upper() + text[1:], file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    garbage.exit_quickly()
    sys.exit(main())
