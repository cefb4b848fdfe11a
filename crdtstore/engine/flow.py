"""What may be on its way to one peer, and how long it may take.

The question: what does a link carry? Nobody knows before something was sent over it, and then it changes. So the window begins small,
grows each time that it was full and what was in it was acknowledged soon, fourfold where that would still be soon, and shrinks when
acknowledgements come late: then something waits in a queue, where it helps nobody, and all that comes behind it waits too, of other
groups as well. *Soon* is ``_SOON_MS`` beside what the way itself takes, the least that was seen. So a window is also a belief: that many
bytes in about ``_SOON_MS``. Frames are a part of it, and what is larger than a window is waited for in proportion, since it has not been
lost as long as it can still be under way.
"""

from __future__ import annotations

__all__ = ["Flow"]

_FIRST_BYTES = 64 << 10
"""Four round trips later it is 4 MiB, where these are short; a round trip holds a sync of the peer's disk."""
_LEAST_BYTES = 16 << 10
"""Some two hundred commits, of which compression leaves a third: with less each costs a peer that is short of time so much more that it
only falls further behind."""
_SOON_MS = 250
_LONGEST_MS = 1_000
"""No way takes longer by itself; what does is narrow."""
_FRAMES, _LEAST_FRAME_BYTES = 4, 8 << 10
"""A window is sent in so many frames, or somebody would wait for the whole of it before he acknowledges any."""
_MOST_WAIT_MS = 300_000
_MOST_PATIENCE = 64


class Flow:
    """What one replica believes of the way to a peer. Mutable."""

    __slots__ = ("_least_ms", "_most_bytes", "_patience", "_timed", "is_limiting", "round_trip_ms", "window_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._patience = 1
        """Doubles each time that nothing came of what was sent: a slow link would be filled with copies."""
        self._timed: tuple[int, int, int] | None = None
        """The commit whose round trip is being measured, when it was sent, and how many bytes were on their way then."""
        self._least_ms: int | None = None
        self.round_trip_ms: int | None = None
        """From sending to acknowledgement; it rises at once and falls by an eighth. The peer's disk is in it, and what it waits for."""
        self.window_bytes = min(_FIRST_BYTES, most_bytes)
        self.is_limiting = False
        """Whether more would have been sent if the window were larger."""

    def begin(self) -> None:
        """There is a new connection, perhaps by another way, to the same disk."""
        self._patience = 1
        self._timed = self._least_ms = None
        self.window_bytes = min(_FIRST_BYTES, self._most_bytes)
        self.is_limiting = False

    def frame_bytes(self, most_bytes: int) -> int:
        """How large a frame may be."""
        return min(most_bytes, max(_LEAST_FRAME_BYTES, self.window_bytes // _FRAMES))

    def note_sent(self, upto: int, size: int, now_ms: int) -> None:
        """Commits up to this one are on their way, so many bytes with all that were already."""
        if (
            self._timed is None or self._timed[1] == now_ms
        ):  # of what sets out together the last says how long all of it takes
            self._timed = (upto, now_ms, size)

    def note_arrived(self, upto: int, now_ms: int) -> None:
        """The peer has commits up to this one."""
        if self._timed is None or upto < self._timed[0]:
            return
        _, sent_ms, size = self._timed
        self._timed = None
        self._patience = 1
        took_ms = now_ms - sent_ms
        self.round_trip_ms = max(took_ms, (7 * (self.round_trip_ms or 0) + took_ms) // 8)
        if self._least_ms is None or took_ms < self._least_ms or self.window_bytes <= _LEAST_BYTES:
            self._least_ms = min(took_ms, _LONGEST_MS)  # so little is on its way that nothing of ours can wait for it
        soon_ms = self._least_ms + _SOON_MS
        if took_ms <= soon_ms:
            if self.is_limiting and 2 * size >= self.window_bytes:  # the first of many frames says little of them all
                times = 4 if 4 * took_ms <= soon_ms else 2
                self.window_bytes = min(times * self.window_bytes, self._most_bytes)
        elif took_ms > 2 * soon_ms:
            carried = max(self.window_bytes, size) * soon_ms // took_ms
            self.window_bytes = min(self.window_bytes, max(_LEAST_BYTES, carried))

    def note_silence(self) -> None:
        """Nothing was acknowledged for too long: perhaps all is lost, so little is risked next."""
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self.window_bytes = min(self.window_bytes, _LEAST_BYTES)
        self._timed = None

    def note_again(self) -> None:
        """Something is sent for the second time: an acknowledgement could be for either (Karn)."""
        self._timed = None

    def settled_ms(self, size: int) -> int:
        """After so long so many bytes have come, or are lost: nothing that is still under way would then be sent twice."""
        return max(2 * _LONGEST_MS, 4 * (self.round_trip_ms or 0)) + 4 * _SOON_MS * size // self.window_bytes

    def patience_ms(self, size: int, most_ms: int, resend_ms: int) -> int:
        """How long to wait for an acknowledgement of so many bytes: four round trips, at least five times ``resend_ms``, longer each time
        in vain, up to ``most_ms``; and beside that twice as long as they should take.
        """
        wait_ms, window_ms = most_ms, _SOON_MS
        if self.round_trip_ms is not None:
            wait_ms = min(most_ms, self._patience * max(4 * self.round_trip_ms, 5 * resend_ms))
            window_ms = min(max(_SOON_MS, self.round_trip_ms), 2 * (_LONGEST_MS + _SOON_MS))
        wait_ms += self._patience * (2 * window_ms * size // self.window_bytes)
        return min(wait_ms, max(most_ms, _MOST_WAIT_MS))
