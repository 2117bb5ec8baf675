"""What a source file holds, a playbook or a subscription, and its compiled form either way.

Called by the CLI and by tests; never by a daemon. A file that says neither is read as a playbook, so that the problem
is named where it stands.
"""

from __future__ import annotations

from playbooks.blueprint import Blueprint
from playbooks.compile import compile_playbook, says_cases
from playbooks.loader import Mapping_, Scalar, load
from playbooks.problems import PlaybookRefused, Problem, open_source
from playbooks.subscription import Subscription
from playbooks.subscription_compile import compile_subscription

Document = Blueprint | Subscription


def compile_document(data: bytes, file_name: str) -> Document:
    """A file's compiled form. Raises PlaybookRefused with all problems."""
    if not _says_subscription(data, file_name):
        return compile_playbook(data, file_name)
    made, problems = compile_subscription(data, file_name)
    if made is None:
        raise PlaybookRefused(problems)
    return made


def is_cases(data: bytes, file_name: str) -> bool:
    """Whether a file holds cases of a playbook (`playbooks.cases`)."""
    source = open_source(data, file_name)
    return not isinstance(source, Problem) and says_cases(load(source))


def _says_subscription(data: bytes, file_name: str) -> bool:
    source = open_source(data, file_name)
    root = None if isinstance(source, Problem) else load(source)
    kind = root.get("kind") if isinstance(root, Mapping_) else None
    return isinstance(kind, Scalar) and kind.value == "Subscription"
