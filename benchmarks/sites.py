"""Replicas of one group for benchmarks: engines in memory that speak in encoded messages, each step timed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from random import Random
from time import perf_counter, process_time
from typing import Any

from benchmarks.core import NOW_MS
from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine import Engine, Options
from crdtstore.engine.events import Draft, Event, LocalCommit, Op, PeerChanged, Persisted, Received, Tick
from crdtstore.engine.output import Committed
from crdtstore.messages import Ack, Digest, Frame, Want, decode_message, encode_message
from crdtstore.types import REGISTRY, View

__all__ = ["GROUP", "KEY", "Site", "World", "footprint", "metadata", "op_of"]

GROUP = "bench/0"
KEY = "k"
_REGIONS = ("us", "eu", "ap")


def op_of(type_name: str, name: str | None, **arguments: Any) -> Op:
    """An operation on the one key of the collection ``things``, its arguments checked; no name: delete."""
    crdt = REGISTRY[type_name]
    path = f"things:{type_name}"
    if name is None:
        return Op(crdt, path, KEY, None, {})
    return Op(crdt, path, KEY, crdt.mutators[name], crdt.mutators[name].check(arguments))


class Site:
    """One replica. Mutable; ``longest_ms`` is the longest step by the clock on the wall, ``longest_cpu_ms`` that by its CPU time, which
    others on the machine do not lengthen.
    """

    def __init__(self, cluster: Cluster, index: int) -> None:
        me = cluster.members[index]
        configuration = cluster.configuration(GROUP)
        self.engine = Engine(GROUP, configuration, me.replica, cluster.name, Options(), Random(index))
        self.out: deque[tuple[int, bytes]] = deque()
        self.longest_ms = self.longest_cpu_ms = 0.0

    def step(self, event: Event, now_ms: int) -> None:
        """Let one event happen; what it writes is durable at once."""
        started = perf_counter(), process_time()
        out = self.engine.step(event, now_ms)
        self._note(*started)
        encoded: dict[int, bytes] = {}  # as a host does: one frame may go to several peers
        for peer, message in out.send:
            if id(message) not in encoded:
                encoded[id(message)] = encode_message(message)
            self.out.append((peer, encoded[id(message)]))
        for reply in out.replies:
            assert isinstance(reply, Committed), reply
        assert not out.rejected, out.rejected
        if out.persist:
            self.step(Persisted(out.number), now_ms)

    def read(self, look: Callable[[], Any]) -> None:
        """Look at something, as a reader would: that is a step too."""
        started = perf_counter(), process_time()
        look()
        self._note(*started)

    def _note(self, wall_s: float, cpu_s: float) -> None:
        self.longest_ms = max(self.longest_ms, (perf_counter() - wall_s) * 1000)
        self.longest_cpu_ms = max(self.longest_cpu_ms, (process_time() - cpu_s) * 1000)

    def view(self, type_name: str, now_ms: int | None = None) -> View:
        return self.engine.keyspace.view(f"things:{type_name}", KEY, now_ms)


class World:
    """Some replicas and their time. Mutable; messages arrive when ``deliver`` is called, those to others are lost."""

    def __init__(self, count: int, *, is_connected: bool = True) -> None:
        regions = [*_REGIONS, *(f"region-{at}" for at in range(len(_REGIONS), count))][:count]
        members = [Member(make_replica_id(f"{region}-1", at + 1), region) for at, region in enumerate(regions)]
        self.cluster = Cluster("bench", bytes(16), tuple(members))
        self.sites = [Site(self.cluster, index) for index in range(count)]
        self.now_ms = NOW_MS
        if is_connected:
            self.connect()

    def connect(self) -> None:
        for at, site in enumerate(self.sites):
            for peer in range(len(self.sites)):
                if peer != at:
                    site.step(PeerChanged(peer, True), self.now_ms)

    def write(self, at: int, ops: Iterable[Op], operations: Iterable[Mapping[str, Any]] | None = None) -> None:
        """One batch: a commit per operation; ``operations`` gives each an operation id and its expiry."""
        ids: Iterable[Mapping[str, Any]] = repeat({}) if operations is None else operations
        drafts = [Draft(number, [op], **named) for number, (op, named) in enumerate(zip(ops, ids, strict=False))]
        self.sites[at].step(LocalCommit(drafts), self.now_ms)

    def deliver(self) -> bool:
        """All that is on its way arrives; return whether anything was."""
        has_moved = False
        for at, site in enumerate(self.sites):
            while site.out:
                peer, data = site.out.popleft()
                message = decode_message(data)
                assert isinstance(message, Frame | Digest | Ack | Want)
                self.sites[peer].step(Received(at, message), self.now_ms)
                has_moved = True
        return has_moved

    def tick(self, ms: int = 1) -> None:
        """Time passes; who wants to be woken is."""
        self.now_ms += ms
        for site in self.sites:
            if site.engine.wake_ms <= self.now_ms:
                site.step(Tick(), self.now_ms)

    def pass_ms(self, ms: int, each: int = 50) -> None:
        """Time passes and everything arrives."""
        end = self.now_ms + ms
        while self.now_ms < end:
            self.tick(each)
            while self.deliver():
                pass


# --- bytes


def metadata(engine: Engine) -> int:
    """The bytes of what a group holds of its keys: tree, what waits to be folded, operation ids, deadlines; not the log."""
    keyspace = engine.keyspace
    tree, operations, expiry = keyspace.tree, keyspace.operations, keyspace.expiry
    roots: list[Any] = [tree.root, tree.contested]
    for owner in (tree, operations, expiry):
        roots += [getattr(owner, name) for name in type(owner).__slots__ if name.startswith("_") and name != "_shares"]
    return footprint(*roots)


def footprint(*roots: Any) -> int:
    """The bytes of objects and of all they hold; each is counted once, functions are not."""
    seen: set[int] = set()
    pending = list(roots)
    total = 0
    while pending:
        each = pending.pop()
        if id(each) in seen or callable(each):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        if isinstance(each, Mapping):
            pending += each.keys()
            pending += each.values()
        elif isinstance(each, list | tuple | set | deque):
            pending += each
        for name in getattr(type(each), "__struct_fields__", ()):
            pending.append(getattr(each, name))
        if hasattr(each, "__dict__"):
            pending += vars(each).values()
    return total
