"""The box's topic grammar: what a request's topic says, and where answers may go. Pure.

    edge/v1/<box>/request/<principal>/<playbook path…>              MQTT 5, request id as user property
    edge/v1/<box>/call/<principal>/<request id>/<playbook path…>    any version, request id as topic level
    edge/v1/<box>/response/<principal>/<request id>                 where answers go without a response topic
    edge/v1/<box>/callback/<token>                                  what an execution waits for, once
    edge/v1/<box>/reply/<token>                                     answers to what playbooks ask others
    edge/v1/<box>/status                                            retained, with last will

A broker does not tell a subscriber who published, so the principal is a topic level that the broker's access list
pins to the authenticated client (design §7).
"""

from __future__ import annotations

import re
from typing import Final

from edge.core.errors import RequestRefused
from edge.core.limits import PLAYBOOK_PATH_BYTES_MAX, PRINCIPAL_BYTES_MAX, REQUEST_ID_BYTES_MAX
from edge.core.records import record

ROOT: Final = "edge/v1"
#: Stands for the request id in a response topic where there is none.
NO_ID: Final = "-"
#: Playbook level of the access probe's own publishes; never a request.
PROBE_PLAYBOOK: Final = ".probe"
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f/+#]+")
_PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


@record
class RequestTopic:
    """A request's topic, taken apart. `request_id` is None in the MQTT 5 form."""

    principal: str
    playbook: str
    request_id: str | None

    @property
    def form(self) -> str:
        """ "v311" where the id is a topic level and the answer goes to the fixed topic, else "v5"."""
        return "v5" if self.request_id is None else "v311"


def request_filters(box: str) -> list[tuple[str, int]]:
    """What the gateway subscribes to, with QoS."""
    return [
        (f"{ROOT}/{box}/request/#", 1),
        (f"{ROOT}/{box}/call/#", 1),
        (f"{callback_prefix(box)}+", 1),
        (f"{reply_prefix(box)}+", 1),
    ]


def callback_prefix(box: str) -> str:
    """What the topic of a callback begins with; its token is the one level behind."""
    return f"{ROOT}/{box}/callback/"


def reply_prefix(box: str) -> str:
    """What the topic of an answer to a playbook's own request begins with; its token is the one level behind."""
    return f"{ROOT}/{box}/reply/"


def callback_token(box: str, topic: str) -> str | None:
    """The token in a callback's topic, whatever it is; None where the topic is not one of a callback."""
    prefix = callback_prefix(box)
    return topic[len(prefix) :] if topic.startswith(prefix) else None


def request_topic(box: str, principal: str, playbook: str) -> str:
    """Where an MQTT 5 client publishes a request. Raises RequestRefused where a name cannot be in a topic."""
    topic = f"{ROOT}/{box}/request/{principal}/{playbook}"
    parsed = parse(box, topic)
    if (parsed.principal, parsed.playbook) != (principal, playbook):
        raise RequestRefused(
            f"The principal {principal!r} is not one topic level.",
            mend="Use a name without a slash.",
            code="principal_invalid",
        )
    return topic


def response_topic(box: str, principal: str, request_id: str | None) -> str:
    """Where answers go that named no response topic of their own."""
    return f"{ROOT}/{box}/response/{principal}/{request_id or NO_ID}"


def status_topic(box: str) -> str:
    """Retained: `{"online": true}`; the last will says false."""
    return f"{ROOT}/{box}/status"


def parse(box: str, topic: str) -> RequestTopic:
    """Take a request's topic apart. Raises RequestRefused `topic_invalid` saying which level is wrong."""
    prefix = f"{ROOT}/{box}/"
    kind, _, rest = topic[len(prefix) :].partition("/") if topic.startswith(prefix) else ("", "", "")
    levels = rest.split("/")
    request_id = None
    if kind == "call":
        if len(levels) < 3:
            raise _invalid(box, "it ends before the playbook")
        request_id = levels.pop(1)
        if len(request_id.encode()) > REQUEST_ID_BYTES_MAX or not _NAME.fullmatch(request_id):
            raise _invalid(box, f"the request id must have 1 to {REQUEST_ID_BYTES_MAX} bytes")
    elif kind != "request":
        raise _invalid(box, "it is neither a request nor a call to this box")
    if len(levels) < 2:
        raise _invalid(box, "it ends before the playbook")
    principal, playbook = levels[0], "/".join(levels[1:])
    if len(principal.encode()) > PRINCIPAL_BYTES_MAX or not _NAME.fullmatch(principal):
        raise _invalid(box, f"the principal must have 1 to {PRINCIPAL_BYTES_MAX} bytes")
    if playbook != PROBE_PLAYBOOK and (
        len(playbook) > PLAYBOOK_PATH_BYTES_MAX or not _PATH.fullmatch(playbook)
    ):
        raise _invalid(box, "the playbook path has an empty level or a character that no path has")
    return RequestTopic(principal, playbook, request_id)


def _invalid(box: str, what: str) -> RequestRefused:
    return RequestRefused(
        f"The topic is not one of a request: {what}.",
        mend=f"Publish to {ROOT}/{box}/request/<principal>/<playbook> (MQTT 5) "
        f"or {ROOT}/{box}/call/<principal>/<request id>/<playbook>.",
        code="topic_invalid",
    )


def may_answer_to(box: str, principal: str, topic: str) -> bool:
    """Whether the gateway may publish an answer there on a client's word.

    The gateway publishes with its own rights, so a response topic must not reach what the client could not:
    nothing of the broker's own ($…), and below edge/… only the principal's own response topics.
    """
    if not topic or "+" in topic or "#" in topic or "\x00" in topic or topic.startswith("$"):
        return False
    if topic.startswith("edge/"):
        return topic.startswith(f"{ROOT}/{box}/response/{principal}/")
    return True
