"""Round trip and clock offset of a link, from four instants.

The question: whose clock is wrong, and by how much? A ping carries when it left; the answer adds when it arrived and when it went back.
The round trip is what is left without the time spent at the peer; the offset is exact when both ways take equally long, and off by at
most half the round trip otherwise, so of the last samples the one with the least round trip counts.

On the link these are text messages, ``ping t0`` and ``pong t0 t1 t2``, in microseconds since 1970.

Source: RFC 5905 (NTP), section 8 and the clock filter of section 10.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

__all__ = ["Heartbeat", "Sample"]

_SAMPLES = 8
_MAX_TEXT = 100


class Sample(NamedTuple):
    """One measurement; a positive offset means that the peer's clock is ahead."""

    round_trip_us: int
    offset_us: int


class Heartbeat:
    """The pings of one connection. Mutable."""

    def __init__(self) -> None:
        self._sent: tuple[int, int] | None = None
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)

    @property
    def best(self) -> Sample | None:
        """The most exact of the last measurements."""
        return min(self._samples, default=None)

    def ping(self) -> str:
        self._sent = (time.time_ns() // 1000, time.monotonic_ns() // 1000)
        return f"ping {self._sent[0]}"

    def take(self, text: str) -> str | None:
        """Take in what the peer said; return what to say back.

        Raises:  ValueError for anything but ping and pong.
        """
        now = time.time_ns() // 1000
        word, *numbers = text.split(" ") if len(text) <= _MAX_TEXT else ("",)
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise ValueError("a heartbeat holds numbers")
        instants = [int(number) for number in numbers]
        if word == "ping" and len(instants) == 1:
            return f"pong {instants[0]} {now} {time.time_ns() // 1000}"
        if word != "pong" or len(instants) != 3:
            raise ValueError("text on a link is ping or pong")
        left, arrived, returned = instants
        if self._sent is not None and self._sent[0] == left:
            elapsed = time.monotonic_ns() // 1000 - self._sent[1]
            self._sent = None
            round_trip = max(0, elapsed - (returned - arrived))
            self._samples.append(Sample(round_trip, (arrived - left + returned - (left + elapsed)) // 2))
        return None
