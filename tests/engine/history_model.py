"""A history beside a plain list of what was applied, and a log that is a dict of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from random import Random
from unittest.mock import patch

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_next
from crdtstore.engine import history as history_module
from crdtstore.engine import history_blocks, history_index
from crdtstore.engine.history import History
from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Entry

MEMBERS = [ReplicaId(name) for name in ("us", "eu", "ap")]
STARTS = [bytes([origin]) * 32 for origin in range(3)]
GROUPS = ("orders", "users")
ORIGINS = range(3)


class DictLog:
    """A log: blocks at positions with gaps, as other groups make them; it can lose its disk for a while."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[Entry]] = {}
        self.position = 7
        self.good_reads: int | None = None
        """How many reads there are before the disk fails; None: it does not."""
        self.reads: list[int] = []

    def write(self, entries: list[Entry]) -> int:
        position = self.position
        self.blocks[position] = entries
        self.position += 10 + len(entries)
        return position

    def read(self, position: int) -> tuple[list[Entry], int]:
        self.reads.append(position)
        if self.good_reads == 0 or position not in self.blocks:
            raise StorageError(f"no block at {position}")
        if self.good_reads is not None:
            self.good_reads -= 1
        return self.blocks[position], -1

    def cut(self, position: int) -> None:
        for at in [at for at in self.blocks if at < position]:
            del self.blocks[at]


