"""Paths of rows against the order that readings have, and checksums against flipped bits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.errors import DecodeError, StorageError
from crdtstore.storage.rows import (
    LEAVES,
    META,
    after,
    describe,
    key_range,
    parts_of,
    path_bytes,
    row_path,
    seal,
    split_path,
    unseal,
)
from crdtstore.testing.strategies import elements, texts
from crdtstore.values import element_order

_NEAR = st.lists(st.sampled_from([0, 1, 2, 0x20, 0x30, 0x61, 0x7F]), max_size=4).map(bytes)
"""Bytes that the encoding itself uses."""
PARTS = st.lists(
    st.one_of(elements(), _NEAR, _NEAR.map(bytes.decode), st.sampled_from([0, 1, -1, 255, 256, -255, -256])), max_size=4
)
LARGEST = (1 << 8191) - 1


def order(parts: list[Any]) -> list[tuple[int, Any]]:
    return [element_order(part) for part in parts]


@given(PARTS)
def test_parts_come_back(parts: list[Any]) -> None:
    found = parts_of(path_bytes(parts))
    assert found == parts
    assert [type(part) for part in found] == [type(part) for part in parts]
    assert split_path(row_path(7, LEAVES, parts)) == (7, LEAVES, parts)


@pytest.mark.parametrize(
    "number", [0, 1, -1, (1 << 64) - 1, 1 << 64, -(1 << 64) + 1, -(1 << 64), LARGEST, -LARGEST - 1]
)
def test_integers_of_any_size_are_parts(number: int) -> None:
    assert parts_of(path_bytes([number, "x"])) == [number, "x"]


@given(PARTS, PARTS)
def test_paths_have_the_order_of_their_parts(one: list[Any], other: list[Any]) -> None:
    assert (path_bytes(one) < path_bytes(other)) == (order(one) < order(other))
    assert (path_bytes(one) == path_bytes(other)) == (order(one) == order(other))


@given(st.lists(texts(6), max_size=12))
def test_keys_stand_in_the_order_in_which_they_are_listed(keys: list[str]) -> None:
    assert sorted(keys, key=lambda key: row_path(1, LEAVES, ["c", key])) == sorted(keys, key=element_order)


@given(PARTS, PARTS)
def test_a_range_is_a_path_and_all_below_it(one: list[Any], other: list[Any]) -> None:
    start, end = key_range(3, LEAVES, one)
    assert (start <= row_path(3, LEAVES, other) < end) == (other[: len(one)] == one)
    assert not start <= row_path(3, META, other) < end
    assert not start <= row_path(4, LEAVES, other) < end


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_after_is_the_end_of_a_prefix(prefix: bytes, data: bytes) -> None:
    if prefix.strip(b"\xff"):
        assert data.startswith(prefix) == (prefix <= data < after(prefix))


def test_after_of_nothing_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        after(b"\xff\xff")


@pytest.mark.parametrize("data", [b"\x20a", b"\x20\xff\0", b"\x16\x01", b"\x99", b"\x1d\x00", b"\x0a\x00", b"\x1e\0\0"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not the path of a row"):
        parts_of(data)


def test_a_short_path_is_refused() -> None:
    with pytest.raises(DecodeError, match="2 bytes"):
        split_path(b"\0\1")


@pytest.mark.parametrize("part", [True, None, 1.0])
def test_other_parts_are_a_bug(part: Any) -> None:
    with pytest.raises(AssertionError):
        path_bytes(["c", part])


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_every_flipped_bit_of_a_row_is_found(path: bytes, data: bytes) -> None:
    [(_, sealed)] = seal([(path, data)])
    assert unseal([(path, sealed)], "f") == [(path, data)]
    whole = path + sealed
    for bit in range(8 * len(whole)):
        bad = bytearray(whole)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StorageError) as error:
            unseal([(bytes(bad[: len(path)]), bytes(bad[len(path) :]))], "state.sqlite")
        assert error.value.more["file"] == "state.sqlite"


def test_a_moved_end_of_the_path_is_found() -> None:
    [(_, sealed)] = seal([(b"ab", b"cd")])
    with pytest.raises(StorageError):
        unseal([(b"abc", sealed[1:])], "f")


@pytest.mark.parametrize("row", [(None, b"data...."), (7, b"data...."), (b"\0\1\1", None), (b"\0\1\1", 1.5)])
def test_a_row_that_is_not_even_bytes_is_found(row: Any) -> None:
    with pytest.raises(StorageError, match=r"no path|group 1, leaves"):
        unseal([row], "f")


def test_an_error_names_the_row_and_nothing_of_its_data() -> None:
    [(path, sealed)] = seal([(row_path(2, LEAVES, ["d:c", "key", 7, "a secret element"]), b"the secret")])
    with pytest.raises(StorageError) as error:
        unseal([(path, b"X" + sealed[1:])], "here/state.sqlite")
    text = str(error.value)
    assert "here/state.sqlite" in text
    assert 'group 2, leaves, "d:c" / "key" / 2 below' in text
    assert "secret" not in text


def test_a_row_without_a_readable_path_is_named_by_its_bytes() -> None:
    assert describe(b"\0\1\1\x99") == "path 00010199"
    assert describe(bytes(50)).endswith("…")
    assert describe(row_path(1, 77, [])) == "group 1, space 77, "
