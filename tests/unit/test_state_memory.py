"""What the state store in memory has of its own: crashes, and damage on request."""

from __future__ import annotations

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice

END = b"\xff"


def test_a_crash_takes_what_was_not_committed() -> None:
    store = MemoryState()
    store.write(Slice(rows=[(b"a", b"1"), (b"b", b"2")]))
    store.commit()
    store.write(Slice(ranges=[(b"a", b"b")], rows=[(b"b", b"3"), (b"c", b"4")]))
    assert store.crash() == 3
    assert store.rows(b"", END) == [(b"a", b"1"), (b"b", b"2")]
    store.commit()
    assert store.rows(b"", END) == [(b"a", b"1"), (b"b", b"2")]


def test_a_pin_does_not_survive_a_crash() -> None:
    store = MemoryState()
    pin = store.pin()
    store.crash()
    with pytest.raises(AssertionError):
        pin.rows(b"", END)
    pin.close()


def test_damage_is_found_when_the_row_is_read() -> None:
    store = MemoryState()
    store.write(Slice(rows=[(b"\0\1\1\x20a\0", b"1"), (b"\0\1\1\x20b\0", b"2")]))
    store.commit()
    store.damage(b"\0\1\1\x20b\0", 3)
    assert store.rows(b"", b"\0\1\1\x20b\0")[0][1] == b"1"
    with pytest.raises(StorageError, match='group 1, leaves, "b"'):
        store.rows(b"", END)
