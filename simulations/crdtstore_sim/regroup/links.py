"""Connections between machines whose identity changes: who speaks is known by the hello, and said anew with each connection.

The question: to whom does a message belong that is under way while a machine begins a new life? To the old connection, which is gone with
it. Within one life messages may overtake the connection, as they may everywhere in the simulator.
"""

from __future__ import annotations

from typing import NamedTuple

from crdtstore_sim.connections import Connections

__all__ = ["Links", "Parcel"]

_AGAIN_US = 400_000


class Parcel(NamedTuple):
    """A message between two lives."""

    data: bytes
    source: int
    """The life that sent it."""
    target: int
    turns: tuple[int, int] = (0, 0)
    """How often the disks of both had been put back when it was sent: connections do not live that long."""

    def __len__(self) -> int:
        return len(self.data)


class Links(Connections):
    """Connections between places. A hello that was refused is said again later: the reason may have gone."""

    def _is_heard(self, source: int, target: int, hello: bytes) -> bool:
        return self._parties[target].check_hello_of(hello, source)  # type: ignore[attr-defined, no-any-return]

    def _on_refused(self, pair: tuple[int, int]) -> None:
        self._timeline.after(_AGAIN_US, self._on_again, pair)

    def _on_again(self, pair: tuple[int, int]) -> None:
        self._maybe_dial(*pair)

    def connect_now(self, node: int) -> None:
        """A machine that has just started says hello to everybody whom it reaches, before anything else happens."""
        for peer in range(len(self._parties)):
            if peer != node and self._parties[peer].is_alive and self._parties[node].is_alive:
                pair = min(node, peer), max(node, peer)
                self._is_dialling.add(pair)
                self._on_dial(pair)

    def is_up(self, node: int, peer: int) -> bool:
        return self._is_up[node, peer]
