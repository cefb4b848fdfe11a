"""Explanations: which writes stand behind a value, and which keys hold more writes than their value shows.

The question: what must a person see to judge a conflict? Both sides of it, with who wrote, when, where and why; the
value alone hides the side that lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

__all__ = ["Conflict", "Explanation", "Write"]

V = TypeVar("V")


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One write behind a value; ``time`` is RFC 3339 in UTC.

    ``counts``: whether the value shows it, and ``why`` or why not. ``at``: where below the key it stands: an element, a
    field, the field of an or_map as a pair with its type (``("visits", "counter")``).
    """

    value: Any
    dot: str
    time: str
    region: str | None
    author: str | None = None
    reason: str | None = None
    counts: bool
    why: str
    at: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation(Generic[V]):
    """A value and the writes behind it, those that count first; ``not_yet_in`` names regions that lack some of them."""

    value: V
    type: str
    live: tuple[Write, ...]
    not_yet_in: tuple[str, ...]
    is_truncated: bool
    token: str

    @classmethod
    def of(
        cls, body: dict[str, Any], type_name: str, value: V, steps: Sequence[tuple[str, str]] = ()
    ) -> Explanation[V]:
        """From a reply; with ``steps``, only what stands in that field of an or_map."""
        live = []
        for given in body["live"]:
            at = tuple(tuple(part) if isinstance(part, list) else part for part in given.get("at", ()))
            if at[: len(steps)] == tuple(steps):
                write = msgspec.convert({**given, "at": ()}, Write, builtin_types=(bytes,))
                live.append(msgspec.structs.replace(write, at=at[len(steps) :]))
        return cls(value, type_name, tuple(live), tuple(body["not_yet_in"]), body["truncated"], body["token"])


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A key behind whose value stand ``conflicts`` writes that it does not show; ``explain`` of its handle names them.

    Or, with no key, a collection that regions declared differently: ``type`` is the one that serves, ``also`` are the
    others, whose data is read under ``collection@type``. Or, with no collection, the domain, declared with several
    numbers of shards: ``type`` and ``also`` are these, and data is read under ``domain@number``.
    """

    collection: str | None
    key: str | None
    type: str
    conflicts: int
    also: tuple[str, ...] = ()
