"""What Hypothesis may draw: values, elements, operations of every type, derived from the registry.

The question: how do tests come to know a type that is added tomorrow? From its declared mutators. Each kind of argument has one
strategy here, small enough that draws collide (the same key, element, field), because only what collides is interesting. What may be
nested is drawn per history from a small palette, for the same reason.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from hypothesis import strategies as st

from crdtstore.types import REGISTRY, Argument, CrdtType, Mutator
from crdtstore.values import MAX_INTEGER_BYTES

__all__ = [
    "ARGUMENTS",
    "DELETE",
    "REGIONS",
    "Call",
    "Deliver",
    "Fold",
    "Step",
    "Write",
    "arguments",
    "calls",
    "elements",
    "histories",
    "integers",
    "keys",
    "palettes",
    "texts",
    "values",
    "writes",
]

DELETE = "delete"
"""The operation that every deletable type has and no type declares."""

MAP = "or_map"
"""The type whose fields are of other types."""

_LARGEST = (1 << (8 * MAX_INTEGER_BYTES - 1)) - 1


class Call(NamedTuple):
    """An operation as a user gives it: its name and its arguments, not yet checked; ``path`` leads down to a field: (name, type), ..."""

    op: str
    arguments: dict[str, Any]
    path: tuple[tuple[str, str], ...] = ()


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
    return st.sampled_from(["a", "a", "b"])


_SMALL_VALUES = st.sampled_from([None, 0, 1, "x", b"x", [1, "x"], {"a": 1 << 70}])
_SMALL_ELEMENTS = st.sampled_from(["x", "x", "y", 1, b"x"])
_SMALL_NAMES = st.sampled_from(["f", "f", "g", "h"])
_SMALL_TTLS = st.sampled_from([None, 1, 2, 4])

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.sampled_from([1, 2, 3, 1 << 80]),
    "duration": st.sampled_from([1, 2, 4]),
    "integer": st.one_of(st.integers(-3, 9), st.sampled_from([0, 1 << 62, -(1 << 62), 1 << 80])),
    "natural": st.sampled_from([0, 0, 1, 2, 4]),
    "orderable": st.sampled_from([3, 1, 2, -1, 1 << 70, "x", "y"]),
    "text": _SMALL_NAMES,
    "ttl": _SMALL_TTLS,
    "value": _SMALL_VALUES,
    "element": _SMALL_ELEMENTS,
    "elements": st.lists(_SMALL_ELEMENTS, min_size=1, max_size=2),
    "fields": st.dictionaries(_SMALL_NAMES, _SMALL_VALUES, min_size=1, max_size=2),
    "names": st.lists(_SMALL_NAMES, min_size=1, max_size=2),
    "some_names": st.one_of(st.none(), st.lists(_SMALL_NAMES, min_size=1, max_size=2)),
}
"""What to draw for each kind of argument; a new kind needs one line here."""


REGIONS = ("us", "eu", "ap")
_NAMED: dict[str, st.SearchStrategy[Any]] = {"to": st.sampled_from(REGIONS)}
"""Arguments whose names say more than their kinds."""


def _argument(argument: Argument) -> st.SearchStrategy[Any]:
    return _NAMED.get(argument.name, ARGUMENTS[argument.kind])


@cache
def arguments(mutator: Mutator) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that a mutator accepts; those with a default may be left out."""
    required = {argument.name: _argument(argument) for argument in mutator.arguments if argument.required}
    optional = {argument.name: _argument(argument) for argument in mutator.arguments if not argument.required}
    return st.fixed_dictionaries(required, optional=optional)


_NESTABLE = sorted(name for name, crdt in REGISTRY.items() if crdt.nestable)


@cache
def palettes() -> st.SearchStrategy[tuple[str, ...]]:
    """The few types that fields are of in one history."""
    return st.lists(st.sampled_from(_NESTABLE), min_size=2, max_size=2, unique=True).map(lambda names: (*names, MAP))


