"""Rows that a peer sends are looked at before they are stored: none may be there that cannot be read later."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.errors import DecodeError
from crdtstore.install.received import ReceivedRows
from crdtstore.leaves import PUT, SEQ_BITS, Many, One
from crdtstore.storage.leafrows import encode_leaves
from crdtstore.storage.rows import CONTESTED, LEAVES, OPERATIONS, PLANS, path_bytes
from crdtstore.values import pack

MEMBERS = ["us-1.0000000000000001", "eu-1.0000000000000002"]
APPLIED = [5, 0]


def add(space: int, parts: list[Any], data: bytes | None) -> None:
    assert data is not None
    ReceivedRows(MEMBERS, APPLIED).add(bytes((space,)) + path_bytes(parts), data)


def one(origin: int, seq: int) -> bytes | None:
    return encode_leaves(One(PUT, origin << SEQ_BITS | seq, 7, "x"))


def many(*dots: int) -> bytes | None:
    return encode_leaves(Many(PUT, dict.fromkeys(dots, (7, "x"))))


def total(origin: int, seq: int) -> bytes:
    return b"\1" + pack([-1, origin, seq, 3, 7])


KEY = ["c:lww_register", "k"]
ATTEMPT = [1, 7, 9, 8, b"12345678"]

GOOD: list[tuple[int, list[Any], bytes | None]] = [
    (LEAVES, KEY, one(0, 5)),
    (LEAVES, KEY, many(1, 2)),
    (LEAVES, KEY, total(0, 5)),
    (OPERATIONS, [b"name"], pack([ATTEMPT])),
    (PLANS, KEY, pack(12)),
    (CONTESTED, KEY, pack(True)),
    (CONTESTED, KEY[:1], pack(True)),
]
BAD: list[tuple[int, list[Any], bytes | None]] = [
    (LEAVES, KEY, one(0, 6)),
    (LEAVES, KEY, one(0, 0)),
    (LEAVES, KEY, one(1, 1)),
    (LEAVES, KEY, one(2, 1)),
    (LEAVES, KEY, many(1, 9)),
    (LEAVES, KEY, total(0, 6)),
    (LEAVES, KEY, total(7, 1)),
    (LEAVES, KEY, b"\1\xc1"),
    (LEAVES, KEY, b""),
    (LEAVES, [5], one(0, 5)),
    (LEAVES, [], one(0, 5)),
    (OPERATIONS, ["text"], pack([ATTEMPT])),
    (OPERATIONS, [b"name", b"more"], pack([ATTEMPT])),
    (OPERATIONS, [b"name"], pack([])),
    (OPERATIONS, [b"name"], pack(5)),
    (OPERATIONS, [b"name"], pack([[6, 7, 9, 8]])),
    (OPERATIONS, [b"name"], pack([["x", 7, 9, 8]])),
    (OPERATIONS, [b"name"], pack([[1, 7, 9, 8, "leaf"]])),
    (OPERATIONS, [b"name"], pack([[1, 7, 9]])),
    (PLANS, KEY, pack("soon")),
    (PLANS, [], pack(5)),
    (CONTESTED, [b"x"], pack(True)),
    (CONTESTED, ["a", "b", "c"], pack(True)),
]


@pytest.mark.parametrize("row", GOOD)
def test_what_a_replica_keeps_is_taken(row: tuple[int, list[Any], bytes]) -> None:
    add(*row)


@pytest.mark.parametrize("row", BAD)
def test_what_none_can_have_kept_is_refused(row: tuple[int, list[Any], bytes]) -> None:
    with pytest.raises(DecodeError):
        add(*row)
