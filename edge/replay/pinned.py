"""What executions are pinned to, found in the log itself: playbooks by digest, the seed of Python's hashes, releases.

Used by whoever runs executions again. A blueprint stands whole in the log (`catalog.registered`), and so in a sealed
segment: a log can be run again from segments and blobs alone. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edge.core.carried import held_by
from edge.core.chain import OpenedGroup
from edge.core.codec import encode
from edge.core.errors import LogDamaged
from edge.core.events import BootStarted, CatalogRegistered, Event
from edge.core.retention_events import Carried
from playbooks.blueprint import Blueprint


@dataclass(slots=True)
class Pinned:
    """What was met so far of a log."""

    #: Blueprints as bytes, by digest.
    found: dict[bytes, bytes] = field(default_factory=dict)
    #: The box's one seed, None where its log does not say.
    hash_seed: int | None = None
    releases: dict[str, None] = field(default_factory=dict)
    _read: dict[bytes, Blueprint] = field(default_factory=dict)

    def meet(self, event: Event) -> None:
        """One event more, in the order of the log."""
        for each in held_by(event):
            body = each.body
            if isinstance(body, CatalogRegistered):
                self.found[body.digest] = body.blueprint
            elif isinstance(body, BootStarted):
                self.hash_seed = body.hash_seed if self.hash_seed is None else self.hash_seed
                self.releases[body.version] = None

    def blueprint(self, digest: bytes) -> Blueprint:
        """The playbook of that digest. Raises LogDamaged where it was not met."""
        if digest not in self._read:
            data = self.found.get(digest)
            if data is None:
                raise LogDamaged(
                    f"The playbook {digest.hex()[:16]} is not in the part of the log that is here.",
                    mend="It stands in the segment that registered it: bring the log from its beginning "
                    "(edge bundle export FOLDER --all on the box).",
                )
            self._read[digest] = Blueprint.decode(data)
        return self._read[digest]


#: How the envelope of an event begins that is one of these: an array of any length, then the type's code.
_CODES: Final = frozenset({encode(BootStarted.CODE), encode(CatalogRegistered.CODE)})
_CARRIED: Final = encode(Carried.CODE)


def catalog_events(groups: Iterable[OpenedGroup]) -> Iterator[Event]:
    """What was registered and which releases began, in order, carried by pruning or not; little else is decoded."""
    for group in groups:
        for place in range(0, len(group.parts), 2):
            envelope = group.parts[place]
            if envelope[1:2] in _CODES or envelope[1:3] == _CARRIED:
                yield from held_by(group.event(group.first_seq + place // 2))


def pinned_by(groups: Iterable[OpenedGroup], digests: Collection[bytes]) -> Pinned:
    """Read groups from a log's beginning until all those playbooks were met. Raises LogDamaged, SegmentRejected."""
    pinned, left = Pinned(), set(digests)
    for event in catalog_events(groups):
        pinned.meet(event)
        left.difference_update(pinned.found)
        if not left and pinned.releases:
            break
    return pinned
