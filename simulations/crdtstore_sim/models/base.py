"""What a model of a type is: what its operations write and clear, and what is read from what counts.

The question: how are values compared that a model does not know? By their bytes as they go over the wire: 1, 1.0 and true differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec.msgpack import Encoder

from crdtstore.causal import ReplicaId
from crdtstore.clock import rfc3339
from crdtstore_sim.models.history import Event, There

__all__ = ["Act", "Here", "Letter", "Model", "Shown", "canonical", "element_order"]

_encode = Encoder(order="deterministic").encode


class Letter:
    """A character of a text while a commit is looked at: who it is, and its position once that is known."""

    __slots__ = ("char", "name", "position")

    def __init__(self, name: tuple[Any, ...], char: str, position: bytes | None = None) -> None:
        self.name = name
        self.char = char
        self.position = position


class Here(Protocol):
    """Where an operation happens: a place of a key, in the eyes of the commit that it is part of."""

    event: Event
    index: int
    """The place of the operation in its commit."""
    replicas: Sequence[ReplicaId]
    regions: Sequence[str]

    def write(self, path: Sequence[Any], value: Any, join: Callable[[Any, Any], Any] | None = None) -> None: ...
    def mark(self, path: Sequence[Any]) -> None: ...
    def clear(self, path: Sequence[Any]) -> None: ...
    def there(self) -> There:
        """What its maker saw here just then."""

    def draft(self) -> list[Letter]:
        """The text here, as the commit has left it so far; to be changed in place."""


Act = Callable[[Here, Mapping[str, Any]], None]


class Shown(NamedTuple):
    """What is read of a place."""

    value: Any
    conflicts: int = 0
    fading: int = 0
    """Further conflicts, shown until all replicas have what stands behind them, and perhaps a little longer."""


class Model:
    """One type. ``acts``: what its operations do."""

    deletable = True
    acts: Mapping[str, Act]

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        """The reading of what counts; of nothing: the empty reading."""
        raise NotImplementedError

    def fields(self, op: str, given: Mapping[str, Any]) -> Sequence[Any]:
        """The fields one level below that an operation writes to, each of which may have a deadline of its own."""
        return ()

    def ends(self, there: There) -> dict[str, Any]:
        """When a place, and which of its fields, end by themselves, as a read says it."""
        if not there.has_deadline:
            return {}
        return {"expires": None if there.due_ms is None else rfc3339(there.due_ms)}

    @property
    def operations(self) -> list[str]:
        return sorted({*self.acts, *(("expire",) if self.deletable else ())})


def canonical(value: Any) -> Any:
    """A value such that two are equal exactly when they are the same on the wire: 1, 1.0 and true differ, the order of maps does not."""
    try:
        return _encode(value)
    except OverflowError:  # msgpack has no integers beyond 64 bits
        return _spelled_out(value)


def _spelled_out(value: Any) -> Any:
    if isinstance(value, dict):
        return ("map", tuple(sorted((key, _spelled_out(item)) for key, item in value.items())))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(_spelled_out(item) for item in value))
    return (type(value).__name__, value)


def element_order(value: Any) -> tuple[int, Any]:
    """Integers before texts before bytes, each in their own order."""
    return ((int, str, bytes).index(type(value)), value)
