"""Promises: until when a replica may say that no later commit of its own is stamped.

The question: what of a promise that a crash forgets? Peers forget operation ids, end keys and tell how stale they are by it, and so does
the replica itself. Were its clock set back over the restart, it would stamp below what it had promised. So nobody promises beyond a
*mark* that is durable in the log, and after a start every clock begins at it. The mark runs ahead of the clock by ``AHEAD_MS``, or each
heartbeat would wait for a sync; it is renewed in time, with a record that is written anyway if there is one, and only when somebody
wants to promise something. At an orderly stop the mark becomes exactly what was promised: a quick restart does not stamp ahead.

In the log a mark is an entry of no group and no origin, a *note* of the node to itself; of several the last one counts. There is one for
all groups of a node.

Source: DESIGN 4 (time).
"""

from __future__ import annotations

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.clock import COUNTER_BITS
from crdtstore.errors import DecodeError
from crdtstore.storage.protocol import Entry

__all__ = ["AHEAD_MS", "NOTE_GROUP", "Promises"]

AHEAD_MS = 800
"""How far a new mark is ahead of the clock: after a crash stamps may run ahead by so much less the time that the start took."""
_RENEW_MS = 350
"""A mark is renewed when less is left of it: more than the time between two heartbeats and a sync, or promises would lag."""
_JOIN_MS = 500
"""So early when a record is written anyway."""

NOTE_GROUP = ""
"""The group of entries that are no commits."""
_FORMAT = 1
_MARK = "mark"
_MOST_MS = (1 << 47) - 1
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, str, int]).decode


def _note(mark_ms: int) -> Entry:
    return Entry(NOTE_GROUP, ReplicaId(""), _encode((_FORMAT, _MARK, mark_ms)))


class Promises:
    """The mark of one node. Mutable. Marks are Unix milliseconds."""

    __slots__ = ("_asked_ms", "_bound", "_inflight", "_is_closed", "_is_wanted", "_told_ms", "_written_ms", "begin")

    def __init__(self) -> None:
        self.begin = 0
        """The stamp at which clocks begin: no promise of an earlier life is above it. Known once the log was read to its end."""
        self._bound = 0
        """The stamp up to which may be promised: the durable mark."""
        self._written_ms = 0
        """The last mark that was handed out to be written."""
        self._told_ms = 0
        """The last instant that was promised, in this life or before."""
        self._inflight: tuple[int, int] | None = None
        """Number of the record that holds a mark on its way to the disk, and that mark."""
        self._is_wanted = False
        self._asked_ms = 0
        self._is_closed = False

    @classmethod
    def unbounded(cls) -> Promises:
        """For an engine of its own, without a log: whatever is promised is kept as long as it lives."""
        promises = cls()
        promises.mark_ms = _MOST_MS
        return promises

    # --- what is durable

    @property
    def mark_ms(self) -> int:
        """What a checkpoint has to hold: the last mark written. To be set from there, before the log is read."""
        return self._written_ms

    @mark_ms.setter
    def mark_ms(self, mark_ms: int) -> None:
        self._written_ms = self._told_ms = mark_ms
        self._bound = mark_ms << COUNTER_BITS

    def recover(self, data: bytes) -> None:
        """Take in a note from the log, in its order.

        Raises:  DecodeError when it is not one that this version knows; nothing changed.
        """
        try:
            form, name, mark_ms = _decode(data)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"not a note of a node: {error}") from error
        if (form, name) != (_FORMAT, _MARK) or not 0 <= mark_ms <= _MOST_MS:
            raise DecodeError(f"a note of a node that this version does not know: {form} {name[:100]!r} {mark_ms}")
        self.mark_ms = mark_ms

    def start(self) -> None:
        """The log was read to its end: the last mark is the one that counts."""
        self.begin = self._bound

    # --- promising

    def limit(self, stamp: int, now_ms: int) -> int:
        """How much of a promise up to ``stamp`` may be made now. The replica has to stamp later commits above ``stamp``."""
        if self._written_ms - now_ms < _JOIN_MS:
            self._is_wanted = True
            self._asked_ms = now_ms
        stamp = min(stamp, self._bound)
        told_ms = -(-stamp >> COUNTER_BITS)
        self._told_ms = max(self._told_ms, told_ms)
        return stamp

    def note(self, number: int, *, has_record: bool) -> Entry | None:
        """What is to be written with record ``number``, if anything; ``has_record``: whether that is written anyway."""
        if not self._is_wanted or self._inflight is not None or self._is_closed:
            return None
        if not has_record and self._written_ms - self._asked_ms >= _RENEW_MS:
            return None
        self._is_wanted = False
        self._written_ms = self._asked_ms + AHEAD_MS
        self._inflight = number, self._written_ms
        return _note(self._written_ms)

    def persisted(self, number: int) -> None:
        """Every record up to this number is durable."""
        if self._inflight is not None and self._inflight[0] <= number and not self._is_closed:
            self._bound = self._inflight[1] << COUNTER_BITS
            self._inflight = None

    def close(self) -> Entry | None:
        """The last note, to be written after everything else, None when it is written already; nothing beyond it is promised any more."""
        self._bound = min(self._bound, self._told_ms << COUNTER_BITS)
        self._is_closed = True
        return None if self._written_ms == self._told_ms else _note(self._told_ms)
