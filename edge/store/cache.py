"""Arrow blocks: tables as IPC stream files in one playbook's cache folder, written once and then mapped.

Owns the files (one Arrow stream per key, `edge.store.arrow_stream`) and is the only place that opens them.
Called by workers (hydrate, write output) and by central code. The folder is given as an open directory
handle, so a worker locked in by landlock can use it.

Must never be the record: nothing here is flushed, any block may vanish at any moment, and every reader checks
size and SHA-256 before use. Must never import numpy (workers keep it out). A block that came from outside
(`TableRef.outside`) is validated in full first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
from typing import Any, Final, NoReturn

import pyarrow as pa

from edge.core.errors import CacheMiss, Unavailable
from edge.core.limits import KIB, MIB
from edge.core.values import BlockRef, TableRef
from edge.store.arrow_stream import OPTIONS, own_table, serialized, validated_table

#: Above this a stream goes straight into its file instead of through one buffer: twice the memory otherwise.
_BUFFERED_BYTES_MAX: Final = 1 * MIB
#: A block of a few pages is read, not mapped: setting up and tearing down a mapping costs 20 to 30 µs more than
#: copying 16 KiB. Arrow allocates nothing either way.
_READ_BYTES_MAX: Final = 16 * KIB
#: Above this chunks are kept as they are: joining them would copy the table once more.
_COMBINE_BYTES_MAX: Final = 16 * MIB
_FEW_VALUES: Final = 4_096

_libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap: Final = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_munmap: Final = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class _Map:
    """One read-only shared mapping, alive as long as a buffer refers to it.

    Not `mmap.mmap`, which keeps a duplicate of the file handle: a step that collects a hundred tables would
    run out of handles (WORKER_OPEN_FILES_MAX).
    """

    __slots__ = ("address", "size_bytes")

    def __init__(self, file_fd: int, size_bytes: int) -> None:
        self.size_bytes = 0
        address = _mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, file_fd, 0)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self.address: int = address
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        if self.size_bytes:
            _munmap(self.address, self.size_bytes)


class _FileSink:
    """A file that hashes what passes; what `pa.PythonFile` wants of a Python file."""

    closed = False

    def __init__(self, file_fd: int) -> None:
        self._file_fd = file_fd
        self.hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.hash.update(view)
        _write_all(self._file_fd, view)
        self.size_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back; and the cache is never flushed to a drive."""

    def close(self) -> None:
        """The store closes the handle itself."""


