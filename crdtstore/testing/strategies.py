"""What Hypothesis may draw: values, elements, operations of every type, derived from the registry.

The question: how do tests come to know a type that is added tomorrow? From its declared mutators. Each kind of argument has one
strategy here, small enough that draws collide (the same key, element, field), because only what collides is interesting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from crdtstore.types import CrdtType, Mutator
from crdtstore.values import MAX_INTEGER_BYTES

__all__ = [
    "ARGUMENTS",
    "DELETE",
    "Call",
    "Deliver",
    "Step",
    "Write",
    "arguments",
    "calls",
    "elements",
    "histories",
    "integers",
    "keys",
    "texts",
    "values",
    "writes",
]

DELETE = "delete"
"""The operation that every deletable type has and no type declares."""

_LARGEST = (1 << (8 * MAX_INTEGER_BYTES - 1)) - 1


class Call(NamedTuple):
    """An operation as a user gives it: its name and its arguments, not yet checked."""

    op: str
    arguments: dict[str, Any]


def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Text that UTF-8 can carry."""
    return st.text(st.characters(codec="utf-8"), max_size=max_size)


def integers() -> st.SearchStrategy[int]:
    """Integers around zero, around the ends of 64 bits, and up to 1,024 bytes."""
    edges = [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 63) - 1, _LARGEST, -_LARGEST]
    return st.one_of(st.integers(-9, 9), st.integers(-(1 << 70), 1 << 70), st.sampled_from(edges))


def values() -> st.SearchStrategy[Any]:
    """Anything that a register may hold."""
    scalars = (
        st.none()
        | st.booleans()
        | integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
        | st.binary()
    )
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(8), inner, max_size=4), max_leaves=8
    )


def elements() -> st.SearchStrategy[str | int | bytes]:
    """Anything that a set may hold."""
    return st.one_of(texts(), integers(), st.binary(max_size=20))


def keys() -> st.SearchStrategy[str]:
    """Keys, few enough to meet again."""
    return st.sampled_from(["a", "b"])


_SMALL_VALUES = st.sampled_from([None, 0, 1, "x", b"x", [1, "x"], {"a": 1 << 70}])
_SMALL_ELEMENTS = st.sampled_from(["x", "y", 1, b"x"])
_SMALL_NAMES = st.sampled_from(["f", "g", "h"])

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.one_of(st.integers(-3, 9), st.sampled_from([0, 1 << 62, -(1 << 62), 1 << 80])),
    "text": _SMALL_NAMES,
    "value": _SMALL_VALUES,
    "element": _SMALL_ELEMENTS,
    "elements": st.lists(_SMALL_ELEMENTS, min_size=1, max_size=2),
    "fields": st.dictionaries(_SMALL_NAMES, _SMALL_VALUES, min_size=1, max_size=2),
    "names": st.lists(_SMALL_NAMES, min_size=1, max_size=2),
}
"""What to draw for each kind of argument; a new kind needs one line here."""


def arguments(mutator: Mutator) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that a mutator accepts; those with a default may be left out."""
    required = {argument.name: ARGUMENTS[argument.kind] for argument in mutator.arguments if argument.required}
    optional = {argument.name: ARGUMENTS[argument.kind] for argument in mutator.arguments if not argument.required}
    return st.fixed_dictionaries(required, optional=optional)


def calls(crdt: CrdtType) -> st.SearchStrategy[Call]:
    """Operations of a type, ``delete`` among them where the type has it."""
    drawn = [
        arguments(mutator).map(lambda given, name=name: Call(name, given))  # type: ignore[misc]
        for name, mutator in crdt.mutators.items()
    ]
    if crdt.deletable:
        drawn.append(st.just(Call(DELETE, {})))
    return st.one_of(drawn)


# --- histories


class Write(NamedTuple):
    """A replica commits operations on keys, its clock at ``at_ms``; under an operation id when ``operation`` is given."""

    replica: int
    calls: list[tuple[str, Call]]
    at_ms: int
    operation: int | None = None


class Deliver(NamedTuple):
    """A replica receives up to ``most`` commits; ``choice`` says which of those that may come next."""

    replica: int
    choice: int
    most: int


Step = Write | Deliver


def writes(crdt: CrdtType, max_calls: int = 3) -> st.SearchStrategy[list[tuple[str, Call]]]:
    """The operations of one commit."""
    return st.lists(st.tuples(keys(), calls(crdt)), min_size=1, max_size=max_calls)


@st.composite
def histories(
    draw: st.DrawFn, crdt: CrdtType, *, replicas: int = 3, max_steps: int = 14, has_operations: bool = False
) -> list[Step]:
    """What replicas do, in an order: writes with stamps that agree with nothing, and deliveries in every causal order.

    With ``has_operations`` some writes are attempts at one of two operations, in whichever region.
    """
    pool = [draw(writes(crdt)) for _ in range(2)] if has_operations else []
    replica, at_ms = st.integers(0, replicas - 1), st.integers(0, 3)
    kinds: list[st.SearchStrategy[Step]] = [
        st.builds(Write, replica, writes(crdt), at_ms, st.none()),
        st.builds(Deliver, replica, st.integers(0, 5), st.integers(1, 4)),
    ]
    if pool:
        repeated = st.integers(0, len(pool) - 1)
        kinds.append(st.builds(lambda at, who, when: Write(who, pool[at], when, at), repeated, replica, at_ms))
    return draw(st.lists(st.one_of(kinds), min_size=2, max_size=max_steps))
