"""Connections: what the nodes' transport would do above the simulated network.

The question: when does a node learn that a peer is gone? Not at the cut. A cut link is silent; after ``detection_s`` of silence a node
closes the connection and says so to its engine; when both ways are open again, hellos are exchanged and both engines hear of it. Only a
crash is heard of at once, and only if the way is open.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Protocol

from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.timeline import Timeline

__all__ = ["Connections", "Party"]

_RETRY_US = 200_000


class Party(Protocol):
    """A node as connections see it."""

    @property
    def is_alive(self) -> bool: ...

    def hello(self, peer: int) -> bytes: ...
    def check_hello(self, data: bytes) -> int | None:
        """Who speaks, None when the hello was refused."""

    def peer_changed(self, peer: int, is_connected: bool) -> None: ...


class Connections:
    """One connection per pair of nodes. Mutable."""

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        network: SimulatedNetwork,
        parties: list[Party],
        detection_us: int,
        note: Callable[[int, int, bytes], None],
    ) -> None:
        self._timeline = timeline
        self._random = random
        self._network = network
        self._parties = parties
        self._detection_us = detection_us
        self._note = note
        """Takes (kind, node, data) of what happened, for the trace."""
        self._is_up = {(a, b): False for a in range(len(parties)) for b in range(len(parties)) if a != b}
        """As each side sees it."""
        self._is_dialling: set[tuple[int, int]] = set()
        self._cut_number = dict.fromkeys(self._is_up, 0)

    def start(self) -> None:
        for pair in combinations(range(len(self._parties)), 2):
            self._dial(pair)

    # --- faults

    def on_cut(self, source: int, target: int) -> None:
        """Nothing comes from ``source`` any more: ``target`` notices after a while, if it lasts."""
        self._cut_number[source, target] += 1
        number = self._cut_number[source, target]
        self._timeline.after(self._detection_us, self._on_silence, (source, target, number))

    def on_heal(self, source: int, target: int) -> None:
        self._cut_number[source, target] += 1
        self._maybe_dial(source, target)

    def on_crash(self, node: int) -> None:
        """The kernel of a dead process resets its connections; who cannot hear that finds out by silence."""
        for peer in range(len(self._parties)):
            if peer == node:
                continue
            self._is_up[node, peer] = False
            self._cut_number[node, peer] += 1
            number = self._cut_number[node, peer]
            is_heard = not self._network.is_cut(node, peer)
            delay_us = self._network.latency_us(node, peer) if is_heard else self._detection_us
            self._timeline.after(delay_us, self._on_silence, (node, peer, number))

    def on_restart(self, node: int) -> None:
        for peer in range(len(self._parties)):
            if peer != node:
                self._maybe_dial(node, peer)

    # --- inside

    def _on_silence(self, argument: tuple[int, int, int]) -> None:
        source, target, number = argument
        if number == self._cut_number[source, target]:
            self._close(target, source)

    def _close(self, node: int, peer: int) -> None:
        """A node closes its side; the other side hears of it if it can, and then somebody dials."""
        if self._is_up[node, peer]:
            self._is_up[node, peer] = False
            if self._parties[node].is_alive:
                self._note(1, node, bytes((peer,)))
                self._parties[node].peer_changed(peer, False)
            if self._is_up[peer, node] and not self._network.is_cut(node, peer):
                self._timeline.after(self._network.latency_us(node, peer), self._on_closed, (peer, node))
        self._maybe_dial(node, peer)

    def _on_closed(self, argument: tuple[int, int]) -> None:
        self._close(*argument)

    def _maybe_dial(self, a: int, b: int) -> None:
        pair = (min(a, b), max(a, b))
        if pair not in self._is_dialling and not (self._is_up[pair] and self._is_up[pair[::-1]]):
            self._dial(pair)

    def _dial(self, pair: tuple[int, int]) -> None:
        self._is_dialling.add(pair)
        self._timeline.after(int(_RETRY_US * (0.1 + self._random.random())), self._on_dial, pair)

    def _on_dial(self, pair: tuple[int, int]) -> None:
        a, b = pair
        if not (self._parties[a].is_alive and self._parties[b].is_alive):
            self._is_dialling.discard(pair)  # the restart dials
            return
        if self._network.is_cut(a, b) or self._network.is_cut(b, a):
            self._is_dialling.discard(pair)  # the heal dials
            return
        for node, peer in (pair, pair[::-1]):
            if self._is_up[node, peer]:  # the other side lost it without our hearing of it
                self._is_up[node, peer] = False
                self._note(1, node, bytes((peer,)))
                self._parties[node].peer_changed(peer, False)
        self._is_dialling.discard(pair)
        hellos = self._parties[a].hello(b), self._parties[b].hello(a)
        is_heard = self._is_heard(a, b, hellos[0]), self._is_heard(b, a, hellos[1])  # both, whatever the other says
        if not all(is_heard):
            self._on_refused(pair)
            return
        for node, peer in (pair, pair[::-1]):
            self._is_up[node, peer] = True
            self._cut_number[node, peer] += 1  # what was suspected before is settled
            self._note(2, node, bytes((peer,)))
            self._parties[node].peer_changed(peer, True)

    def _is_heard(self, source: int, target: int, hello: bytes) -> bool:
        """Whether a hello is taken."""
        return self._parties[target].check_hello(hello) is not None

    def _on_refused(self, pair: tuple[int, int]) -> None:
        """A hello was refused. Among members that stay it is for good; whoever refused has reported it."""
