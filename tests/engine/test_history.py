"""The history against a plain list of what was applied."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.engine.history import History
from crdtstore.engine.history_blocks import Blocks
from crdtstore.engine.history_index import HistoryIndex
from crdtstore.errors import StorageError
from tests.engine.history_model import MEMBERS, ORIGINS, STARTS, DictLog, Model, Player, small


@given(
    st.lists(st.integers(0, 1 << 32), max_size=25),
    st.sampled_from((0, 0, 400, 1500, 1 << 40)),
    st.sampled_from((1, 300, 1 << 20)),
    st.integers(1, 5),
)
def test_the_history_is_what_a_list_is(numbers: list[int], budget: int, extent_bytes: int, extent_blocks: int) -> None:
    with small(extent_bytes, extent_blocks):
        Player(budget).play(numbers)


def told(numbers: int = 400, budget: int = 0) -> Player:
    """A history of some length, most of it in the log."""
    player = Player(budget)
    for number in range(numbers):
        model = player.models[number % 3 == 0]
        model.append(number % 7 % 3, 20 + number % 50)
        if number % 10 == 9:
            player.write(Random(number))
    return player


# --- the test finds what it is for

_forget, _commits, _lacking, _leave, _first = (
    History.forget,
    HistoryIndex.commits,
    History.lacking,
    Blocks.__len__,
    HistoryIndex.first_position,
)


def _beyond_what_is_placed(history: History, stable: Any) -> None:
    history._placed = [start + len(commits) for start, commits in zip(history._starts, history._commits, strict=True)]
    _forget(history, stable)


def _off_by_one(index: HistoryIndex, origin: int, after: int, upto: int) -> Iterator[bytes]:
    return _commits(index, origin, after + 1, upto + 1)


def _by_origin(history: History, *args: Any) -> list[tuple[int, bytes]]:
    return sorted(_lacking(history, *args), key=lambda found: found[0])


def _memory_first(history: History, vector: Any, upto: Any, origins: Any, max_bytes: int) -> list[tuple[int, bytes]]:
    found = _lacking(history, vector, upto, origins, 1 << 60)
    return sorted(found, key=lambda one: one[1] not in history._commits[one[0]])


def _above_what_is_kept(index: HistoryIndex) -> int | None:
    found = _first(index)
    return None if found is None else found + 1


PLANTS: list[tuple[type, str, Callable[..., Any]]] = [
    (History, "forget", _beyond_what_is_placed),
    (History, "lacking", _by_origin),
    (History, "lacking", _memory_first),
    (History, "has_chain", lambda *_: True),
    (History, "holds", lambda history, origin, seq: seq > 0),
    (History, "reaches", lambda *_: True),
    (History, "size", lambda history, origin, after, upto: history._index.size_below(origin, upto)),
    (HistoryIndex, "commits", _off_by_one),
    (HistoryIndex, "first_position", _above_what_is_kept),
    (HistoryIndex, "size_below", HistoryIndex.size_above),
    (HistoryIndex, "trim", lambda *_: None),
    (Blocks, "__len__", lambda blocks: _leave(blocks) + 1),
]


@pytest.mark.parametrize(("owner", "name", "plant"), PLANTS)
def test_a_mistake_is_found(owner: type, name: str, plant: Callable[..., Any]) -> None:
    def search() -> None:
        for seed in range(300):
            random = Random(seed)
            with small(random.choice((1, 300)), random.randint(1, 5)):
                Player(random.choice((0, 400))).play([random.randrange(1 << 32) for _ in range(25)])

    with patch.object(owner, name, plant), pytest.raises((AssertionError, LookupError, StorageError, KeyError)):
        search()
