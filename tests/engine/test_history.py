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
    st.lists(st.integers(0, 1 << 32), max_size=30),
    st.sampled_from((0, 0, 400, 1500, 1 << 40)),
    st.sampled_from((1, 300, 1 << 20)),
    st.integers(1, 5),
)
def test_the_history_is_what_a_list_is(numbers: list[int], budget: int, extent_bytes: int, extent_blocks: int) -> None:
    with small(extent_bytes, extent_blocks):
        Player(budget).play(numbers)


def search(seeds: int) -> None:
    """Long plays with what breaks most easily."""
    for seed in range(seeds):
        random = Random(seed)
        with small(random.choice((1, 300)), random.randint(1, 5), random.choice((1, 3, 8))):
            count = random.choice((0, (1 << 32) - random.randint(1, 100)))
            Player(random.choice((0, 400)), count).play([random.randrange(1 << 32) for _ in range(40)])


def test_long_plays() -> None:
    search(25)


def long(commits: int, budget: int) -> tuple[Model, DictLog]:
    """One group with much in the log, in blocks of ten."""
    player = Player(budget)
    model = player.models[0]
    for number in range(commits):
        model.append(number % 7 % 3, 20 + number % 50)
        if number % 10 == 9:
            player.write(Random(number))
    return model, player.log


def test_with_the_limits_as_they_are() -> None:
    model, log = long(6000, 30_000)
    index = model.history._index
    assert [len(extent) for extent in index._extents[:5]] == [64] * 5
    random = Random(1)
    ask(model, random)
    for stable in ([100, 90, 80], [1500, 1000, 1000], model.vector):
        model.forget(stable)
        log.cut(model.history.first_position() or log.position)
        ask(model, random)
    assert (len(model.history), len(index._extents), len(model.history._blocks)) == (0, 0, 0)


def ask(model: Model, random: Random) -> None:
    for origin in ORIGINS:
        for _ in range(30):
            model.check_span(origin, random)
    for _ in range(30):
        model.check_lacking(random)
    model.check_first_position()
    model.check_memory()


# --- what is read


def test_a_peer_that_catches_up_reads_every_block_once() -> None:
    model, log = long(3000, 0)
    history, upto = model.history, len(model.commits[0])
    log.reads.clear()
    starts = [0]
    while starts[-1] < upto:
        after, acknowledged = starts[-1], starts[max(len(starts) - 5, 0)]
        assert history.size(0, acknowledged, after) >= sum(map(len, model.commits[0][acknowledged:after]))
        found = history.span(0, after, upto, 2000)
        assert found == model.commits[0][after : after + len(found)]
        assert history.chain(0, after) == model.chains[0][after]
        assert history.has_chain(0, acknowledged, model.chains[0][acknowledged])
        starts.append(after + len(found))
    assert log.reads == sorted(set(log.reads))
    assert len(log.reads) == len(log.blocks) - 1


def test_what_was_told_of_a_chain_is_remembered() -> None:
    model, log = long(3000, 0)
    places = range(0, 1200, 30)
    for seq in places:
        assert model.history.chain(0, seq) == model.chains[0][seq]
    log.reads.clear()
    for seq in places:
        assert model.history.has_chain(0, seq, model.chains[0][seq])
        assert not model.history.has_chain(0, seq, model.chains[0][seq + 1])
    assert log.reads == []


@pytest.mark.parametrize("what", ["another block", "less", "another commit"])
def test_a_log_that_holds_something_else_is_not_believed(what: str) -> None:
    model, log = long(300, 0)
    positions = sorted(log.blocks)
    block = log.blocks[positions[3]]
    wrong = {
        "another block": log.blocks[positions[4]],
        "less": block[:-1],
        "another commit": [block[0]._replace(data=b"x" * len(block[0].data)), *block[1:]],
    }
    log.blocks[positions[3]] = wrong[what]
    with pytest.raises(StorageError, match=f"position {positions[0]} to .* for orders"):
        model.history.lacking([0] * 3, model.vector, ORIGINS, 1 << 20)
    log.blocks[positions[3]] = block
    model.check(Random(1))


def test_without_a_log_all_stays_in_memory() -> None:
    history = History(STARTS, budget_bytes=0)
    for seq in range(1, 100):
        history.append(0, b"data")
        history.place([seq, 0, 0], seq)
    assert history.span(0, 0, 99, 1 << 20) == [b"data"] * 99
    assert history.memory_bytes > 99 * 4


@pytest.mark.parametrize("budget", [1 << 40, 200_000])
def test_memory_is_about_what_is_told(budget: int) -> None:
    data = [bytes([65 + number % 10]) * (40 + number % 90) for number in range(20_000)]
    log = DictLog()
    tracemalloc.start()
    try:
        history = History(STARTS, [0] * 3, "orders", MEMBERS, log.read, budget)
        for number in range(0, len(data), 10):
            for at in range(number, number + 10):
                history.append(0, bytes(bytearray(data[at])))
            history.place([number + 10, 0, 0], number)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.9 < used / history.memory_bytes < 1.3


# --- the test finds what it is for

_forget, _commits, _lacking, _leave, _first = (
    History.forget,
    HistoryIndex.commits,
    History.lacking,
    Blocks.__len__,
    HistoryIndex.first_position,
)


def _beyond_what_is_placed(history: History, stable: Any) -> None:
    history.placed = [start + len(commits) for start, commits in zip(history._starts, history._commits, strict=True)]
    _forget(history, stable)


def _only_counts_anew(history: History) -> None:
    history._offset += history._count
    history._count = history._blocks.cleared = 0


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
    (History, "_count_anew", _only_counts_anew),
    (HistoryIndex, "commits", _off_by_one),
    (HistoryIndex, "first_position", _above_what_is_kept),
    (HistoryIndex, "size_below", HistoryIndex.size_above),
    (HistoryIndex, "trim", lambda *_: None),
    (Blocks, "__len__", lambda blocks: _leave(blocks) + 1),
]


@pytest.mark.parametrize(("owner", "name", "plant"), PLANTS)
def test_a_mistake_is_found(owner: type, name: str, plant: Callable[..., Any]) -> None:
    with patch.object(owner, name, plant), pytest.raises((AssertionError, LookupError, StorageError, StopIteration)):
        search(300)


@pytest.mark.parametrize("base", [0, 3])
def test_commits_that_follow_each_other_may_be_taken_in_at_once(base: int) -> None:
    commits = [bytes([at]) * (at + 1) for at in range(20)]
    one_by_one, at_once = (History([b"s" * 32, b"t" * 32], [base, 0]) for _ in range(2))
    for data in commits:
        one_by_one.append(0, data)
    at_once.append(0, commits[0])
    at_once.extend(0, commits[1:7])
    at_once.extend(0, [])
    at_once.extend(0, commits[7:])
    vector = [base + 20, 0]
    assert at_once.heads == one_by_one.heads
    for seq in range(base, base + 21):
        assert at_once.chain(0, seq) == one_by_one.chain(0, seq)
        assert at_once.size(0, base, seq) == one_by_one.size(0, base, seq)
    assert at_once.lacking([base + 4, 0], vector, (0, 1), 1 << 20) == one_by_one.lacking(
        [base + 4, 0], vector, (0, 1), 1 << 20
    )
    assert at_once.memory_bytes == one_by_one.memory_bytes
