"""The `edge` command: arguments, the choice of a command group, exit codes. The CLI's top: errors end here.

Each group is one file with `add(groups, shared)` and functions that take parsed arguments and return an exit code.
Only the file of the group that was asked for is imported: all of them take ten times as long as `edge cancel`.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from edge.cli.owner import act_for_owner
from edge.core.errors import EdgeError, Misconfigured, PlaybookInvalid, RequestRefused, Unavailable
from edge.core.settings import default_data_folder

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_UNAVAILABLE = 3

#: The command groups, each the name of its file, in the order in which `edge --help` lists them.
_GROUPS: Final = (
    "up",
    "request",
    "run",
    "playbook",
    "show",
    "explain",
    "replay",
    "whatif",
    "subscription",
    "cancel",
    "callback",
    "circuit",
    "log",
    "cache",
    "keychain",
    "bundle",
    "sync",
    "receipt",
    "central",
    "doctor",
    "vitals",
)

#: Errors of the system that say something of a path that was named.
_OF_PATHS: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EIO,
    }
)

_DESCRIPTION = """\
NoETL Edge: playbooks on one small box, every request in a durable log.

exit codes:
  0  it worked (the execution completed, the log is whole)
  1  it failed (the execution failed, the log is damaged, the drive refused)
  2  it was refused: wrong arguments, a playbook that cannot be compiled, a request that is not accepted
  3  nobody is there: no runtime or no broker answers
"""


def build_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The command line as far as these arguments need it: one group where they begin with one, else all."""
    parser = argparse.ArgumentParser(
        prog="edge",
        description=_DESCRIPTION,
        epilog='example:\n  edge run playbooks/library/hello.yaml --input \'{"name": "Ada"}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data",
        type=folder,
        metavar="FOLDER",
        help="data folder (default: $EDGE_DATA, else your own data folder)",
    )
    groups = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = [name for name in _GROUPS if arguments[:1] == [name]]
    for name in asked or _GROUPS:
        import_module(f"edge.cli.{name}").add(groups, shared)
    return parser


def folder(text: str) -> Path:
    """A folder's name, for argparse."""
    if not text:
        raise argparse.ArgumentTypeError("a folder's name cannot be empty")
    return Path(text)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
    _show_what_cannot_be_written()
    try:
        given = build_parser(arguments).parse_args(arguments)
        act_for_owner((getattr(given, "data", None) or default_data_folder()).expanduser())
        return int(given.command(given))
    except Unavailable as error:
        code = EXIT_UNAVAILABLE
        message = str(error)
    except PlaybookInvalid as error:
        print(error.message, file=sys.stderr)  # one problem a line, as compilers do
        return EXIT_REFUSED
    except (RequestRefused, Misconfigured) as error:
        code = EXIT_REFUSED
        message = str(error)
    except EdgeError as error:
        code = EXIT_FAILED
        message = str(error)
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        code = EXIT_FAILED
        if error.errno == errno.ENOSPC:
            message = "There is no room left where this command writes. Make some, or let it write elsewhere."
        elif error.errno in _OF_PATHS and error.filename is not None:
            message = f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}. Check the path."
        else:
            raise
    print(f"edge: {message}", file=sys.stderr)
    return code


def _show_what_cannot_be_written() -> None:
    """A sign that the terminal's encoding lacks, or a name that is no text, is shown by its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
