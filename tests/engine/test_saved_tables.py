"""The table of a checkpoint: what its indexes mean, however the members are named and ordered that a start is told of."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine import growth
from crdtstore.engine.checkpoint import read_saved
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import ProtocolError
from crdtstore.host import Host, HostOutput
from crdtstore.saving import Saved
from crdtstore.service import Event, PeerChanged, Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState

US, EU, AP = (Member(make_replica_id(f"{name}-1", at), name) for at, name in enumerate(("us", "eu", "ap")))
OPTIONS = Options(checkpoint_ms=100, checkpoint_rows=10, retain_bytes=1_024, history_bytes=200, fold_interval_ms=10)


def cluster(*members: Member) -> Cluster:
    return Cluster("test", bytes(16), members)


class Site:
    """``us``, whose disks do at once what they are asked for."""

    def __init__(self, *members: Member, log: MemoryLog | None = None, store: MemoryState | None = None) -> None:
        self.log, self.store = log or MemoryLog(), store or MemoryState()
        self.now_ms = 1_700_000_000_000
        self.host = Host(cluster(*members), US.replica, OPTIONS, Random(1), self.store, self.log.read)
        self.replayed = self.host.recover(self.log.replay(self.host.needed))
        self.service = Service(self.host)
        self.replies: dict[int, Any] = {}

    def step(self, event: Event) -> None:
        self.now_ms += 1
        out: HostOutput | None = self.service.step([event], self.now_ms)
        while out is not None:
            self.replies |= dict(out.replies)
            events: list[Event] = []
            if out.persist:
                events.append(Persisted(out.persist_number, self.log.write([self.log.encode(out.persist)])))
            for save in out.save:
                rows, data_bytes = self.store.write(save.part) if save.part is not None else (0, 0)
                if save.part is None:
                    self.store.commit()
                events.append(Saved(save.number, rows, data_bytes))
            out = self.service.step(events, self.now_ms) if events else None

    def ask(self, do: str, **fields: Any) -> Any:
        ticket = len(self.replies)
        self.step(Request(ticket, do, {"domain": "d", **fields}))
        return self.replies[ticket]

    def add(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            ops = [{"collection": "things", "key": key, "op": "add", "amount": 1}]
            assert isinstance(self.ask("commit", ops=ops), dict)

    def declare(self) -> Site:
        self.ask("declare_domain")
        self.ask("declare", collection="things", type="counter")
        return self

    def wait(self) -> Site:
        assert self.host.saving is not None
        before = self.host.saving.checkpoints
        for _ in range(100):
            self.now_ms += 200
            self.step(Tick())
            if self.host.saving.checkpoints > before:
                return self
        raise AssertionError("no checkpoint was made")

    def again(self, *members: Member) -> Site:
        """The power goes, and comes back."""
        self.log.crash()
        self.store.crash()
        return Site(*members, log=self.log, store=self.store)

    @property
    def engine(self) -> Any:
        return self.host.groups["d/0"]

    def lengths(self) -> set[int]:
        """How long all that is by replica is."""
        engine = self.engine
        rows, stability, history, causality = engine.rows, engine.stability, engine.history, engine.causality
        found = [engine.applied, engine.durability.vector, rows.newest, rows.floor, rows.frontier]
        found += [stability.stable, stability.frontiers, history.base, history.heads, history.placed]
        found += [causality.rosters, *causality.deps, engine.measures.visibility_ms]
        found += [progress.has for progress in engine.antientropy.peers.values()]
        return {len(engine.replicas), *map(len, found)}


@pytest.mark.parametrize("order", [(US, EU), (EU, US), (AP, EU, US)])
def test_a_checkpoint_brings_its_table(order: tuple[Member, ...]) -> None:
    """A start that knows of more members, in whatever order, enters them behind those of the checkpoint."""
    made = Site(US).declare()
    made.add("k", 30)
    made.wait()
    made.add("l", 3)
    digest, heads = made.engine.digest, made.engine.history.heads
    again = made.again(*order)
    engine, others = again.engine, [member for member in order if member is not US]
    assert again.replayed == 3, "the checkpoint holds the others"
    assert engine.replicas == [US.replica, *[member.replica for member in others]]
    assert (engine.me, engine.position, engine.others) == (0, 0, []), "who the members are stands in it too"
    assert again.lengths() == {len(order)}
    assert (engine.digest, engine.history.heads[:1]) == (digest, heads)
    assert engine.applied == [33, *[0 for _ in others]]
    assert engine.history.commit(0, 1) == made.engine.history.commit(0, 1)
    again.add("k", 2)
    again.wait()
    last = again.again(US, *others)
    assert last.engine.replicas == engine.replicas, "what an index meant it means for ever"
    assert last.engine.digest == engine.digest == last.engine.keyspace.tree.share([])
    assert last.ask("read", collection="things", key="k")["value"] == 32


def test_who_was_admitted_is_in_the_next_checkpoint_and_stays_when_nobody_names_him() -> None:
    made = Site(US, EU).declare()
    made.add("k")
    for engine in made.host.groups.values():
        growth.count_members(engine, [AP.replica, US.replica], US.replica)  # eu is gone, and ap joins
    made.add("k")
    made.wait()
    number = made.engine.checkpoint.number
    saved = read_saved(made.store, number)
    assert saved is not None
    assert saved.members == [US.replica, EU.replica, AP.replica]
    assert saved.applied == [2, 0, 0]
    again = made.again(US, EU)
    assert again.engine.replicas == [US.replica, EU.replica, AP.replica]
    assert (again.engine.others, again.lengths()) == ([1], {3})


def test_what_is_retained_knows_less_than_who_was_admitted_since() -> None:
    """Marks in the log are as long as the table was when they were made."""
    made = Site(US).declare()
    made.add("k", 40)
    for engine in made.host.groups.values():
        engine.admit(AP.replica)
    for _ in range(3):
        made.add("k", 40)
        made.wait()
    assert made.engine.history.base[0] > 0, "nothing was forgotten"
    assert made.lengths() == {2}


def test_a_checkpoint_of_another_group_is_none() -> None:
    made = Site(US).declare()
    made.add("k")
    made.wait()
    engine = made.again(US).engine
    engine.group = "other/0"
    with pytest.raises(ProtocolError, match="is one of d/0"):
        engine.checkpoint.load()


def test_a_connection_of_somebody_who_is_no_member_is_none_of_a_group() -> None:
    made = Site(US, EU).declare()
    for engine in made.host.groups.values():
        growth.count_members(engine, [US.replica], US.replica)
    made.step(PeerChanged(EU.replica, True))
    made.now_ms += 60_000
    made.step(Tick())
    assert made.engine.antientropy.peers == {}
