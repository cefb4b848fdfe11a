"""What the page of types says of a type beyond what the registry knows.

The question: what may be written by hand? Words. What operations give, what is kept of them and what examples print is asked of the
engine each time the page is made; here stands only what to ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crdtstore_client import Domain

__all__ = ["Case", "Cost", "Entry", "Example", "Op", "do"]

Op = Mapping[str, Any]
"""An operation as the HTTP API takes it, without collection and key."""
Example = Callable[[Domain], Awaitable[None]]


def do(name: str, **arguments: Any) -> Op:
    """An operation."""
    return {"op": name, **arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two regions write to one key, cut off from each other; ``eu`` after ``us``, by ``between_ms``.

    Before that both have seen ``before`` (done in us) and ``before_eu`` (done in eu, which had seen it), and ``wait_ms`` pass.
    Both read when they have heard of each other again, and ``later_ms`` have passed. The clock of us is ``us_ahead_ms``
    ahead. ``is_cut``: whether they are cut off at all.
    """

    before: Sequence[Op] = ()
    before_eu: Sequence[Op] = ()
    wait_ms: int = 0
    us: Sequence[Op] = ()
    between_ms: int = 10
    eu: Sequence[Op] = ()
    later_ms: int = 0
    us_ahead_ms: int = 0
    is_cut: bool = True
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is kept of some operations: when both regions have them but do not know that yet, and from then on."""

    what: str
    us: Sequence[Op] = ()
    eu: Sequence[Op] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A type on the page. ``options`` are those of the collection in ``cases`` and ``costs``; ``kinds`` are arguments of which
    there is more to say than the registry knows, ``{"operation.argument": words}``.
    """

    words: str
    """The question again, by examples."""
    about: str
    """What it is and when to choose it; Markdown."""
    cases: Sequence[Case]
    cost: str
    costs: Sequence[Cost]
    example: Example
    options: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
