"""Progress of one peer: what it has, what is on its way to it, and whether it answers. All transitions stand here.

``down``       no connection.
``probing``    connected; what it has is not known (again): a digest asks, nothing is pushed.
``streaming``  its row is known; own commits go out as they become durable, as long as the window allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

__all__ = ["Progress"]

State = Literal["down", "probing", "streaming"]


class Progress:
    """What one replica keeps about one peer. Mutable."""

    __slots__ = (
        "_lacks_since_ms",
        "_patience",
        "_quiet_since_ms",
        "_timed",
        "ack_due_ms",
        "acknowledged",
        "asked_ms",
        "has",
        "heard_ms",
        "relayed",
        "relayed_ms",
        "round_trip_ms",
        "sent",
        "state",
    )

    def __init__(self, replicas: int) -> None:
        self.state: State = "down"
        self.has: list[int] = [0] * replicas
        """Its durable vector, as it last said."""
        self.sent = 0
        """Own commits up to this number are on their way or there."""
        self._lacks_since_ms: list[int | None] = [None] * replicas
        """Since when it lacks something of an origin, without any progress there."""
        self.acknowledged = 0
        """How many of its commits our last row to it named."""
        self.relayed: list[int] = []
        """What it had when others' commits were last relayed to it, and when that was."""
        self.relayed_ms = 0
        self.asked_ms = 0
        """When it was last asked to start again."""
        self.ack_due_ms: int | None = None
        self.heard_ms: int | None = None
        self.round_trip_ms: int | None = None
        """From sending to acknowledgement; it rises at once and falls by an eighth. The peer's disk is in it, and what it waits for."""
        self._patience = 1
        """Doubles each time that commits were sent again in vain: a slow link would be filled with copies."""
        self._timed: tuple[int, int] | None = None
        """The commit whose round trip is being measured, and when it was sent."""
        self._quiet_since_ms = 0

    def admit(self) -> None:
        """There is one more replica, of which the peer has nothing yet."""
        self.has.append(0)
        self._lacks_since_ms.append(None)
        if self.relayed:
            self.relayed.append(0)

    def become_down(self) -> None:
        self.state = "down"
        self.ack_due_ms = None
        self._patience = 1

    def become_probing(self, now_ms: int) -> None:
        if self.state == "streaming":
            self._patience = min(2 * self._patience, 64)
        self.state = "probing"
        self._quiet_since_ms = now_ms

    def become_streaming(self, own: int, now_ms: int) -> None:
        """Its row is known: whatever it lacks of ``own`` is sent from there on."""
        self.state = "streaming"
        self.sent = self.has[own]
        self._timed = None  # an acknowledgement could be for either time it was sent (Karn)
        self._quiet_since_ms = now_ms

    def take_vector(self, vector: Sequence[int], durable: Sequence[int], own: int, now_ms: int) -> None:
        """Take in what the peer says it has; words that overtook each other never take it back."""
        self.heard_ms = now_ms
        has, lacks_since_ms = self.has, self._lacks_since_ms
        for origin, (seq, here) in enumerate(zip(vector, durable, strict=True)):
            if seq > has[origin]:
                has[origin] = seq
                lacks_since_ms[origin] = None
                if origin == own:
                    self._quiet_since_ms = now_ms
            if has[origin] >= here:
                lacks_since_ms[origin] = None
            elif lacks_since_ms[origin] is None:
                lacks_since_ms[origin] = now_ms
        if self._timed is not None and self.has[own] >= self._timed[0]:
            took_ms = now_ms - self._timed[1]
            self.round_trip_ms = max(took_ms, (7 * (self.round_trip_ms or 0) + took_ms) // 8)
            self._timed = None
            self._patience = 1
        if self.state == "probing":
            self.become_streaming(own, now_ms)
        elif self.has[own] >= self.sent:  # nothing on its way: silence is no fault
            self.sent = self.has[own]
            self._quiet_since_ms = now_ms

    def note_sent(self, own: int, upto: int, now_ms: int) -> None:
        if self.sent == self.has[own]:
            self._quiet_since_ms = now_ms
        if self._timed is None:
            self._timed = (upto, now_ms)
        self.sent = upto

    def is_overdue(self, own: int, now_ms: int, timeout_ms: int, resend_ms: int) -> bool:
        """Whether the peer should have acknowledged something long ago: four round trips, at least five times ``resend_ms``, and longer
        each time in vain, up to ``timeout_ms``.
        """
        if self.state == "down" or (self.state == "streaming" and self.sent <= self.has[own]):
            return False
        if self.round_trip_ms is not None:
            timeout_ms = min(timeout_ms, self._patience * max(4 * self.round_trip_ms, 5 * resend_ms))
        return now_ms - self._quiet_since_ms >= timeout_ms

    def stalled(self, own: int, peer: int, now_ms: int, after_ms: int) -> list[int]:
        """Third origins whose commits the peer has lacked, without any progress, for so long that a relay is in order."""
        return [
            origin
            for origin, since in enumerate(self._lacks_since_ms)
            if origin not in (own, peer) and since is not None and now_ms - since >= after_ms
        ]
