"""A replica that is admitted while the others are at work: from then on everything is as if it had been known from the start."""

from __future__ import annotations

from operator import le
from random import Random
from typing import Any

import msgspec
import pytest

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_start
from crdtstore.engine import Engine
from crdtstore.engine.events import Persisted
from crdtstore.engine.history import History
from crdtstore.kernel import Tree
from crdtstore.storage.protocol import Entry
from tests.engine.history_model import DictLog
from tests.engine.wire import GROUP, Watched, Wire, add, op

NAMES = ("us", "eu", "ap")
FOUNDERS = NAMES[:2]


class Joined(Wire):
    """``us`` and ``eu`` begin; ``ap`` is in their tables from the start, or only once it is admitted. Logs can be read back."""

    def __init__(self, *, is_known: bool, **options: Any) -> None:
        self.is_known, self.has_joined = is_known, False
        self.logs = {name: DictLog() for name in NAMES}
        super().__init__(*NAMES, **options)

    def _engine(self, name: str) -> Engine:
        configuration = self.configuration
        me = configuration.ids[self.names.index(name)]
        if name in FOUNDERS:
            configuration = msgspec.structs.replace(configuration, members=configuration.members[:2])
        engine = Watched(
            GROUP, configuration, me, self.cluster.name, self.options, Random(1), None, self.logs[name].read
        )
        if name in FOUNDERS and self.is_known:
            engine.admit(self.configuration.ids[2])
            engine.membership._put_in_force(configuration)
        return engine

    def words(self, message: Any) -> str:
        return ""  # rows have other lengths before

    def _durable(self, name: str) -> list[int]:
        return super()._durable(name)[: len(self.engines[name].others) + 1]

    def sync(self, *names: str) -> None:
        for name in names or self.names:
            for number in self.numbers[name]:
                batch = self.disks[name][self.synced[name]]
                self.synced[name] += 1
                entries = [Entry(GROUP, self.configuration.ids[origin], data) for origin, data in batch]
                self.step(name, Persisted(number, self.logs[name].write(entries)))
            self.numbers[name] = []

    def join(self) -> None:
        """``ap`` is a member; what was said before is lost, for it does not count."""
        self.has_joined = True
        for link in self.links.values():
            link.clear()
        configuration = msgspec.structs.replace(self.configuration, number=1)
        for engine in self.engines.values():
            engine.membership._put_in_force(configuration)
            engine.membership.told = configuration.id
        self.connect()

    def do(self, random: Random, names: tuple[str, ...]) -> None:
        """Something happens."""
        name, other = random.sample(names, 2)
        do = random.randrange(7)
        key = random.choice("kl")
        if do < 3 and not self._may_write(name):
            return
        if do < 2:
            self.write(name, op("counter", key, "add", amount=random.randrange(1, 9)))
        elif do == 2:
            self.write(name, op("aw_set", key, random.choice(("add", "remove")), elements=[random.randrange(4)]))
        elif do == 3:
            self.sync(name)
        elif do == 4:
            self.deliver(name, other, random.randrange(1, 4))
        elif do == 5:
            self.tick(random.choice((0, 20, 300, 2_000)))
        else:
            self.lose(name, other) if random.random() < 0.2 else self.deliver(name, other)

    def _may_write(self, name: str) -> bool:
        """Who joins has all that was stable before, or law L7 would not hold."""
        stable = [engine.stability.stable for engine in self.engines.values()]
        return name in FOUNDERS or all(all(map(le, vector, self.engines[name].applied)) for vector in stable)

    def rest(self) -> None:
        """Everything arrives, and everybody hears that it did."""
        self.settle(60_000)
        for _ in range(20):
            self.tick(500)
            for source, target in list(self.links):
                self.deliver(source, target)

    def shown(self) -> list[Any]:
        """All that is known to everybody, and all that is on its way."""
        return [self.links, self.replies, *[state(engine) for engine in self.engines.values() if self.has_joined]]


def state(engine: Engine) -> dict[str, Any]:
    rows, stability, history, causality = engine.rows, engine.stability, engine.history, engine.causality
    placed = history.placed
    found = {
        "digest": (engine.digest, engine.applied, engine.durability.vector),
        "rows": (rows.newest, rows.floor, rows.frontier, rows.known(engine.durability.vector)),
        "stable": (stability.stable, stability.frontiers, stability.frontier_hlc(1 << 62)),
        "causality": (causality.deps, causality.rosters),
        "history": (history.base, history.heads, placed, history.memory_bytes, history.first_position()),
        "lacking": history.lacking([0] * len(placed), placed, range(len(placed)), 1 << 30),
        "visible": [histogram.count for histogram in engine.measures.visibility_ms],
        "others": (engine.others, engine.position, engine.measures.window_ms.count),
    }
    return {name: _copied(what) for name, what in found.items()}


def _copied(what: Any) -> Any:
    return [_copied(part) for part in what] if isinstance(what, list | tuple) else what