class Model:
    """One group: its history, and the plain list that it is held against."""

    def __init__(self, group: str, log: DictLog, budget: int, count: int = 0) -> None:
        self.group, self.log = group, log
        self.history = History(STARTS, [0] * 3, group, MEMBERS, log.read, budget)
        self.history._count = self.history._blocks.cleared = count  # so many came and went before
        self.history._offset = -count
        self.applied = list[tuple[int, int, bytes]]()
        self.commits: list[list[bytes]] = [[], [], []]
        self.chains = [[start] for start in STARTS]
        self.positions = list[int]()
        """The blocks of the first commits in apply order."""
        self.batches = list[list[int]]()
        """The vectors of batches that are not written."""

    @property
    def vector(self) -> list[int]:
        return [len(commits) for commits in self.commits]

    @property
    def placed(self) -> list[int]:
        return [sum(made == origin for made, _, _ in self.applied[: len(self.positions)]) for origin in ORIGINS]

    def append(self, origin: int, size: int) -> None:
        seq = len(self.commits[origin]) + 1
        data = f"{self.group}:{origin}:{seq}:".encode().ljust(size, b".")
        self.applied.append((origin, seq, data))
        self.commits[origin].append(data)
        self.chains[origin].append(chain_next(self.chains[origin][-1], data))
        self.history.append(origin, data)

    def entries(self, upto: int) -> list[Entry]:
        return [
            Entry(self.group, MEMBERS[origin], data) for origin, _, data in self.applied[len(self.positions) : upto]
        ]

    def place(self, vector: list[int], position: int) -> None:
        self.positions += [position] * (sum(vector) - len(self.positions))
        self.history.place(vector, position)
        history = self.history
        assert len(history._blocks) <= 1 or history.memory_bytes <= history.budget_bytes

    def forget(self, stable: list[int]) -> None:
        before, history = list(self.history.base), self.history
        in_memory = [history._index.ends[origin][-1] for origin in ORIGINS]
        history.forget(stable)
        for origin, wanted in enumerate(map(min, stable, self.placed)):
            assert before[origin] <= history.base[origin] <= max(wanted, before[origin])
            if wanted >= in_memory[origin] or wanted == self.placed[origin]:
                assert history.base[origin] == max(wanted, before[origin])

    def again(self) -> None:
        """A start: what is not written is lost, what a checkpoint holds is the base, the rest is in the log."""
        old = self.history
        starts = [old.chain(origin, seq) for origin, seq in enumerate(old.base)]
        seqs = [0, 0, 0]
        new = self.history = History(starts, list(old.base), self.group, MEMBERS, self.log.read, old.budget_bytes)
        first = old.first_position()
        written = list(zip(self.applied, self.positions, strict=False))
        vector = list(old.base)
        for (origin, seq, data), position in written:
            seqs[origin] = seq
            if seq > old.base[origin]:
                assert first is not None
                assert position >= first, "the log was cut above a commit that is kept"
                new.append(origin, data)
                vector[origin] = seq
                new.place(vector, position)
        del self.applied[len(written) :]
        for origin in ORIGINS:
            del self.commits[origin][seqs[origin] :], self.chains[origin][seqs[origin] + 1 :]
        self.batches = []

    # --- questions

    def check(self, random: Random) -> None:
        history = self.history
        assert len(history) == sum(self.vector) - sum(history.base)
        assert history.heads == [chains[-1] for chains in self.chains]
        self.check_memory()
        self.check_first_position()
        for origin in ORIGINS:
            self.check_origin(origin, random)
        self.check_lacking(random)
        self.check_receiver(random)

    def check_memory(self) -> None:
        """The sums that are kept up are those of what is there."""
        history, index = self.history, self.history._index
        in_memory = sum(
            len(data) + history_module._COMMIT_BYTES
            for commits, origin in zip(self.commits, ORIGINS, strict=True)
            for data in commits[max(history.base[origin], index.ends[origin][-1]) :]
        )
        in_index = history_index._ENTRY_BYTES * sum(map(len, index.ends)) + sum(
            history_index._EXTENT_OVERHEAD_BYTES + 8 * len(extent) for extent in index._extents
        )
        loaded = sum(extent.bytes for extent in index._loaded.values())
        assert len(index._loaded) <= 2
        empty = history_module._COMMIT_BYTES * len(ORIGINS)  # each array begins with what was before the first
        assert history.memory_bytes == in_memory + empty + in_index + loaded + history._blocks.memory_bytes

    def check_first_position(self) -> None:
        history = self.history
        places = zip(self.applied, self.positions, strict=False)
        kept = [position for (origin, seq, _), position in places if seq > history.base[origin]]
        first = history.first_position()
        assert (first is None) == (not kept)
        if first is not None:
            assert first <= kept[0]
            if history._index.first_position() is None:
                assert first == kept[0]

    def check_origin(self, origin: int, random: Random) -> None:
        history, commits, base = self.history, self.commits[origin], self.history.base[origin]
        for seq in range(len(commits) + 1):
            assert history.has_chain(origin, seq, self.chains[origin][seq])
            assert history.has_chain(origin, seq, b"x" * 32) == (seq < base)
            assert not history.has_chain(origin, seq, b"")
            assert history.holds(origin, seq) == (seq > base)
            assert history.is_in_memory(origin, seq) == (seq > history._index.ends[origin][-1])
            if seq < base:
                with pytest.raises(LookupError, match="is not kept"):
                    history.chain(origin, seq)
            else:
                assert history.chain(origin, seq) == self.chains[origin][seq]
            if seq <= base:
                with pytest.raises(LookupError, match="is not kept"):
                    history.commit(origin, seq)
            else:
                assert history.commit(origin, seq) == commits[seq - 1]
        assert not history.holds(origin, len(commits) + 1)
        assert not history.has_chain(origin, len(commits) + 1, self.chains[origin][-1])
        for _ in range(4):
            self.check_span(origin, random)

    def check_span(self, origin: int, random: Random) -> None:
        history, commits, base = self.history, self.commits[origin], self.history.base[origin]
        after, upto = (random.randint(0, len(commits)) for _ in "au")
        size = history.size(origin, after, upto)
        wanted = commits[max(after, base) : upto]
        assert size >= sum(map(len, wanted))
        assert bool(size) == bool(wanted)
        if max(after, base) >= history._index.ends[origin][-1]:
            assert size == sum(map(len, wanted))
        max_bytes = random.randint(1, 300)
        fitting = sum(total <= max_bytes for total in accumulate(map(len, wanted)))
        assert history.span(origin, after, upto, max_bytes) == wanted[: max(fitting, 1)]

    def check_lacking(self, random: Random) -> None:
        history = self.history
        has, upto = ([random.randint(0, seq) for seq in self.vector] for _ in "hu")
        assert history.reaches(has) == all(has[origin] >= history.base[origin] for origin in ORIGINS)
        origins = random.sample(ORIGINS, random.randint(0, 3))
        after = list(map(max, has, history.base))
        wanted = [
            (origin, data)
            for origin, seq, data in self.applied
            if origin in origins and after[origin] < seq <= upto[origin]
        ]
        max_bytes = random.randint(1, 600)
        fitting = sum(total <= max_bytes for total in accumulate(len(data) for _, data in wanted))
        assert history.lacking(has, upto, origins, max_bytes) == wanted[: max(fitting, 1)]

    def check_receiver(self, random: Random) -> None:
        """Whoever has a part of the order, and takes only little at a time, never meets a commit before what it may depend on."""
        part = self.applied[: random.randint(0, len(self.applied))]
        has = [
            max([base, *(seq for made, seq, _ in part if made == origin)])
            for origin, base in enumerate(self.history.base)
        ]
        places = {(origin, seq): place for place, (origin, seq, _) in enumerate(self.applied)}
        room, vector = random.randint(1, 500), self.vector
        while has != vector:
            found = self.history.lacking(has, vector, ORIGINS, room)
            assert found
            for origin, data in found:
                has[origin] += 1
                assert data == self.commits[origin][has[origin] - 1], "a gap"
                before = self.applied[: places[origin, has[origin]]]
                assert all(seq <= has[made] for made, seq, _ in before), "before what it may depend on"


