"""The command line of a daemon: a few long options with a value each.

Called by the entries of the processes. Not argparse, which takes each daemon half a megabyte: people use `edge`, and
daemons are started by a supervisor. It must never print anything but what it refuses and its usage.
"""

from __future__ import annotations

import getopt
import sys
from collections.abc import Mapping, Sequence

from edge.core.records import record

LOG_LEVELS = ("debug", "info", "warning", "error")


@record
class Option:
    """One option: its default, what it may be (empty: anything), and what it is for."""

    default: str | None
    choices: tuple[str, ...] = ()
    help: str = ""


def read_options(program: str, options: Mapping[str, Option], given: Sequence[str]) -> dict[str, str | None]:
    """The options' values by name. Ends the process with code 2 where they cannot be read, with 0 after `--help`."""
    values: dict[str, str | None] = {name: option.default for name, option in options.items()}
    try:
        found, rest = getopt.gnu_getopt(list(given), "h", ["help", *(f"{name}=" for name in options)])
        if rest:
            raise getopt.GetoptError(f"unexpected argument {rest[0]!r}")
        for flag, value in found:
            name = flag.lstrip("-")
            if name in ("h", "help"):
                print(_usage(program, options))
                sys.exit(0)
            choices = options[name].choices
            if choices and value not in choices:
                raise getopt.GetoptError(f"--{name} cannot be {value!r}; it may be {', '.join(choices)}")
            values[name] = value
    except getopt.GetoptError as error:
        print(f"{program}: {error}\n{_usage(program, options)}", file=sys.stderr)
        sys.exit(2)
    return values


def _usage(program: str, options: Mapping[str, Option]) -> str:
    lines = [f"usage: python -m {program} {' '.join(f'[--{name} …]' for name in options)}"]
    for name, option in options.items():
        said = option.help or ", ".join(option.choices)
        lines.append(f"  --{name:<10} {said}" + (f" (default: {option.default})" if option.default else ""))
    return "\n".join(lines)
