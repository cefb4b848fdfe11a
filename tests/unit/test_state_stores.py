"""What any state store does, and by how much it says that rows and bytes change: both stores against a dict."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore.storage.sqlite import SqliteState

END = b"\xff\xff"
STORES: dict[str, Callable[[Path], Any]] = {"memory": lambda _: MemoryState(), "sqlite": SqliteState.open}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    found = STORES[request.param](tmp_path)
    yield found
    found.close()


PATHS = st.one_of(st.binary(max_size=2), st.sampled_from([b"a", b"ab", b"b"]))
ROWS = st.lists(st.tuples(PATHS, st.binary(max_size=5)), max_size=6)
SLICES = st.builds(
    Slice, st.lists(st.tuples(PATHS, PATHS | st.just(END)), max_size=2), st.lists(PATHS, max_size=3), ROWS
)
MOVES = st.lists(st.one_of(SLICES, SLICES, st.sampled_from(["commit", "commit", "rollback", "pin"])), max_size=12)


def applied(rows: dict[bytes, bytes], part: Slice) -> dict[bytes, bytes]:
    left = {path: data for path, data in rows.items() if not any(at <= path < end for at, end in part.ranges)}
    for path in part.gone:
        left.pop(path, None)
    return left | dict(part.rows)


def size(rows: dict[bytes, bytes]) -> tuple[int, int]:
    return len(rows), sum(map(len, rows.values()))


@pytest.mark.parametrize("name", sorted(STORES))
@settings(max_examples=30, deadline=None)
@given(moves=MOVES, bounds=st.tuples(PATHS, PATHS, st.integers(-1, 3)))
def test_a_store_is_a_dict_that_commits(name: str, moves: list[Any], bounds: tuple[bytes, bytes, int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = STORES[name](Path(directory))
        committed: dict[bytes, bytes] = {}
        staged: dict[bytes, bytes] = {}
        pins: list[tuple[Any, dict[bytes, bytes]]] = []
        for move in moves:
            if isinstance(move, Slice):
                after = applied(staged, move)
                changed = tuple(new - old for new, old in zip(size(after), size(staged), strict=True))
                assert store.write(move) == changed
                staged = after
            elif move == "commit":
                store.commit()
                committed = staged
            elif move == "rollback":
                store.rollback()
                staged = committed
            else:
                pins.append((store.pin(), committed))
            for reader, rows in [(store, committed), *pins]:
                assert reader.rows(b"", END) == sorted(rows.items())
                start, end, limit = bounds
                inside = sorted(row for row in rows.items() if start <= row[0] < end)
                assert reader.rows(start, end, limit) == (inside if limit < 0 else inside[:limit])
        for pin, _ in pins:
            pin.close()
        store.close()


def test_a_slice_may_be_of_any_size(store: Any) -> None:
    rows = [(b"%05d" % at, b"x" * (at % 7)) for at in range(1_234)]
    assert store.write(Slice(rows=rows)) == size(dict(rows))
    store.commit()
    assert store.rows(b"", END) == rows
    gone = [path for path, _ in rows[100:900]]
    assert store.write(Slice(gone=[*gone, *gone, b"never"])) == (-800, -sum(len(data) for _, data in rows[100:900]))
    assert store.write(Slice(ranges=[(b"", b"00050")])) == (-50, -sum(len(data) for _, data in rows[:50]))
    store.commit()
    assert store.rows(b"", END) == rows[50:100] + rows[900:]


def test_the_last_of_two_rows_at_one_path_stays(store: Any) -> None:
    assert store.write(Slice(rows=[(b"a", b"1"), (b"a", b"234")])) == (1, 3)
    store.commit()
    assert store.rows(b"", END) == [(b"a", b"234")]


def test_nothing_may_be_written_and_committed(store: Any) -> None:
    assert store.write(Slice()) == (0, 0)
    store.commit()
    store.commit()
    store.rollback()
    assert store.rows(b"", END) == []
