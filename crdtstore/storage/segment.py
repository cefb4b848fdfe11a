"""One segment file: a header, blocks, then zeros, or what it held when it was another segment.

The question: after a power cut, which bytes had been promised? A *block* is exactly what one sync made durable: the
records of one ``write`` under one checksum. The next block is written only after that sync has returned, so a bad
block with a good one behind it had been promised (damage), and a bad block with nothing behind it had not (a torn
tail). Were records checked one by one, a sync cut short could leave its second record whole and its first one torn,
and look like damage.

A block is valid only where it was written: its checksum covers the segment's generation (old blocks of a recycled
file are of an older one) and its position, which counts the bytes of blocks since the log began (a copy of a block
inside of somebody's value stands elsewhere). Sealed fields are four unsigned 64-bit numbers, little-endian, and their
xxh3_64 together with what follows.

    header    magic, format, generation, position of the first block; bit 32 of the format: the file was recycled
    block     generation, position, payload length, number of records; payload: msgpack array of records

Source: DESIGN.md 5. Relied upon: a sector of 512 bytes is written whole or not at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64

from crdtstore.errors import StorageError

__all__ = [
    "FORMAT",
    "OVERHEAD_BYTES",
    "Block",
    "Header",
    "Octets",
    "beginning",
    "block_at",
    "block_bytes",
    "block_end",
    "create",
    "damage",
    "find_block",
    "generations",
    "header_of",
    "identity_of",
    "make_block",
    "make_directory",
    "make_header",
    "naming",
    "path_of",
    "read_bytes",
    "read_header",
    "records_of",
    "resembles_block",
    "sync_directory",
    "used_bytes",
    "write_all",
]

FORMAT = 1
_IS_RECYCLED = 1 << 32
"""In the field of the format. The rest of such a file are blocks of an older generation, and no torn tail."""
_MAGIC = int.from_bytes(b"crdtlog\n", "little")
_FIELDS = Struct("<QQQQ")
_CHECK_BYTES = 8
OVERHEAD_BYTES = _FIELDS.size + _CHECK_BYTES
"""Bytes of a segment's header, and of a block around its payload."""

_PIECE_BYTES = 1 << 23
_PAGE_BYTES = 1 << 12
_ZEROS = bytes(1 << 16)
Octets = bytes | bytearray
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


class Header(NamedTuple):
    """What a segment says of itself."""

    format: int
    generation: int
    position: int
    is_recycled: bool


class Block(NamedTuple):
    """A valid block and where in its file it ends."""

    records: list[bytes]
    end: int


def _seal(fields: Octets, payload: bytes = b"") -> bytes:
    check = xxh3_64(fields)
    check.update(payload)
    return b"".join((fields, check.digest(), payload))


def make_header(generation: int, position: int, *, is_recycled: bool = False) -> bytes:
    """The first bytes of a segment, written together with its first block."""
    format_ = FORMAT | (_IS_RECYCLED if is_recycled else 0)
    return _seal(_FIELDS.pack(_MAGIC, format_, generation, position))


def header_of(data: Octets) -> Header | None:
    """The header a file begins with, of whatever format; None when there is no valid one."""
    if len(data) < OVERHEAD_BYTES:
        return None
    magic, format_, generation, position = _FIELDS.unpack_from(data)
    if magic != _MAGIC or _seal(data[: _FIELDS.size]) != data[:OVERHEAD_BYTES]:
        return None
    return Header(format_ & ~_IS_RECYCLED, generation, position, bool(format_ & _IS_RECYCLED))


def make_block(generation: int, position: int, records: Sequence[bytes]) -> bytes:
    """The bytes of one block; all heavy calls are C."""
    payload = _pack(records)
    return _seal(_FIELDS.pack(generation, position, len(payload), len(records)), payload)


def block_at(data: Octets, offset: int, generation: int, position: int) -> Block | None:
    """The block that stands at this offset; None when there is none that is valid there."""
    view = memoryview(data)
    end, count = block_end(view, offset, generation, position)
    if not end:
        return None
    records = records_of(view[offset + OVERHEAD_BYTES : end])
    assert len(records) == count, f"a block of {len(records)} records says {count}"
    return Block(records, end)


def block_end(view: memoryview, offset: int, generation: int, position: int) -> tuple[int, int]:
    """Where the block at this offset ends and how many records it says it has; 0 and 0 when none is valid there."""
    if len(view) - offset < OVERHEAD_BYTES:
        return 0, 0
    found_generation, found_position, length, count = _FIELDS.unpack_from(view, offset)
    begin = offset + OVERHEAD_BYTES
    if found_generation != generation or found_position != position or length > len(view) - begin:
        return 0, 0
    check = xxh3_64(view[offset : offset + _FIELDS.size])
    check.update(view[begin : begin + length])
    return (begin + length, count) if check.digest() == view[begin - _CHECK_BYTES : begin] else (0, 0)


def records_of(payload: bytes | memoryview) -> list[bytes]:
    """The records in what a valid block holds."""
    return _unpack(payload)