class BlockStore:
    """The blocks of one cache folder.

    `folder_fd` is an open directory handle; every file is opened relative to it, so the store works inside
    landlock and goes on naming the right folder whatever happens to its path. The caller closes it.
    """

    def __init__(self, folder_fd: int) -> None:
        self._folder_fd = folder_fd

    def write(self, key: str, table: pa.Table) -> TableRef:
        """Write `table` under `key`, replacing what stood there, and return its reference.

        Nobody has the reference before the file is whole, and a reader checks its digest, so there is no
        temporary name to rename. Raises CacheMiss with code
        `cache_folder_gone` where the folder was deleted, Unavailable `cache_full` where it has no room and
        `cache_unusable` where its drive fails.
        """
        assert _is_key(key), f"{key!r} cannot name a block"
        # Asking Arrow for the size costs as much as the rest; few values are a small table.
        few = table.num_rows * table.num_columns <= _FEW_VALUES
        size_bytes = 0 if few else table.nbytes
        if size_bytes <= _COMBINE_BYTES_MAX:
            table = table.combine_chunks()
        try:
            file_fd = self._create(key)
            try:
                if size_bytes <= _BUFFERED_BYTES_MAX:
                    stream = serialized(table)
                    digest, size_bytes = hashlib.sha256(stream).digest(), len(stream)
                    _write_all(file_fd, memoryview(stream))
                else:
                    digest, size_bytes = _stream_into(file_fd, table)
            except BaseException:
                self._undo(key)
                raise
            finally:
                os.close(file_fd)
        except OSError as error:
            self._refuse_write(key, error)
        return TableRef(key, digest, size_bytes, table.num_rows, tuple(table.schema.names))

    def write_bytes(self, key: str, data: bytes) -> bytes:
        """Write a large value's bytes under `key` and return their SHA-256. Raises as `write`."""
        assert _is_key(key), f"{key!r} cannot name a block"
        try:
            file_fd = self._create(key)
            try:
                _write_all(file_fd, memoryview(data))
            except BaseException:
                self._undo(key)
                raise
            finally:
                os.close(file_fd)
        except OSError as error:
            self._refuse_write(key, error)
        return hashlib.sha256(data).digest()

    def read_bytes(self, ref: BlockRef) -> bytes:
        """A large value's bytes. Raises CacheMiss where the block is not the one `ref` names."""
        data: bytes = self._open(ref).to_pybytes()
        return data

    def _create(self, key: str) -> int:
        """A new file under the key. One that stands there is removed, not changed: somebody may have it mapped."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(key, flags, 0o600, dir_fd=self._folder_fd)
        except FileExistsError:
            os.unlink(key, dir_fd=self._folder_fd)
            return os.open(key, flags, 0o600, dir_fd=self._folder_fd)

    def read(self, ref: TableRef) -> pa.Table:
        """Map the block and return its table without Arrow copying anything.

        Above 16 KiB its buffers lie inside the mapping; it lives as long as they do.

        Raises CacheMiss where the block is absent or is not the one `ref` names (size, digest), and
        PayloadInvalid where a block from outside is not a sound Arrow stream.
        """
        block = self._open(ref)
        if ref.outside:
            return validated_table(block)
        # The digest says that these are the bytes our own `write` made: no second validation.
        return own_table(block)

    def _open(self, ref: BlockRef) -> pa.Buffer:
        if not _is_key(ref.key):
            raise CacheMiss(f"{ref.key!r} cannot name a block of the cache.")
        # Not blocking and not following: author code may have planted a pipe or a link in its folder.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file_fd = os.open(ref.key, flags, dir_fd=self._folder_fd)
        except OSError as error:
            raise CacheMiss(f"Block {ref.key} is not in the cache ({error.strerror}).") from error
        try:
            size_bytes = os.fstat(file_fd).st_size
            if size_bytes != ref.size_bytes or size_bytes == 0:
                raise CacheMiss(f"Block {ref.key} has {size_bytes} bytes; {ref.size_bytes} were written.")
            if size_bytes <= _READ_BYTES_MAX:
                block = pa.py_buffer(os.pread(file_fd, size_bytes, 0))
            else:
                mapped = _Map(file_fd, size_bytes)
                block = pa.foreign_buffer(mapped.address, size_bytes, mapped)
        except OSError as error:
            raise CacheMiss(f"Block {ref.key} cannot be mapped ({error.strerror}).") from error
        finally:
            os.close(file_fd)
        if hashlib.sha256(block).digest() != ref.digest:
            raise CacheMiss(f"Block {ref.key} is not the block that was written: its digest differs.")
        return block

    def _undo(self, key: str) -> None:
        with contextlib.suppress(OSError):  # a drive that fails may fail here too: the first error is told
            os.unlink(key, dir_fd=self._folder_fd)

    def _refuse_write(self, key: str, error: OSError) -> NoReturn:
        if error.errno == errno.ENOENT:
            gone = os.fstat(self._folder_fd).st_nlink == 0
            raise CacheMiss(
                f"Block {key} was not written: the cache folder was deleted.",
                code="cache_folder_gone" if gone else "",
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Unavailable(
                f"Block {key} was not written: {error.strerror}.",
                code="cache_full",
                mend="Give the cache more room, or let the step return fewer rows.",
            ) from error
        if error.errno in (errno.EIO, errno.EROFS):
            raise Unavailable(
                f"Block {key} was not written: {error.strerror}.",
                code="cache_unusable",
                mend="The drive under the cache fails: look after it, or put the cache into memory.",
            ) from error
        raise error


def _is_key(key: str) -> bool:
    return bool(key) and not key.startswith(".") and "/" not in key and "\0" not in key and len(key) <= 255


def _stream_into(file_fd: int, table: pa.Table) -> tuple[bytes, int]:
    sink = _FileSink(file_fd)
    with pa.PythonFile(sink, mode="w") as file:
        writer = pa.RecordBatchStreamWriter(file, table.schema, options=OPTIONS)
        writer.write_table(table)
        writer.close()
    return sink.hash.digest(), sink.size_bytes


def _write_all(file_fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file_fd, view) :]