@pytest.mark.parametrize("seed", range(30))
def test_who_is_admitted_late_might_have_been_known_from_the_start(seed: int) -> None:
    """Also with batches on their way to the disk, and with commits that left memory."""
    worlds = [Joined(is_known=is_known, history_bytes=200, fold_interval_ms=100) for is_known in (False, True)]
    randoms = [Random(seed), Random(seed)]

    def go_on(steps: int, names: tuple[str, ...]) -> None:
        for _ in range(steps):
            for world, random in zip(worlds, randoms, strict=True):
                world.do(random, names)
            late, known = (world.shown() for world in worlds)
            assert late[:2] == known[:2], "something else was said"
            assert late == known

    for world in worlds:
        world.connect(FOUNDERS)
    go_on(80, FOUNDERS)
    for world in worlds:
        world.join()
    go_on(150, NAMES)
    for world in worlds:
        world.rest()
        world.check_same()
        assert world.engines["us"].stability.stable == world.engines["us"].applied
        for engine in world.engines.values():
            engine.history.forget(engine.stability.stable)
    assert worlds[0].shown() == worlds[1].shown()
    assert any(log.reads for log in worlds[0].logs.values()), "nothing left memory"


@pytest.mark.parametrize("seed", range(20))
def test_a_history_admits_an_origin(seed: int) -> None:
    """With a base that moved, extents and blocks, one that grows answers as one that had the origin from the start."""
    random, log = Random(seed), DictLog()
    ids = [ReplicaId(name) for name in NAMES]
    starts = [chain_start("test", GROUP, replica) for replica in ids]
    late = History(starts[:2], None, GROUP, ids[:2], log.read, 300)
    known = History(starts, None, GROUP, ids, log.read, 300)
    applied, unplaced = [0, 0, 0], list[Entry]()

    def same(origins: int) -> None:
        low = [random.randint(base, seq) for base, seq in zip(known.base, applied, strict=True)]
        assert late.lacking(low[:origins], late.placed, range(origins), 500) == known.lacking(
            low, known.placed, range(origins), 500
        )
        for origin in range(origins):
            seq = low[origin]
            assert late.chain(origin, seq) == known.chain(origin, seq)
            assert late.span(origin, seq, applied[origin], 300) == known.span(origin, seq, applied[origin], 300)
            assert late.holds(origin, seq) == known.holds(origin, seq)
        assert (late.base, late.heads) == (known.base[:origins], known.heads[:origins])
        assert (len(late), late.first_position()) == (len(known), known.first_position())

    for origins in (2, 3):
        for at in range(200):
            origin, data = random.randrange(origins), random.randbytes(random.randrange(1, 60))
            applied[origin] += 1
            unplaced.append(Entry(GROUP, ids[origin], data))
            late.append(origin, data)
            known.append(origin, data)
            if random.random() < 0.3:
                position = log.write(unplaced)
                unplaced = []
                late.place(applied[:origins], position)
                known.place(applied, position)
            if random.random() < 0.05:
                goal = [random.randint(base, seq) for base, seq in zip(known.base, known.placed, strict=True)]
                late.forget(goal[:origins])
                known.forget(goal)
            if at % 5 == 0:
                same(origins)
        if origins == 2:
            late.admit(ids[2], starts[2])
            same(3)
            assert late.memory_bytes == known.memory_bytes


def test_a_big_drop_that_is_being_carried_out_meets_who_was_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "sweep_above", 5)
    wire = Joined(is_known=False)
    wire.connect(FOUNDERS)
    for element in range(20):
        wire.write("us", op("aw_set", "k", "add", elements=[element]))
    wire.settle(without=("ap",))
    wire.write("us", op("aw_set", "k", "add", elements=[50]))  # eu does not see it
    wire.write("eu", op("aw_set", "k", "delete"))
    wire.sync()
    wire.deliver("eu", "us")
    us = wire.engines["us"]
    assert not us.keyspace.tree.is_settled, "the drop is carried out already"
    wire.join()
    wire.write("ap", op("aw_set", "k", "add", elements=[60]))
    wire.write("ap", op("aw_set", "k", "delete"))  # it sees no more than that
    wire.sync("ap")
    wire.deliver("us", "ap", 1)
    wire.deliver("ap", "us")
    assert us.applied[2] == 2
    assert not us.keyspace.tree.is_settled
    wire.settle()
    wire.tick(100)
    wire.check_same()
    assert wire.value("us", "aw_set", "k") == [50]


def test_to_admit_somebody_twice_is_to_admit_him_once() -> None:
    wire = Joined(is_known=True)
    us = wire.engines["us"]
    assert us.admit(wire.replica("ap")) == 2
    assert us.admit(wire.replica("us")) == 0
    assert us.replicas == list(wire.configuration.ids)
    assert us.keyspace.tree.replicas is us.replicas
    assert (us.others, list(us.antientropy.peers)) == ([1], [1]), "it does not count before it is a member"


def test_who_is_no_member_is_not_heard() -> None:
    wire = Joined(is_known=True)
    wire.connect(("us", "ap"))
    assert not wire.links["us", "ap"]
    add(wire, "ap")
    wire.sync()
    wire.deliver("ap", "us")
    assert wire.engines["us"].applied == [0, 0, 0]
