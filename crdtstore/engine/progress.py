"""Progress of one peer: what it has, what is on its way to it, and whether it answers. All transitions stand here.

``down``       no connection.
``probing``    connected; what it has is not known (again): a digest asks, nothing is pushed.
``streaming``  its row is known; own commits go out as they become durable, as long as the window allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from crdtstore.engine.flow import Flow

__all__ = ["Progress"]

State = Literal["down", "probing", "streaming"]
_RELAY_BYTES, _LEAST_RELAY_BYTES = 16 << 10, 8 << 10
_MOST_RELAY_PATIENCE = 8


class Progress:
    """What one replica keeps about one peer. Mutable."""

    __slots__ = (
        "_asked",
        "_is_doubted",
        "_lacks_since_ms",
        "_most_bytes",
        "_quiet_since_ms",
        "_relay_patience",
        "_relayed",
        "_relayed_ms",
        "_settled_at_ms",
        "ack_due_ms",
        "acknowledged",
        "asked_ms",
        "flow",
        "has",
        "heard_ms",
        "relay_bytes",
        "sent",
        "state",
    )

    def __init__(self, replicas: int, most_bytes: int = 1 << 22) -> None:
        """``most_bytes``: the largest window."""
        self.state: State = "down"
        self.has: list[int] = [0] * replicas
        """Its durable vector, as it last said."""
        self.sent = 0
        """Own commits up to this number are on their way or there."""
        self._lacks_since_ms: list[int | None] = [None] * replicas
        """Since when it lacks something of an origin, without any progress there."""
        self.acknowledged = 0
        """How many of its commits our last row to it named."""
        self._relayed: dict[int, tuple[int, int]] = {}
        """Per origin whose commits were last relayed to it: what it had, and what it has once they have come."""
        self._relayed_ms = 0
        self._relay_patience = 1
        self._most_bytes = most_bytes
        self.relay_bytes = min(_RELAY_BYTES, most_bytes)
        """So much is relayed next."""
        self.asked_ms = 0
        """When it was last asked to start again."""
        self.ack_due_ms: int | None = None
        self.heard_ms: int | None = None
        self.flow = Flow(most_bytes)
        self._quiet_since_ms = 0
        self._asked = 0
        """How many digests were sent that want an answer, and have none yet."""
        self._is_doubted = False
        """Whether what is on its way may be lost: nothing was acknowledged for too long."""
        self._settled_at_ms = 0
        """When it has come or is lost, whether or not an answer says so."""

    def admit(self) -> None:
        """There is one more replica, of which the peer has nothing yet."""
        self.has.append(0)
        self._lacks_since_ms.append(None)

    def become_down(self) -> None:
        self.state = "down"
        self.ack_due_ms = None
        self.flow.begin()
        self._asked = 0
        self._is_doubted = False
        self._lacks_since_ms = [None] * len(self.has)  # whoever makes it may reach the peer again as well
        self._relayed, self._relay_patience, self.relay_bytes = {}, 1, min(_RELAY_BYTES, self._most_bytes)

    def become_probing(self, now_ms: int, size: int = 0) -> None:
        """``size``: so many bytes are on their way."""
        if self.state == "streaming":
            self.flow.note_silence()
            self._is_doubted = True
            self._settled_at_ms = now_ms + self.flow.settled_ms(size)
        self.state = "probing"
        self._asked = 0
        self._quiet_since_ms = now_ms

    def note_asked(self) -> None:
        """A digest goes out that wants an answer."""
        self._asked += 1

    def note_answer(self) -> bool:
        """An answer came; return whether it is the last, so that all that was sent before has come as well, or is lost."""
        self._asked = max(0, self._asked - 1)
        return not self._asked

    def become_streaming(self, own: int, now_ms: int) -> None:
        """Its row is known: whatever it lacks of ``own`` is sent from there on."""
        self.state = "streaming"
        self.sent = self.has[own]
        self.flow.note_again()
        self._is_doubted = False
        self._quiet_since_ms = now_ms

    def take_vector(
        self, vector: Sequence[int], durable: Sequence[int], own: int, now_ms: int, *, is_answer: bool = True
    ) -> None:
        """Take in what the peer says it has; words that overtook each other never take it back.

        ``is_answer``: it says so after all that was sent to it has come, or is lost.
        """
        self.heard_ms = now_ms
        has, lacks_since_ms = self.has, self._lacks_since_ms
        had = has[own]
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
        if has[own] > had:
            self.flow.note_arrived(has[own], now_ms)
        if self.state == "probing":
            is_settled = now_ms >= self._settled_at_ms  # answers get lost too
            if is_answer or is_settled or not self._is_doubted:
                self.become_streaming(own, now_ms)
            elif has[own] > had:  # late, but not lost
                self.state = "streaming"
                self._is_doubted = False
        if has[own] >= self.sent:  # nothing on its way: silence is no fault
            self.sent = has[own]
            self._quiet_since_ms = now_ms

    def note_sent(self, own: int, upto: int, size: int, now_ms: int) -> None:
        """Own commits up to this one are on their way, so many bytes together."""
        if self.sent == self.has[own]:
            self._quiet_since_ms = now_ms
        self.flow.note_sent(upto, size, now_ms)
        self.sent = upto

    def is_overdue(self, own: int, now_ms: int, size: int, timeout_ms: int, resend_ms: int) -> bool:
        """Whether the peer should have acknowledged something long ago; ``size``: so many bytes are on their way."""
        if self.state == "down" or (self.state == "streaming" and self.sent <= self.has[own]):
            return False
        return now_ms - self._quiet_since_ms >= self.flow.patience_ms(size, timeout_ms, resend_ms)

    def to_relay(self, own: int, peer: int, now_ms: int, after_ms: int) -> list[int]:
        """Third origins whose commits are to be relayed to the peer now: those that it has lacked for ``after_ms`` without any progress.

        When it has just what was relayed last and nothing beyond, nobody else gives it any, and the relay goes on at once. What came to
        nothing is repeated after twice the time, with half as much: it may be on its way.
        """
        lacks = [origin for origin, since in enumerate(self._lacks_since_ms) if since is not None]
        found = {origin for origin in lacks if now_ms - (self._lacks_since_ms[origin] or 0) >= after_ms}
        relayed = self._relayed
        if relayed:
            if self._has_just_that():
                found.update(relayed.keys() & lacks)
            elif self._has_none() and now_ms - self._relayed_ms < self._relay_patience * after_ms:
                return []
        return sorted(found - {own, peer})

    def _has_none(self) -> bool:
        """Whether nothing of what was relayed last has come."""
        return all(self.has[origin] == had for origin, (had, _) in self._relayed.items())

    def _has_just_that(self) -> bool:
        """Whether what was relayed last has come, and nothing beyond."""
        return all(self.has[origin] == upto for origin, (_, upto) in self._relayed.items())

    def begin_relay(self, now_ms: int) -> None:
        """Commits are about to be relayed: more than last time, if that was of use."""
        if self._relayed and self._has_none():
            self._relay_patience = min(2 * self._relay_patience, _MOST_RELAY_PATIENCE)
            self.relay_bytes = max(self.relay_bytes // 2, min(_LEAST_RELAY_BYTES, self._most_bytes))
        else:
            goes_on = bool(self._relayed) and self._has_just_that()
            self._relay_patience = 1
            self.relay_bytes = min(2 * self.relay_bytes if goes_on else _RELAY_BYTES, self._most_bytes)
        self._relayed, self._relayed_ms = {}, now_ms

    def note_relayed(self, origin: int, upto: int) -> None:
        """Commits of an origin up to this one were relayed."""
        self._relayed[origin] = (self.has[origin], upto)
