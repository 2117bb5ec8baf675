"""The box's own log as a source: its journal's files and its blobs, read beside a runtime or without one.

Called by the command line. It writes nothing and never opens the index.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge.core.chain import OpenedGroup
from edge.core.errors import RequestRefused
from edge.core.settings import Settings
from edge.replay.source import Missing
from edge.store.blobs import BlobStore
from edge.store.journal import read_groups


class JournalSource:
    """The log of one data folder. Raises RequestRefused where there is none yet."""

    def __init__(self, settings: Settings) -> None:
        self._folder, self._blob_folder = settings.journal_folder, settings.blob_folder
        self.box = settings.box
        self.missing: list[Missing] = []
        header = next((header for header, _, _ in read_groups(self._folder)), None)
        if header is None:
            raise RequestRefused(
                f"There is no event in {self._folder}.", mend="Name the data folder with --data."
            )
        self.log_id = header.log_id

    def groups(self, after_seq: int = 0) -> Iterator[OpenedGroup]:
        """As in Source. A pruned log begins where it begins: see `edge.core.carried`."""
        for _, group, _ in read_groups(self._folder, after_seq):
            yield group

    def blob(self, digest: bytes) -> bytes:
        """As in Source. Raises LogDamaged."""
        return BlobStore(self._blob_folder).get(digest)