class Player:
    """Does with two groups that share a log what numbers say."""

    WHAT = (
        ("append",) * 8
        + ("batch",) * 3
        + ("write",) * 4
        + ("clean", "forget", "forget", "all", "budget", "fault", "again")
    )

    def __init__(self, budget: int, count: int = 0) -> None:
        self.log = DictLog()
        self.models = [Model(group, self.log, budget, count) for group in GROUPS]

    def play(self, numbers: list[int]) -> None:
        for number in numbers:
            random = Random(number)
            getattr(self, random.choice(self.WHAT))(random)
            self.log.cut(min((at for at in self.needed() if at is not None), default=self.log.position))
            for model in self.models:
                model.check(random)

    def needed(self) -> list[int | None]:
        return [model.history.first_position() for model in self.models]

    def append(self, random: Random) -> None:
        model = random.choice(self.models)
        for _ in range(random.choice((1, 1, 2, 5, 20))):
            model.append(random.choice(ORIGINS), random.choice((1, 20, 100)))

    def batch(self, random: Random) -> None:
        for model in self.models:
            if model.vector != (model.batches or [model.placed])[-1]:
                model.batches.append(model.vector)

    def clean(self, random: Random) -> None:
        """Write, and forget in between."""
        self.write(random, forgets=True)

    def write(self, random: Random, *, forgets: bool = False) -> None:
        """All batches that wait become one block; the groups hear of each batch after the other."""
        self.batch(random)
        entries = [model.entries(sum(model.batches[-1])) if model.batches else [] for model in self.models]
        # of both groups by turns, as they may well be
        mixed = [entry for pair in zip_long(*entries) for entry in pair]
        position = self.log.write(mixed)
        for model in self.models:
            for vector in model.batches:
                model.place(vector, position)
                if forgets and random.randrange(2):
                    model.forget(vector)
            model.batches = []

    def forget(self, random: Random) -> None:
        model = random.choice(self.models)
        model.forget([random.randint(0, seq) for seq in model.vector])

    def all(self, random: Random) -> None:
        model = random.choice(self.models)
        model.forget(model.vector)

    def budget(self, random: Random) -> None:
        random.choice(self.models).history.budget_bytes = random.choice((0, 500, 2000, 1 << 40))

    def fault(self, random: Random) -> None:
        """What is asked while the disk fails is answered rightly or not at all, and afterwards all is as it was."""
        for model in self.models:
            for _ in range(5):
                for ask in (
                    model.check_lacking,
                    model.check_receiver,
                    lambda r, m=model: m.check_origin(r.randint(0, 2), r),
                ):
                    self.log.good_reads = random.randint(0, 3)
                    try:
                        ask(random)
                    except StorageError as error:
                        assert "no block" in error.detail  # noqa: PT017
        self.log.good_reads = None

    def again(self, random: Random) -> None:
        for model in self.models:
            model.again()


def zip_long(first: list[Entry], second: list[Entry]) -> Iterator[list[Entry]]:
    for at in range(max(len(first), len(second))):
        yield first[at : at + 1] + second[at : at + 1]


@contextmanager
def small(extent_bytes: int, extent_blocks: int, gone: int = 3) -> Iterator[None]:
    """Limits that a test reaches."""
    with (
        patch.object(history_index, "_EXTENT_BYTES", extent_bytes),
        patch.object(history_index, "_EXTENT_BLOCKS", extent_blocks),
        patch.object(history_index, "_RECALLED_CHAINS", 2),
        patch.object(history_module, "_GONE", gone),
        patch.object(history_blocks, "_GONE", gone),
    ):
        yield
