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
from crdtstore_sim.workload import Open, Workload

if TYPE_CHECKING:
    from crdtstore_sim.regroup.world import World

__all__ = ["Users"]

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

    def _on_error(self, node: Node, asked: Open, error: CrdtStoreError) -> None:
        session = asked.session
        if session is not None and error.code == "token-lost":
            session.token = session.last_read = None
            self._watch.sessions.forget(session.index)
        if session is not None and error.code in _ELSEWHERE and (living := list(self._nodes)):
            session.node = self._random.choice(living).index
        super()._on_error(node, asked, error)