def calls(
    crdt: CrdtType, palette: tuple[str, ...] = ("aw_set", "counter"), max_depth: int = 2
) -> st.SearchStrategy[Call]:
    """Operations of a type, ``delete`` among them where the type has it; of a map also those of nested types, ``max_depth`` levels."""
    own = _own_calls(crdt)
    return st.one_of([own, *[_nested_calls(palette, max_depth)] * 3]) if crdt.name == MAP else own


_RARE = {"expire", "confirm", "release"}


@cache
def _own_calls(crdt: CrdtType) -> st.SearchStrategy[Call]:
    """Operations that a type declares, and ``delete``."""
    drawn = []
    for name, mutator in crdt.mutators.items():  # what ends things is drawn less, or there would be little to end
        drawn += [st.builds(Call, st.just(name), arguments(mutator), st.just(()))] * (1 if name in _RARE else 3)
    if crdt.deletable:
        drawn.append(st.just(Call(DELETE, {})))
    return st.one_of(drawn)


@cache
def _nested_calls(palette: tuple[str, ...], depth: int) -> st.SearchStrategy[Call]:
    """Operations on fields of the types of a palette."""
    fields = []
    for type_name in palette:
        if type_name == MAP and depth < 2:
            continue
        inner = _own_calls(REGISTRY[type_name])
        if type_name == MAP:
            inner = st.one_of(inner, _nested_calls(palette, depth - 1), _nested_calls(palette, depth - 1))
        fields.append(
            st.builds(
                lambda name, call, type_name=type_name: call._replace(path=((name, type_name), *call.path)),
                st.sampled_from(["f", "f", "g"]),
                inner,
            )
        )
    return st.one_of(fields)


# --- histories

POOL = 2
"""Operations of a history that are attempted again and again."""


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


class Fold(NamedTuple):
    """A replica does what no reading shows: folds, forgets operations, goes on with big drops; at up to ``budget`` places."""

    replica: int
    budget: int


Step = Write | Deliver | Fold


@cache
def writes(
    crdt: CrdtType, max_calls: int = 3, palette: tuple[str, ...] = ("aw_set", "counter")
) -> st.SearchStrategy[list[tuple[str, Call]]]:
    """The operations of one commit."""
    return st.lists(st.tuples(keys(), calls(crdt, palette)), min_size=1, max_size=max_calls)


@st.composite
def histories(
    draw: st.DrawFn,
    crdt: CrdtType,
    *,
    replicas: int = 3,
    max_steps: int = 14,
    has_operations: bool = False,
    has_folds: bool = False,
    palette: tuple[str, ...] | None = None,
) -> list[Step]:
    """What replicas do, in an order: writes with stamps that agree with nothing, and deliveries in every causal order.

    With ``has_operations`` some writes are attempts at one of ``POOL`` operations, in whichever region.
    """
    if palette is None:
        palette = draw(palettes()) if crdt.name == MAP else ()
    pool = [draw(writes(crdt, palette=palette)) for _ in range(POOL)] if has_operations else []
    steps = draw(_steps(crdt, palette, replicas, max_steps, has_operations, has_folds))
    return [
        step._replace(calls=pool[step.operation])
        if isinstance(step, Write) and step.operation is not None
        else step._replace()
        for step in steps
    ]


@cache
def _steps(
    crdt: CrdtType, palette: tuple[str, ...], replicas: int, max_steps: int, has_operations: bool, has_folds: bool
) -> st.SearchStrategy[list[Step]]:
    replica, at_ms = st.integers(0, replicas - 1), st.integers(0, 5)
    kinds: list[st.SearchStrategy[Step]] = [
        st.builds(Write, replica, writes(crdt, palette=palette), at_ms, st.none()),
        st.builds(Deliver, replica, st.integers(0, 5), st.integers(1, 4)),
    ]
    if has_operations:
        kinds.append(st.builds(Write, replica, st.just([]), at_ms, st.integers(0, POOL - 1)))
    if has_folds:
        kinds.append(st.builds(Fold, replica, st.sampled_from([1, 100])))
    step = st.one_of(kinds)
    lists = [st.lists(step, min_size=size, max_size=size) for size in range(2, max_steps + 1)]
    return st.integers(0, len(lists) - 1).flatmap(lambda at: lists[at])  # else most are short, and nothing meets
