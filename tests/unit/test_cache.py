"""Blocks of the cache: written once, mapped without copying, checked before use, hostile bytes refused."""

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import CacheMiss, PayloadInvalid, Unavailable
from edge.core.values import TableRef
from edge.store.arrow_stream import stream_from_table, table_from_stream
from edge.store.blocks import Blocks
from edge.store.cache import BlockStore

TABLE = pa.table({"x": [1.5, None, 3.0], "name": ["a", "b", None], "n": [1, 2, 3]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[BlockStore]:
    folder_fd = os.open(folder, os.O_DIRECTORY)
    yield BlockStore(folder_fd)
    os.close(folder_fd)


def outside(folder: Path, data: bytes, key: str = "payload") -> TableRef:
    (folder / key).write_bytes(data)
    return TableRef(key, hashlib.sha256(data).digest(), len(data), None, None)


def compressed(table: pa.Table, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def test_a_block_comes_back_as_it_was(store: BlockStore, folder: Path) -> None:
    """What is written is read, and its reference says what it is."""
    ref = store.write("block", TABLE)
    assert store.read(ref).equals(TABLE)
    assert (ref.rows, ref.columns) == (3, ("x", "name", "n"))
    data = (folder / "block").read_bytes()
    assert (ref.digest, ref.size_bytes) == (hashlib.sha256(data).digest(), len(data))
    assert os.listdir(folder) == ["block"]


@pytest.mark.parametrize("rows", [0, 1, 1_000, 400_000])
def test_every_size_takes_the_same_form(store: BlockStore, folder: Path, rows: int) -> None:
    """Small tables go through one buffer, large ones straight into the file; the bytes are the same."""
    table = pa.table({"x": pa.repeat(1.5, rows), "y": pa.arange(0, rows)})
    ref = store.write("block", table)
    assert (folder / "block").read_bytes() == stream_from_table(table)
    assert hashlib.sha256((folder / "block").read_bytes()).digest() == ref.digest
    assert store.read(ref).equals(table)


def test_chunks_do_not_show(store: BlockStore) -> None:
    """The same rows give the same bytes, however the table was put together."""
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    assert store.write("a", TABLE).digest == store.write("b", pieces).digest


def test_reading_copies_nothing(store: BlockStore) -> None:
    """Arrow allocates nothing for a read, and every buffer lies inside the mapping of the file."""
    ref = store.write("block", pa.table({c: pa.arange(0, 10_000) for c in "abcd"}))
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    table = store.read(ref)
    assert pool.bytes_allocated() == before
    maps = Path("/proc/self/maps").read_text().splitlines()
    line = next(line for line in maps if line.endswith("/block"))
    first, last = (int(part, 16) for part in line.split()[0].split("-"))
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                assert buffer is None or first <= buffer.address < buffer.address + buffer.size <= last
    assert "r--s" in line
    del table, chunk, column, buffer
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/block")]


def test_a_mapping_keeps_no_file_open(store: BlockStore) -> None:
    """Hundreds of tables may be held at once: a mapping costs no file handle."""
    ref = store.write("block", pa.table({"x": pa.arange(0, 10_000)}))
    before = len(os.listdir("/proc/self/fd"))
    held = [store.read(ref) for _ in range(300)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(held) == 300


@pytest.mark.parametrize("rows", [10, 10_000])
def test_a_table_outlives_its_file(store: BlockStore, folder: Path, rows: int) -> None:
    """A block that is deleted or written anew while somebody reads it changes nothing for them."""
    written = pa.table({"x": pa.arange(0, rows)})
    table = store.read(store.write("block", written))
    store.write("block", pa.table({"x": [9]}))
    (folder / "block").unlink()
    assert table.equals(written)


def test_small_blocks_are_not_allocated_by_arrow_either(store: BlockStore) -> None:
    """A block of a few pages is read in one piece and used where it lies."""
    ref = store.write("block", TABLE)
    before = pa.default_memory_pool().bytes_allocated()
    table = store.read(ref)
    assert pa.default_memory_pool().bytes_allocated() == before
    assert table.equals(TABLE)


@pytest.mark.parametrize("damage", ["absent", "shorter", "longer", "one bit", "empty"])
def test_another_block_is_a_miss(store: BlockStore, folder: Path, damage: str) -> None:
    """A block that is not the one written, to the bit, is a miss and never data."""
    ref = store.write("block", TABLE)
    path = folder / "block"
    data = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(data[:-1])
    elif damage == "longer":
        path.write_bytes(data + b"\0")
    elif damage == "one bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"")
    with pytest.raises(CacheMiss):
        store.read(ref)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../other", "/etc/passwd", "a/b", ".hidden", "a\0b", "x" * 256]
)
def test_a_key_names_a_file_of_the_folder(store: BlockStore, key: str) -> None:
    """A reference cannot lead out of the folder, and nobody can write under such a key."""
    with pytest.raises(CacheMiss):
        store.read(TableRef(key, b"", 10, 1, ("x",)))
    with pytest.raises(AssertionError):
        store.write(key, TABLE)


def test_planted_links_and_pipes_are_misses(store: BlockStore, folder: Path) -> None:
    """Author code may fill its folder with anything: a link is not followed, a pipe does not block."""
    ref = store.write("block", TABLE)
    (folder / "link").symlink_to(folder / "block")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for key in ("link", "pipe", "folder"):
        with pytest.raises(CacheMiss):
            store.read(TableRef(key, ref.digest, ref.size_bytes, ref.rows, ref.columns))


def test_a_deleted_folder_is_named(tmp_path: Path) -> None:
    """Writing into a folder that was deleted says so: the caller makes a new one."""
    folder = tmp_path / "gone"
    folder.mkdir()
    folder_fd = os.open(folder, os.O_DIRECTORY)
    store = BlockStore(folder_fd)
    ref = store.write("block", TABLE)
    (folder / "block").unlink()
    folder.rmdir()
    with pytest.raises(CacheMiss) as caught:
        store.write("block", TABLE)
    assert caught.value.problem_code == "cache_folder_gone"
    with pytest.raises(CacheMiss):
        store.read(ref)
    os.close(folder_fd)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_cache_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Where the cache has no room the write fails by name, and its temporary file is gone."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        folder_fd = os.open(tmp_path, os.O_DIRECTORY)
        store = BlockStore(folder_fd)
        for rows in (20_000, 2_000_000):
            with pytest.raises(Unavailable) as caught:
                store.write("block", pa.table({"x": pa.arange(0, rows)}))
            assert caught.value.problem_code == "cache_full"
            assert os.listdir(tmp_path) == []
        os.close(folder_fd)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_an_outside_block_is_validated(store: BlockStore, folder: Path) -> None:
    """A table that came with a request is checked in full, and then the table that was sent."""
    assert store.read(outside(folder, stream_from_table(TABLE))).equals(TABLE)


def offsets_out_of_bounds() -> bytes:
    data = pa.py_buffer(b"abc")
    offsets = pa.array([0, 2_000_000_000, 3], pa.int32()).buffers()[1]
    array = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    return stream_from_table(pa.table({"x": array}))


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello, this is no Arrow stream at all",
    "zeros": bytes(4_096),
    "half a stream": stream_from_table(TABLE)[:200],
    "offsets out of bounds": offsets_out_of_bounds(),
    "compressed with LZ4": compressed(TABLE, "lz4"),
    "compressed with ZSTD": compressed(TABLE, "zstd"),
    "a compressed dictionary": compressed(
        pa.table({"x": pa.array(["long text"] * 3).dictionary_encode()}), "zstd"
    ),
    "more rows than bytes": stream_from_table(pa.table({"x": pa.nulls(10**7)})),
    "one name twice": stream_from_table(pa.table([[1], [2]], names=["x", "x"])),
    "a column without a name": stream_from_table(pa.table([[1]], names=[""])),
    "a column's name not UTF-8": stream_from_table(pa.table({"qqq": [1]})).replace(b"qqq", b"\xe1\xe1\xe1"),
    "an inner name not UTF-8": stream_from_table(pa.table({"s": [{"qqq": 1}]})).replace(
        b"qqq", b"\xe1\xe1\xe1"
    ),
    "too many columns": stream_from_table(pa.table({f"c{at}": [1] for at in range(1_025)})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_streams_are_refused(name: str) -> None:
    """What is not a sound, uncompressed table with named columns is refused before anybody uses it."""
    with pytest.raises(PayloadInvalid):
        table_from_stream(HOSTILE[name])


@pytest.mark.parametrize("name", [name for name, data in HOSTILE.items() if data])
def test_hostile_blocks_are_refused(store: BlockStore, folder: Path, name: str) -> None:
    """A block from outside gets the same checks, though its digest is right."""
    ref = outside(folder, HOSTILE[name])
    with pytest.raises(PayloadInvalid):
        store.read(ref)


def test_ordinary_streams_are_accepted() -> None:
    """Types a client may well send pass: dictionaries, lists, structs, times, decimals, an empty table."""
    table = pa.table(
        {
            "d": pa.array(["a", None, "a"]).dictionary_encode(),
            "l": [[1], [], None],
            "s": [{"a": 1}, None, {"a": 3}],
            "t": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
            "m": pa.array([1, 2, 3]).cast(pa.decimal128(21, 2)),
            "n": pa.nulls(3),
        }
    )
    assert table_from_stream(stream_from_table(table)).equals(table)
    assert table_from_stream(stream_from_table(table.slice(0, 0))).num_rows == 0


FUZZ = """
import json, sys
sys.modules["numpy"] = None
import pyarrow.compute as pc
from edge.core.errors import PayloadInvalid
from edge.store.arrow_stream import table_from_stream
counts = {"refused": 0, "sound": 0}
for line in sys.stdin:
    try:
        table = table_from_stream(bytes.fromhex(line))
        # Whatever was let through must bear being used.
        table.to_pylist(); table.combine_chunks(); [pc.count(c) for c in table.columns]
        counts["sound"] += 1
    except PayloadInvalid:
        counts["refused"] += 1
print(json.dumps(counts))
"""


def mutations(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    sources = [
        stream_from_table(TABLE),
        stream_from_table(
            pa.table({"d": pa.array(["a", None, "a"] * 9).dictionary_encode(), "l": [[1], [], [2, 3]] * 9})
        ),
        stream_from_table(
            pa.table({"s": [{"a": 1.5, "b": "x"}] * 9, "v": pa.array(["y" * 20] * 9, pa.string_view())})
        ),
    ]
    made = []
    for _ in range(count):
        data = bytearray(rng.choice(sources))
        kind = rng.randrange(4)
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        elif kind == 1:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            at = rng.randrange(0, len(data) - 8, 4)
            data[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x10\0\0\0"]
            )
        else:
            at, other = rng.randrange(len(data)), rng.randrange(len(data))
            data[at : at + 16], data[other : other + 16] = data[other : other + 16], data[at : at + 16]
        made.append(bytes(data))
    return made


@pytest.mark.parametrize("seed", range(4))
def test_damaged_streams_never_end_the_process(seed: int) -> None:
    """300 damaged streams a seed: each is refused or sound, and none ends in a signal."""
    lines = "\n".join(data.hex() for data in mutations(seed, 300))
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done: Any = subprocess.run(
        [sys.executable, "-c", FUZZ],
        input=lines,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, f"seed {seed}: {done.returncode} {done.stderr[-500:]}"
    counts = json.loads(done.stdout)
    assert counts["refused"] + counts["sound"] == 300
    assert counts["refused"] > 100
    assert counts["sound"] > 0


def test_a_failing_drive_is_not_the_authors_fault(
    store: BlockStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that refuses is named as such, also where it refuses to take back what was begun."""

    def refuse(*given: object, **named: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(Unavailable) as caught:
            store.write("block", TABLE)
    assert caught.value.problem_code == "cache_unusable"


def test_blocks_that_cannot_be_removed_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an execution does not hang on a drive that refuses to remove its blocks."""
    blocks = Blocks(tmp_path / "cache", 1_000_000)
    blocks.put(b"d" * 32, 7, "7-a-0.arrow", b"bytes")

    def refuse(*given: object, **named: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        blocks.drop(7)
    assert blocks.used_bytes == 0
    blocks.close()