def block_bytes(data: Octets) -> int:
    """What the block that begins here says it takes; it may lie."""
    return OVERHEAD_BYTES + int.from_bytes(data[16:24], "little")


def find_block(data: Octets, start: int, generation: int, position: int) -> int | None:
    """The offset of the first valid block at or after ``start``, wherever it begins; ``position`` is that of ``start``.

    Cost:    one search in C, a checksum where generation and position fit: in practice only at real blocks.
    """
    view, mark = memoryview(data), generation.to_bytes(8, "little")
    offset = data.find(mark, start)
    while offset >= 0:
        if block_end(view, offset, generation, position + offset - start)[0]:
            return offset
        offset = data.find(mark, offset + 1)
    return None


def beginning(data: Octets, generation: int, least_position: int) -> int | None:
    """The position at which a segment begins by its first valid block, whatever its header says; None when it has no such block."""
    view, mark = memoryview(data), generation.to_bytes(8, "little")
    offset = data.find(mark, OVERHEAD_BYTES)
    while offset >= 0:
        position = int.from_bytes(data[offset + 8 : offset + 16], "little")
        begins = position - (offset - OVERHEAD_BYTES)
        if begins >= least_position and block_end(view, offset, generation, position)[0]:
            return begins
        offset = data.find(mark, offset + 1)
    return None


def resembles_block(data: Octets, generation: int, position: int) -> bool:
    """Whether these bytes begin like the block that belongs here: what is left of a write, or has a flipped bit."""
    return len(data) >= 16 and (
        data[:8] == generation.to_bytes(8, "little") or data[8:16] == position.to_bytes(8, "little")
    )


def used_bytes(data: Octets) -> int:
    """The length without the zeros at the end."""
    end = len(data)
    while end > len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    start = max(0, end - len(_ZEROS))
    return start + len(data[start:end].rstrip(b"\0"))


def create(path: Path, size: int) -> None:
    """A segment of zeros that is on disk whole, or not there under its name.

    Written out in full, so that a later sync of a block has no blocks of the file system to allocate.
    """
    unfinished = path.with_suffix(".new")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        zeros = memoryview(bytes(min(size, _PIECE_BYTES)))
        for offset in range(0, size, _PIECE_BYTES):
            write_all(fd, zeros[: size - offset], offset)
        os.fsync(fd)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()  # or it would hold the space that others wait for
        raise
    finally:
        os.close(fd)
    unfinished.replace(path)
    try:
        sync_directory(path.parent)
    except OSError:  # a name that may not last is not there: else it would be used without this sync
        path.unlink(missing_ok=True)
        raise


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """All bytes at this offset, however few a call takes."""
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, offset)
        left, offset = left[written:], offset + written


def sync_directory(directory: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, so that their names survive too."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def path_of(directory: Path, generation: int) -> Path:
    """The file of a segment."""
    return directory / f"{generation:010d}.log"


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """Device and inode of the file that has this name or descriptor; None: there is none of this name."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def generations(directory: Path) -> list[int]:
    """The generations that have a file, in order."""
    return sorted(int(path.stem) for path in directory.glob("[0-9]*.log"))


@contextmanager
def naming(path: Path, offset: int | None = None) -> Iterator[None]:
    """Turn a failed system call into a StorageError that names the file, and where in it."""
    try:
        yield
    except OSError as error:
        code = "storage-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage-failed"
        why = f"{path}: {error.strerror or error}"
        if offset is None:
            raise StorageError(why, code=code, file=str(path)) from error
        raise StorageError(f"{why} at byte {offset}", code=code, file=str(path), offset=offset) from error


def damage(path: Path, offset: int, why: str) -> StorageError:
    """What is said of bytes that are not what was written."""
    return StorageError(f"{path}: damaged at byte {offset}: {why}", file=str(path), offset=offset)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """What a file holds, or its beginning; nothing when it is not there.

    Raises:  StorageError naming file and offset of what cannot be read.
    """
    if not path.exists():
        return b""
    pieces, offset = [], 0
    with naming(path):
        fd = os.open(path, os.O_RDONLY)
    try:
        while most is None or offset < most:
            size = _PIECE_BYTES if most is None else min(_PIECE_BYTES, most - offset)
            try:
                piece = os.pread(fd, size, offset)
            except OSError:
                piece = _read_slowly(fd, path, size, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
    finally:
        os.close(fd)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_slowly(fd: int, path: Path, size: int, start: int) -> bytes:
    """The same by pages, to say which one cannot be read."""
    pages = []
    for offset in range(start, start + size, _PAGE_BYTES):
        with naming(path, offset):
            pages.append(os.pread(fd, min(_PAGE_BYTES, start + size - offset), offset))
    return b"".join(pages)


def read_header(path: Path) -> Header | None:
    """What a file says of itself; None when there is none, or it says nothing valid."""
    return header_of(read_bytes(path, OVERHEAD_BYTES))
