"""The users of a cluster whose members change: they ask whatever machine runs, and begin anew when what they had seen is gone.

The question: which answers may a user get that others never do? That a node is not, or no longer, a member; and that what his token names
was cut off with the one who had made it. Then he forgets what he had seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from crdtstore.errors import CrdtStoreError
from crdtstore_sim.node import Node
from crdtstore_sim.timeline import Streams
from crdtstore_sim.workload import Open, Workload

if TYPE_CHECKING:
    from crdtstore_sim.regroup.world import World

__all__ = ["LATE", "Users"]

LATE = "d9"
"""A domain that is declared when members have changed already."""
_LATE_SHARE = 0.3
_ELSEWHERE = frozenset(("fenced", "identity-unproven", "leaving", "not-ready", "token-lost"))
"""Who gets such an answer asks another machine next."""


class _Lives(Sequence[Node]):
    """The lives of machines by their number: only those of the founders are sure to be there."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __len__(self) -> int:
        return self._world.scenario.replicas

    def __getitem__(self, index: Any) -> Any:
        lives = self._world.lives
        return [lives[at] for at in range(len(self))[index]] if isinstance(index, slice) else lives[index]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._world.living())


class Users(Workload):
    """All users. Mutable."""

    def __init__(self, world: World, random: Random, until_us: int) -> None:
        work = world.scenario.work
        super().__init__(world.timeline, world.trace, random, work, _Lives(world), world.watch, until_us)
        self._watch = world.watch
        self._world = world
        self._chance = Streams(world.seed).stream("late domain")

    def start(self) -> None:
        """Sometimes a domain is declared while members change."""
        super().start()
        if self._chance.random() < _LATE_SHARE:
            self._timeline.at(int(self._until_us * (0.2 + 0.5 * self._chance.random())), self._on_late)

    def _on_late(self, where: Node | None) -> None:
        """Ask one machine for it, until it answers or is gone: two that declare it under other members would begin two lines."""
        living = self._world.living()
        if where is None and living:
            where = self._chance.choice(living)
            self._domains.append(LATE)
            self._undeclared |= {(LATE, name) for name in self._work.by_name}
        missing = sorted(name for domain, name in self._undeclared if domain == LATE)
        if where is None or not where.is_alive or self._timeline.now_us > self._until_us:
            self._undeclared -= {(LATE, name) for name in missing}
        elif missing:
            declared = [self._declare_domain(LATE, where.index)]
            for name in missing:
                fields = {"domain": LATE, "collection": name, "type": self._work.by_name[name].type_name}
                declared.append(self._request(None, where.index, "declare", fields))
            where.on_requests(declared)
            self._timeline.after(700_000, self._on_late, where)

    def _on_error(self, node: Node, asked: Open, error: CrdtStoreError) -> None:
        session = asked.session
        if session is not None and error.code == "token-lost":
            session.token = session.last_read = None
            self._watch.sessions.forget(session.index)
        if session is not None and error.code in _ELSEWHERE and (living := list(self._nodes)):
            session.node = self._random.choice(living).index
        super()._on_error(node, asked, error)
