"""What one commit costs however much there is: elements of a set, keys of a domain, replicas of a group.

The question: what does steady traffic cost where everything was written before? Replicas in memory write by turns, in batches, hear each
other, acknowledge and fold; the first of them is timed, its own commits and those that it hears, by CPU time. Small and large take turns,
so that what else runs on the machine slows both.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random
from time import process_time

from benchmarks.figures import Figure
from benchmarks.sites import World
from crdtstore.engine.events import Draft, Event, LocalCommit, Op, Received
from crdtstore.messages import Frame, decode_message
from crdtstore.types import REGISTRY

__all__ = ["figures"]

COMMITS = 8_000
"""By each run at each size, of all replicas together."""
BATCH = 64
_FILL = 1_000
"""Operations in one commit of those that fill a world."""
_STATE_TARGET, _REPLICAS_TARGET = 1.3, 1.5


def _op(collection: str, key: str, name: str, **arguments: object) -> Op:
    crdt = REGISTRY[collection.rpartition(":")[2]]
    return Op(crdt, collection, key, crdt.mutators[name], arguments)


def _adds(keys: int, random: Random) -> Iterator[Op]:
    """Adds to counters drawn evenly."""
    while True:
        yield _op("counts:counter", f"key-{random.randrange(keys)}", "add", amount=1)


def _elements(prefix: str) -> Iterator[Op]:
    """Elements of one set that come and go: it stays as large as it was."""
    for number in count():
        element = f"{prefix}-{number}"
        yield _op("sets:aw_set", "set", "add", elements=[element])
        yield _op("sets:aw_set", "set", "remove", elements=[element])


@dataclass
class _Cost:
    """CPU seconds and commits of one kind at the first replica."""

    seconds: float = 0.0
    commits: int = 0

    def each(self) -> float:
        return self.seconds / self.commits


@dataclass
class _Costs:
    local: _Cost = field(default_factory=_Cost)
    remote: _Cost = field(default_factory=_Cost)
    all: _Cost = field(default_factory=_Cost)
    """With acknowledgements, digests and folding, over the commits of all."""


class _Steady:
    """Some replicas of one group under steady traffic. Mutable."""

    def __init__(self, replicas: int, filling: list[Op], traffic: Callable[[int], Iterator[Op]]) -> None:
        self._world = World(replicas)
        self._traffic = [traffic(at) for at in range(replicas)]
        for begin in range(0, len(filling), _FILL):
            draft = Draft(begin, filling[begin : begin + _FILL])
            self._world.sites[0].step(LocalCommit([draft]), self._world.now_ms)
            self._world.pass_ms(10, each=10)
        self.run(COMMITS // 4)  # all have written and heard each other
        self._world.pass_ms(5_000)

    def run(self, commits: int) -> _Costs:
        """So many commits by all together; what they cost the first replica."""
        costs, world = _Costs(), self._world
        sites = world.sites
        for _ in range(max(1, commits // (BATCH * len(sites)))):
            for at, site in enumerate(sites):
                drafts = [Draft(number, [op]) for number, op in enumerate(islice(self._traffic[at], BATCH))]
                event = LocalCommit(drafts)
                if at:
                    site.step(event, world.now_ms)
                else:
                    self._time(event, BATCH, costs.local)
                costs.all.commits += BATCH
            self._deliver(costs)
            started = process_time()
            world.tick(10)
            costs.all.seconds += (process_time() - started) / len(sites)
        costs.all.seconds += costs.local.seconds + costs.remote.seconds
        return costs

    def _deliver(self, costs: _Costs) -> None:
        """As ``World.deliver`` until nothing is under way, what the first replica hears timed."""
        world = self._world
        while any(site.out for site in world.sites):
            for at, site in enumerate(world.sites):
                while site.out:
                    peer, data = site.out.popleft()
                    started = process_time()
                    message = decode_message(data)
                    event = Received(at, message)  # type: ignore[arg-type]
                    commits = len(message.commits) if isinstance(message, Frame) else 0
                    if peer:
                        world.sites[peer].step(event, world.now_ms)
                    else:
                        world.sites[0].step(event, world.now_ms)
                        seconds = process_time() - started
                        if commits:
                            costs.remote.seconds += seconds
                            costs.remote.commits += commits
                        else:
                            costs.all.seconds += seconds

    def _time(self, event: Event, commits: int, cost: _Cost) -> None:
        started = process_time()
        self._world.sites[0].step(event, self._world.now_ms)
        cost.seconds += process_time() - started
        cost.commits += commits


def _ratios(name: str, target: float, small: _Steady, large: _Steady, runs: int) -> list[Figure]:
    """How much more a commit costs in the large than in the small, run by run."""
    gc.collect()
    gc.freeze()
    pairs = [(small.run(COMMITS), large.run(COMMITS)) for _ in range(runs)]
    gc.unfreeze()
    found = []
    for what in ("local", "remote", "all"):
        costs = [(getattr(few, what).each(), getattr(many, what).each()) for few, many in pairs]
        last_few, last_many = costs[-1]
        found.append(
            Figure(
                f"{name}, {'all traffic' if what == 'all' else f'a {what} commit'}",
                "times",
                [many / few for few, many in costs],
                target,
                is_at_least=False,
                notes={"us a commit": round(last_few * 1e6, 2), "and in the large": round(last_many * 1e6, 2)},
            )
        )
    return found


def _sets(elements: int) -> _Steady:
    filling = [_op("sets:aw_set", "set", "add", elements=[f"there-{at}"]) for at in range(elements)]
    return _Steady(2, filling, lambda at: _elements(f"new-{at}"))


def _keys(keys: int) -> _Steady:
    filling = [_op("counts:counter", f"key-{at}", "add", amount=1) for at in range(keys)]
    return _Steady(2, filling, lambda at: _adds(keys, Random(at)))


def _replicas(replicas: int) -> _Steady:
    return _Steady(replicas, [], lambda at: _adds(10_000, Random(at)))


def figures(runs: int) -> list[Figure]:
    """Ratios of CPU time a commit; 1.0: it does not grow."""
    found = _ratios("100,000 elements of a set against 100", _STATE_TARGET, _sets(100), _sets(100_000), runs)
    found += _ratios("1,000,000 keys against 1,000", _STATE_TARGET, _keys(1_000), _keys(1_000_000), runs)
    found += _ratios("30 replicas against 3", _REPLICAS_TARGET, _replicas(3), _replicas(30), runs)
    return found
