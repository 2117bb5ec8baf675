"""`edge keychain`: credentials of the box under aliases, set from standard input or a prompt and never shown.

Works on the sealed file itself, with or without a running box; the runtime notices by itself that it was replaced.
A value is never taken from the command line, where every process of the machine could read it.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from typing import TYPE_CHECKING, Any

from edge.core.errors import Misconfigured
from edge.core.limits import SECRET_BYTES_MAX
from edge.core.settings import load_settings
from playbooks.model.keychain import KINDS

if TYPE_CHECKING:
    from edge.security.keychain import Keychain

_EXAMPLES = """\
examples:
  edge keychain set api < token.txt                       # a bearer token
  edge keychain set meter --kind basic --username ada     # asks for the password
  edge keychain set weather --kind api_key --header X-API-Key < key.txt
  edge keychain set plant --kind map < fields.json        # {"username": "…", "password": "…"}
  edge keychain list

A playbook declares the alias (keychain: [{name: api}]), a step is granted it (spec.policy.access.keychain: [api]),
and its tool names it (auth: api) or reads it (keychain.api.token). The key lies in the data folder, or comes from
systemd: LoadCredentialEncrypted=noetl-edge-keychain."""


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "keychain",
        help="keep credentials under aliases",
        description="Keep credentials of this box under aliases, sealed, in the data folder.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    setting = actions.add_parser(
        "set", parents=[shared], help="set or replace one, its value from standard input"
    )
    setting.add_argument("alias")
    setting.add_argument("--kind", choices=KINDS, default="bearer")
    setting.add_argument("--username", help="of a basic credential")
    setting.add_argument("--header", default="X-API-Key", help="of an api_key (default: X-API-Key)")
    setting.set_defaults(command=_set)
    listing = actions.add_parser("list", parents=[shared], help="aliases, kinds and versions, never values")
    listing.set_defaults(command=_list)
    removing = actions.add_parser("remove", parents=[shared], help="take one out")
    removing.add_argument("alias")
    removing.set_defaults(command=_remove)
    rotating = actions.add_parser("rotate", parents=[shared], help="seal all anew with a new key")
    rotating.set_defaults(command=_rotate)


def _keychain(given: argparse.Namespace) -> Keychain:
    # Late: the library behind it takes 60 ms, which every other command would pay.
    from edge.security.keychain import Keychain

    return Keychain(load_settings(given.data).keychain_folder)


def _set(given: argparse.Namespace) -> int:
    value = _value(given.alias)
    if given.kind == "bearer":
        fields = {"token": value}
    elif given.kind == "basic":
        fields = {"username": given.username or "", "password": value}
    elif given.kind == "api_key":
        fields = {"header": given.header, "api_key": value}
    else:
        fields = _map(value)
    version = _keychain(given).put(given.alias, given.kind, fields)
    print(f"{given.alias} is set, version {version}")
    return 0


def _value(alias: str) -> str:
    """The secret, without the line end that editors and `echo` add. Raises Misconfigured."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Value of {alias} (it is not shown): ")
    data = sys.stdin.buffer.read(SECRET_BYTES_MAX * 4)
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Misconfigured("The value is no UTF-8 text.", mend="Encode it first, as base64.") from error


def _map(value: str) -> dict[str, str]:
    try:
        fields = json.loads(value)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(each, str) for each in fields.values()):
        raise Misconfigured("A map is JSON of texts.", mend='Give {"name": "value"} on standard input.')
    return fields


def _list(given: argparse.Namespace) -> int:
    for entry in _keychain(given).entries():
        print(f"{entry.alias:24} {entry.kind:8} version {entry.version:<4} {', '.join(entry.fields)}")
    return 0


def _remove(given: argparse.Namespace) -> int:
    if not _keychain(given).remove(given.alias):
        raise Misconfigured(f"There is no alias {given.alias!r:.80}.", mend="See edge keychain list.")
    print(f"{given.alias} is removed")
    return 0


def _rotate(given: argparse.Namespace) -> int:
    count = _keychain(given).rotate()
    print(f"{count} aliases are sealed with a new key")
    return 0
