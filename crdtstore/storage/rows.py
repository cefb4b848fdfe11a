"""Rows of a state store: what their paths and their data look like.

The question: how does one ordered map of bytes hold everything a checkpoint needs? A path is the number of a group, a space, and parts
(text, integers, bytes) whose bytes have the order of the parts, so that a key and all that stands below it are one range. No part's bytes
begin with those of another part: what stands below a key never mixes with the next key.

    path      group number (2 bytes, big-endian), space (1 byte), parts
    text      0x20, UTF-8 (the order of code points) in which 0 is 1 1 and 1 is 1 2, then 0
    bytes     0x30, the same of bytes
    integer   0x14 + n for a positive one of n bytes, then these; 0x14 - n for a negative one, its bytes complemented; n above 8: 0x14 +- 9,
              then n as two bytes, for a negative one complemented
    data      what was stored, then 4 bytes of the xxh3_64 of path and data, with the length of the path as seed

Integers stand before text and text before bytes, as in ``values.element_order``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any

from xxhash import xxh3_64_digest

from crdtstore.errors import PUT_BACK, DecodeError, StorageError
from crdtstore.storage.protocol import Row
from crdtstore.values import show

__all__ = [
    "CHECK_BYTES",
    "CONTESTED",
    "ENDED_HOLDS",
    "GIFTS",
    "HOLDS",
    "LEAVES",
    "META",
    "OPERATIONS",
    "PLANS",
    "PREFIX_BYTES",
    "after",
    "describe",
    "key_range",
    "parts_of",
    "path_bytes",
    "row_path",
    "seal",
    "split_path",
    "unseal",
]

META, LEAVES, OPERATIONS, PLANS, CONTESTED, HOLDS, ENDED_HOLDS, GIFTS = range(8)
"""Spaces: what a row is about."""
_NAMES = ("meta", "leaves", "operations", "plans", "contested", "holds", "ended holds", "gifts")

_PREFIX = Struct(">HB")
PREFIX_BYTES = _PREFIX.size
"""Bytes of a path before its parts."""
CHECK_BYTES = 4
"""Bytes of the checksum after the data of a row."""

_SHOWN = 2
"""Collection and key."""
_TEXT, _BYTES, _ZERO = 0x20, 0x30, 0x14
_SHORT = 8
_MOST = (1 << 16) - 1
_BELOW = b"\xff"
"""Greater than the first byte of any part."""


def path_bytes(parts: Sequence[Any]) -> bytes:
    """The bytes of parts; their order is that of the parts, one after the other."""
    try:
        text = "\0 ".join(parts)  # 0x20 is a space: parts that are text, mostly all, are joined in one call
        if parts and "\1" not in text and text.count("\0") == len(parts) - 1:
            return f" {text}\0".encode()
    except TypeError:
        pass
    return b"".join(map(_encoded, parts))


def _encoded(part: Any) -> bytes:
    if type(part) is str:
        return b" %b\0" % _escape(part.encode())
    if type(part) is bytes:
        return b"0%b\0" % _escape(part)
    assert type(part) is int, f"a part of a path is text, an integer or bytes, not {type(part).__name__}"
    length = (abs(part).bit_length() + 7) // 8
    assert length <= _MOST, f"an integer of {length} bytes in a path"
    if part >= 0:
        head = bytes((_ZERO + length,)) if length <= _SHORT else b"\x1d" + length.to_bytes(2, "big")
        return head + part.to_bytes(length, "big")
    head = bytes((_ZERO - length,)) if length <= _SHORT else b"\x0b" + (_MOST - length).to_bytes(2, "big")
    return head + (part + (1 << 8 * length) - 1).to_bytes(length, "big")


def _escape(data: bytes) -> bytes:
    return data.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def _unescape(data: bytes) -> bytes:
    return data.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1") if b"\1" in data else data


def parts_of(data: bytes, start: int = 0) -> list[Any]:
    """The parts whose bytes these are, from ``start`` on, which is where a part begins.

    Raises:  DecodeError when ``path_bytes`` makes no such bytes.
    """
    parts: list[Any] = []
    at, end = start, len(data)
    try:
        if data[start : start + 1] == b" " and data[-1] == 0 and data.find(1, start) < 0:
            pieces = data[start:-1].split(b"\0")  # where all before it are text, a piece begins where a part does
            if {piece[:1] for piece in pieces} == {b" "}:  # all are, mostly
                return [piece[1:].decode() for piece in pieces]
        while at < end:
            head = data[at]
            if head in (_TEXT, _BYTES):
                upto = data.index(0, at)
                raw = _unescape(data[at + 1 : upto])
                parts.append(raw.decode() if head == _TEXT else raw)
                at = upto + 1
            else:
                part, at = _integer_at(data, at)
                parts.append(part)
    except (ValueError, IndexError) as error:
        raise DecodeError(f"not the path of a row: {error}") from error
    return parts


def _integer_at(data: bytes, at: int) -> tuple[int, int]:
    head, at = data[at], at + 1
    is_negative, length = head < _ZERO, abs(head - _ZERO)
    if length > _SHORT:
        if length > _SHORT + 1:
            raise ValueError(f"no part begins with byte {head}")
        length = int.from_bytes(data[at : at + 2], "big")
        length, at = _MOST - length if is_negative else length, at + 2
        if length <= _SHORT:
            raise ValueError("an integer longer than it needs to be")
    raw = data[at : at + length]
    if len(raw) != length:
        raise ValueError("it ends within an integer")
    number = int.from_bytes(raw, "big")
    return number - (1 << 8 * length) + 1 if is_negative else number, at + length


def row_path(group_number: int, space: int, parts: Sequence[Any]) -> bytes:
    """The path of a row."""
    return _PREFIX.pack(group_number, space) + path_bytes(parts)


def split_path(path: bytes) -> tuple[int, int, list[Any]]:
    """Group number, space and parts of the path of a row.

    Raises:  DecodeError when it is none.
    """
    if len(path) < PREFIX_BYTES:
        raise DecodeError(f"not the path of a row: {len(path)} bytes")
    return (*_PREFIX.unpack_from(path), parts_of(path, PREFIX_BYTES))


def key_range(group_number: int, space: int, parts: Sequence[Any]) -> tuple[bytes, bytes]:
    """From where up to, without, where the row of these parts and all rows below it stand; without parts: the whole space."""
    start = _PREFIX.pack(group_number, space) + path_bytes(parts)
    return start, start + _BELOW


def after(prefix: bytes) -> bytes:
    """The least bytes greater than everything that begins with a prefix."""
    cut = prefix.rstrip(b"\xff")
    assert cut, "nothing is greater than everything that begins with these bytes"
    return cut[:-1] + bytes((cut[-1] + 1,))


# --- checksums


def seal(rows: Iterable[Row]) -> list[Row]:
    """The rows with their checksums, as they are kept."""
    return [(path, b"%b%b" % (data, xxh3_64_digest(path + data, len(path))[:CHECK_BYTES])) for path, data in rows]


def unseal(rows: Iterable[Row], file: str) -> list[Row]:
    """Rows as they were stored.

    Raises:  StorageError naming the file and the first row that is not what was stored.
    """
    found = []
    for path, sealed in rows:
        try:
            data = sealed[:-CHECK_BYTES]
            fits = xxh3_64_digest(path + data, len(path))[:CHECK_BYTES] == sealed[-CHECK_BYTES:]
        except TypeError:  # what is damaged may not even be bytes any more
            fits = False
        if not fits:
            raise StorageError(
                f"{file}: damaged at the row of {describe(path)}: its checksum does not fit, so this is not what was written; "
                f"nothing was changed. {PUT_BACK}",
                file=file,
            )
        found.append((path, data))
    return found


def describe(path: bytes) -> str:
    """A row as an error may name it: where it stands, nothing of what it holds. Below a key parts are data: elements, names of fields."""
    try:
        group_number, space, parts = split_path(path)
    except DecodeError:
        return f"path {path[:40].hex()}{'…' if len(path) > 40 else ''}"
    except TypeError:
        return "no path"
    name = _NAMES[space] if space < len(_NAMES) else f"space {space}"
    shown = [show(part) if not isinstance(part, bytes) else f"bytes {part[:20].hex()}" for part in parts[:_SHOWN]]
    below = [f"{len(parts) - _SHOWN} below"] if len(parts) > _SHOWN else []
    return f"group {group_number}, {name}, " + " / ".join([*shown, *below])
