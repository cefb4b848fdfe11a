"""One segment file: a header, blocks, then zeros.

The question: after a power cut, which bytes had been promised? A *block* is exactly what one sync made durable: the
records of one ``write`` under one checksum. The next block is written only after that sync has returned, so a bad
block with a good one behind it had been promised (damage), and a bad block with nothing behind it had not (a torn
tail). Were records checked one by one, a sync cut short could leave its second record whole and its first one torn,
and look like damage.

A block is valid only where it was written: its checksum covers the segment's generation (old blocks of a recycled
file are of an older one) and its position, which counts the bytes of blocks since the log began (a copy of a block
inside of somebody's value stands elsewhere). Sealed fields are four unsigned 64-bit numbers, little-endian, and their
xxh3_64 together with what follows.

    header    magic, format, generation, position of the first block
    block     generation, position, payload length, number of records; payload: msgpack array of records

Source: DESIGN.md 5. Relied upon: a sector of 512 bytes is written whole or not at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    "block_at",
    "create",
    "find_block",
    "generations",
    "header_of",
    "make_block",
    "make_header",
    "naming",
    "path_of",
    "sync_directory",
    "used_bytes",
    "write_all",
]

FORMAT = 1
_MAGIC = int.from_bytes(b"crdtlog\n", "little")
_FIELDS = Struct("<QQQQ")
_CHECK_BYTES = 8
OVERHEAD_BYTES = _FIELDS.size + _CHECK_BYTES
"""Bytes of a segment's header, and of a block around its payload."""

_PIECE_BYTES = 1 << 23
_ZEROS = bytes(1 << 16)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


class Header(NamedTuple):
    """What a segment says of itself."""

    format: int
    generation: int
    position: int


class Block(NamedTuple):
    """A valid block and where in its file it ends."""

    records: list[bytes]
    end: int


def _seal(fields: bytes, payload: bytes = b"") -> bytes:
    check = xxh3_64(fields)
    check.update(payload)
    return b"".join((fields, check.digest(), payload))


def make_header(generation: int, position: int) -> bytes:
    """The first bytes of a segment, written together with its first block."""
    return _seal(_FIELDS.pack(_MAGIC, FORMAT, generation, position))


def header_of(data: bytes) -> Header | None:
    """The header a file begins with, of whatever format; None when there is no valid one."""
    if len(data) < OVERHEAD_BYTES:
        return None
    magic, *rest = _FIELDS.unpack_from(data)
    sealed = _seal(data[: _FIELDS.size]) == data[:OVERHEAD_BYTES]
    return Header(*rest) if sealed and magic == _MAGIC else None


def make_block(generation: int, position: int, records: Sequence[bytes]) -> bytes:
    """The bytes of one block; all heavy calls are C."""
    payload = _pack(records)
    return _seal(_FIELDS.pack(generation, position, len(payload), len(records)), payload)


def block_at(data: bytes, offset: int, generation: int, position: int) -> Block | None:
    """The block that stands at this offset; None when there is none that is valid there."""
    if len(data) - offset < OVERHEAD_BYTES:
        return None
    found_generation, found_position, length, count = _FIELDS.unpack_from(data, offset)
    begin = offset + OVERHEAD_BYTES
    if (found_generation, found_position) != (generation, position) or length > len(data) - begin:
        return None
    view = memoryview(data)
    check = xxh3_64(view[offset : offset + _FIELDS.size])
    check.update(view[begin : begin + length])
    if check.digest() != data[begin - _CHECK_BYTES : begin]:
        return None
    records = _unpack(view[begin : begin + length])
    assert len(records) == count, f"a block of {len(records)} records says {count}"
    return Block(records, begin + length)


def find_block(data: bytes, start: int, generation: int, position: int) -> int | None:
    """The offset of the first valid block at or after ``start``, wherever it begins; ``position`` is that of ``start``.

    Cost:    one search in C, a checksum where generation and position fit: in practice only at real blocks.
    """
    mark = generation.to_bytes(8, "little")
    offset = data.find(mark, start)
    while offset >= 0:
        if block_at(data, offset, generation, position + offset - start) is not None:
            return offset
        offset = data.find(mark, offset + 1)
    return None


def used_bytes(data: bytes) -> int:
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
    finally:
        os.close(fd)
    unfinished.replace(path)
    sync_directory(path.parent)


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


def path_of(directory: Path, generation: int) -> Path:
    """The file of a segment."""
    return directory / f"{generation:010d}.log"


def generations(directory: Path) -> list[int]:
    """The generations that have a file, in order."""
    return sorted(int(path.stem) for path in directory.glob("[0-9]*.log"))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn a failed system call into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        code = "storage-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage-failed"
        raise StorageError(f"{path}: {error.strerror or error}", code=code) from error
