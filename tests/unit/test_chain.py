"""The hash chain: its formula, written out once more, and what it notices."""

from __future__ import annotations

import hashlib

import cbor2
import pytest

from edge.core.chain import GENESIS, Context, encode_event, link_of, open_group, salt, seal_group
from edge.core.clock import Reading
from edge.core.errors import LogDamaged
from edge.core.event_body import Body
from edge.core.events import BootStarted, Event, Gap, StepDone, StepStarted

KEY = bytes(range(32))
AT = Context(b"loglogid", b"boot-id-16-bytes", Reading(5, 1_767_225_600_000_000_000, 2))
BODIES: list[Body] = [BootStarted("0.1.0", "box"), StepStarted(), StepDone(b"\x01"), Gap(1, 2, "torn")]


def parts_of(first_seq: int) -> list[bytes]:
    return [part for seq, body in enumerate(BODIES, first_seq) for part in encode_event(Event(seq, body))]


def expected_links(first_seq: int, previous: bytes, context: bytes, parts: list[bytes]) -> list[bytes]:
    """The formula of the module's docstring, written out independently."""
    links, link = [], previous
    for place in range(len(parts) // 2):
        seq = (first_seq + place).to_bytes(8, "big")
        envelope, body = parts[2 * place], parts[2 * place + 1]
        grain = hashlib.blake2b(seq, key=KEY, digest_size=16).digest()
        leaf = hashlib.sha256(
            b"\x00" + context + seq + envelope + hashlib.sha256(grain + body).digest()
        ).digest()
        link = hashlib.sha256(b"\x01" + link + leaf).digest()
        links.append(link)
    return links


def test_the_groups_bytes_and_links_follow_the_formula() -> None:
    """A sealed group is the CBOR array of context, previous link and parts, and its links are the formula's."""
    parts = parts_of(7)
    group = seal_group(7, b"p" * 32, AT, KEY, parts)
    context = cbor2.dumps([AT.log_id, AT.boot_id, 5, 1_767_225_600_000_000_000, 2])
    assert group.data == cbor2.dumps([context, b"p" * 32, parts])
    assert list(group.links) == expected_links(7, b"p" * 32, context, parts)
    assert (group.first_seq, group.last_seq) == (7, 10)


def test_a_group_is_read_back_whole() -> None:
    """Context, previous link and events of a group come back, and it checks against its own start."""
    group = seal_group(7, GENESIS, AT, KEY, parts_of(7))
    opened = open_group(7, group.data)
    assert (opened.context, opened.previous, opened.last_seq) == (AT, GENESIS, 10)
    assert [event.body for event in opened.events()] == BODIES
    assert opened.check(GENESIS, KEY) == group.links[-1]


def test_any_flipped_byte_is_noticed() -> None:
    """A flipped bit anywhere in a group's bytes is refused or gives another link."""
    group = seal_group(7, GENESIS, AT, KEY, parts_of(7))
    for place in range(len(group.data)):
        for bit in (0x01, 0x80):
            damaged = bytearray(group.data)
            damaged[place] ^= bit
            try:
                link = open_group(7, bytes(damaged)).check(GENESIS, KEY)
            except LogDamaged:
                continue
            assert link != group.links[-1], f"byte {place}"


def test_a_group_that_starts_elsewhere_breaks_the_chain() -> None:
    """A group that does not start from the link before it is refused, naming its first event."""
    opened = open_group(7, seal_group(7, b"p" * 32, AT, KEY, parts_of(7)).data)
    with pytest.raises(LogDamaged, match="The chain breaks at event 7"):
        opened.check(GENESIS, KEY)


def test_place_context_and_key_all_count() -> None:
    """The same event gives another link at another number, in another context, under another key or start."""
    envelope, body = encode_event(Event(7, StepStarted()))
    other = Context(AT.log_id, AT.boot_id, Reading(6, AT.at.wall_ns, 2))
    links = {
        link_of(GENESIS, AT.encode(), KEY, 7, envelope, body),
        link_of(GENESIS, AT.encode(), KEY, 8, envelope, body),
        link_of(GENESIS, other.encode(), KEY, 7, envelope, body),
        link_of(GENESIS, AT.encode(), bytes(32), 7, envelope, body),
        link_of(b"p" * 32, AT.encode(), KEY, 7, envelope, body),
    }
    assert len(links) == 5


def test_every_event_has_a_salt_of_its_own() -> None:
    """Salts differ by event and by key, so that one body's can be disclosed alone."""
    assert len({salt(key, seq) for key in (KEY, bytes(32)) for seq in range(50)}) == 100


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [b"", b""],
        [AT.encode(), GENESIS, []],
        [AT.encode(), GENESIS, [b"half"]],
        [AT.encode(), GENESIS, ["a", "b"]],
        [b"\x80", GENESIS, [b"a", b"b"]],
        [5, GENESIS, [b"a", b"b"]],
    ],
)
def test_what_is_no_group_is_damage(value: object) -> None:
    """Bytes that are no group are LogDamaged, naming the event where it should begin."""
    with pytest.raises(LogDamaged, match="group at event 3"):
        open_group(3, cbor2.dumps(value))


def test_an_unreadable_event_is_damage() -> None:
    """A group that holds an event of an unknown type is LogDamaged, naming the event."""
    group = seal_group(7, GENESIS, AT, KEY, [cbor2.dumps([99]), b"\xa0"])
    with pytest.raises(LogDamaged, match="event 7 has no known type"):
        open_group(7, group.data).events()
