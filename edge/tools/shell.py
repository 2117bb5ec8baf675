"""The `shell` kind: one program with its arguments, run to its end; no shell reads anything.

Called by workers bound to a step with programs; the launcher beside the worker starts it, with an empty environment
but what is named, in its own process group and a tighter sandbox. Must never put arguments together to one text.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import check_plain, decode_json_payload
from edge.core.errors import PayloadInvalid, ToolFailed
from edge.core.limits import PROGRAM_ARGUMENTS_MAX, PROGRAM_INPUT_BYTES_MAX
from edge.core.values import Ended
from edge.tools.contract import ToolContext

#: Of what a failed program said: the end of it, where the reason stands.
_TAIL_MAX: Final = 2_000
#: The whole argument list; the kernel's own bound on one argument is 128 KiB.
_ARGUMENTS_BYTES_MAX: Final = 64 * 1024


class ShellTool:
    """Runs one program."""

    kind: Final = "shell"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run it; `{exit_code, stdout, stderr}`, and `data` where its output is asked for as JSON.

        `config`: `request` (a tree giving `cmd`, `env`, `stdin`), `timeout_ms`, `response`. Raises ToolFailed:
        `exit_code` (with the outputs), `program_killed`, `timeout`, `output_too_large`, `access_denied`,
        `program_failed`, `request_invalid`, `response_invalid`.
        """
        parts = context.render(config["request"])
        argv = _argv(parts.get("cmd"), context)
        environment = _environment(parts.get("env"))
        timeout_ms = config["timeout_ms"]
        ended = context.run_program(argv, environment, _input(parts.get("stdin")), timeout_ms)
        return _value(argv[0], ended, config["response"], timeout_ms)


TOOL: Final = ShellTool()


def _argv(given: Any, context: ToolContext) -> list[str]:
    if not isinstance(given, list) or not given:
        raise _invalid("`cmd` is no list of arguments.", 'Write cmd: ["/usr/bin/program", "--flag", …].')
    argv = [_argument(each) for each in given]
    if len(argv) > PROGRAM_ARGUMENTS_MAX or sum(map(len, argv)) > _ARGUMENTS_BYTES_MAX:
        raise _invalid(
            f"`cmd` has more than {PROGRAM_ARGUMENTS_MAX} arguments, or they are too long.", "Use stdin."
        )
    granted = context.access.programs
    if "/" not in argv[0]:
        argv[0] = next((path for path in granted if path.rpartition("/")[2] == argv[0]), argv[0])
    if argv[0] not in granted:
        raise ToolFailed(
            f"The step may not run {argv[0]!r:.100}.",
            code="access_denied",
            mend=f'Grant it: spec.policy.access.programs: ["{argv[0]:.100}"], by its whole path.',
        )
    return argv


def _argument(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _invalid(f"An argument is {type(value).__name__}.", "Let each be a text or a number.")
    text = str(value)
    if "\0" in text:
        raise _invalid("An argument holds a NUL.", "Take it out.")
    return text


def _environment(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > PROGRAM_ARGUMENTS_MAX:
        raise _invalid("`env` is no map of names and texts.", "Write env: {NAME: value}.")
    made = {name: _argument(value) for name, value in given.items() if value is not None}
    if any(not name or "=" in name or "\0" in name for name in made):
        raise _invalid("A name of `env` is empty or holds `=`.", "Rename it.")
    return made


def _input(given: Any) -> bytes:
    data = b"" if given is None else given if isinstance(given, bytes) else str(given).encode()
    if isinstance(given, (dict, list)):
        raise _invalid("`stdin` is a map or a list.", "Write it with `| tojson`.")
    if len(data) > PROGRAM_INPUT_BYTES_MAX:
        raise _invalid(
            f"`stdin` has {len(data)} bytes; {PROGRAM_INPUT_BYTES_MAX} may be given.", "Give less."
        )
    return data


def _value(name: str, ended: Ended, response: str, timeout_ms: int) -> dict[str, Any]:
    said = {"stdout": _text(ended.stdout), "stderr": _text(ended.stderr)}
    if ended.how == "exit" and ended.number == 0:
        value: dict[str, Any] = {"exit_code": 0, **said}
        return {**value, "data": _json(name, ended.stdout)} if response == "json" else value
    raise _failure(name, ended, {key: text[-_TAIL_MAX:] for key, text in said.items()}, timeout_ms)


def _failure(name: str, ended: Ended, said: dict[str, str], timeout_ms: int) -> ToolFailed:
    details: dict[str, Any] = {"shell": {"exit_code": ended.number if ended.how == "exit" else None, **said}}
    if ended.how == "exit":
        mend = "Look at output.error.shell, or write a rule for it in the tool's spec.policy."
        return ToolFailed(f"{name} ended with {ended.number}.", code="exit_code", mend=mend, details=details)
    if ended.how == "signal":
        why = signal.Signals(ended.number).name
        mend = "Look at output.error.shell; raise spec.memory_mb where it ran out of memory."
        return ToolFailed(f"{name} was ended by {why}.", code="program_killed", mend=mend, details=details)
    if ended.how == "timeout":
        mend = "Raise the tool's `timeout`, or let it do less."
        details |= {"kind": "timeout", "retryable": True}
        return ToolFailed(
            f"{name} ran longer than {timeout_ms / 1_000:g} s.", code="timeout", mend=mend, details=details
        )
    if ended.how == "output":
        mend = "Let it write into a granted file, or say less."
        return ToolFailed(f"{name} wrote too much.", code="output_too_large", mend=mend)
    reason = _text(ended.stderr)[:200]
    return ToolFailed(
        f"{name} could not be started: {reason}.",
        code="access_denied" if ended.how == "denied" else "program_failed",
        mend="Is it there, and may it be executed? The interpreter of a script must be granted too.",
    )


def _json(name: str, data: bytes) -> Any:
    try:
        return decode_json_payload(data)
    except PayloadInvalid as error:
        raise ToolFailed(
            f"What {name} wrote is no JSON: {error.message}",
            code="response_invalid",
            mend="Take `as: json` out to see what it wrote.",
        ) from error


def _text(data: bytes) -> str:
    return str(check_plain(data.decode(errors="replace")))


def _invalid(message: str, mend: str) -> ToolFailed:
    return ToolFailed(message, code="request_invalid", mend=mend)
