"""What a type is: mutators that give effects, and a reading of what is left.

The question: what does the store need to know of a type? Only this. Operations over HTTP, handles of the client, the simulator's
workload, the laws and the documentation are derived from the declared mutators (names, arguments, annotations). Applying, digesting
and replicating never ask for a type.

A mutator is a method that takes a ``View`` of the key and checked arguments and returns effects on paths *below the key*; it changes
nothing. Even an operation that looks like no change returns effects: elided, a concurrent removal by somebody who saw only the older
dot would lose an acknowledged write.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

from crdtstore.causal import Dot, ReplicaId
from crdtstore.errors import UsageError
from crdtstore.leaves import ADD, PUT, SEQ_BITS, SEQ_MASK, Branch, Entry, One, Sum
from crdtstore.values import check_element, check_integer, check_text, check_value, element_order

__all__ = [
    "Argument",
    "CrdtType",
    "Element",
    "Elements",
    "Fields",
    "Integer",
    "Live",
    "Mutator",
    "Names",
    "Text",
    "Value",
    "View",
    "mutator",
]

Integer = Annotated[int, "integer"]
Text = Annotated[str, "text"]
Value = Annotated[Any, "value"]
Element = Annotated[Any, "element"]
Elements = Annotated[Sequence[Any], "elements"]
Fields = Annotated[Mapping[str, Any], "fields"]
Names = Annotated[Sequence[str], "names"]

_MAX_ITEMS = 10_000
_MISSING = object()
_LISTS = (list, tuple, set, frozenset)


class Live(NamedTuple):
    """A dot that is there to be read; sorts in the one order of all writes: (hlc, replica, seq)."""

    hlc: int
    replica: ReplicaId
    seq: int
    value: Any

    @property
    def dot(self) -> Dot:
        return Dot(self.replica, self.seq)


class View:
    """A path in the tree, read only: what types read from."""

    __slots__ = ("entry", "replicas")

    def __init__(self, replicas: Sequence[ReplicaId], entry: Entry | None) -> None:
        self.replicas = replicas
        self.entry = entry

    @property
    def exists(self) -> bool:
        return self.entry is not None

    def _leaf(self, kind: int) -> Any:
        entry = self.entry
        if type(entry) is Branch:
            return entry.leaf_of(kind)
        return entry if entry is not None and entry.kind == kind else None  # type: ignore[union-attr]

    def total(self) -> int:
        """The sum of the amounts at this path."""
        leaf = self._leaf(ADD)
        return leaf.total if isinstance(leaf, Sum) else 0

    def live(self, kind: int = PUT) -> list[Live]:
        """The dots of one class at this path, oldest first."""
        leaf = self._leaf(kind)
        if leaf is None:
            return []
        if type(leaf) is One:
            return [self._live(leaf.dot, leaf.hlc, leaf.value)]
        return sorted(
            (self._live(dot, hlc, value) for dot, (hlc, value) in leaf.dots.items()), key=lambda live: live[:3]
        )

    def _live(self, dot: int, hlc: int, value: Any) -> Live:
        return Live(hlc, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK, value)

    def children(self) -> Iterator[tuple[Any, View]]:
        """What stands one level below, in canonical order."""
        if type(self.entry) is Branch:
            below = self.entry.children
            for part in sorted(below, key=element_order):
                yield part, View(self.replicas, below[part])

    def child(self, part: Any) -> View:
        entry = self.entry
        return View(self.replicas, entry.children.get(part) if type(entry) is Branch else None)


# --- arguments


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, _LISTS) or not value:
        raise UsageError(f"{what} must be a list with at least one item. Nothing changed.", code="invalid-value")
    if len(value) > _MAX_ITEMS:
        raise UsageError(
            f"{what} must have at most {_MAX_ITEMS} items, got {len(value)}. Nothing changed.", code="invalid-value"
        )
    return list(value)


def _elements(value: Any, what: str) -> list[Any]:
    each = f"each of {what}"
    return sorted({check_element(item, each) for item in _items(value, what)}, key=element_order)


def _names(value: Any, what: str) -> list[str]:
    return sorted({check_text(item, f"each of {what}") for item in _items(value, what)})


def _fields(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise UsageError(f"{what} must be a map with at least one field. Nothing changed.", code="invalid-value")
    names = _names(list(value), what)
    return {name: check_value(value[name], f"{what}.{name}") for name in names}


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "integer": check_integer,
    "text": check_text,
    "value": check_value,
    "element": check_element,
    "elements": _elements,
    "fields": _fields,
    "names": _names,
}


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a mutator. ``kind`` is one of integer, text, value, element, elements, fields, names."""

    name: str
    kind: str
    default: Any = _MISSING

    @property
    def required(self) -> bool:
        return self.default is _MISSING

    def check(self, value: Any) -> Any:
        return _CHECKS[self.kind](value, self.name)


@dataclass(frozen=True, slots=True)
class Mutator:
    """An operation of a type, as declared by its method."""

    name: str
    arguments: tuple[Argument, ...]
    doc: str
    _method: Callable[..., list[Any]] = field(repr=False)

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The checked arguments of a request, defaults filled in.

        Raises:  UsageError ``invalid-op`` for a missing or unknown argument, ``invalid-value`` for a wrong one; nothing changed.
        """
        checked: dict[str, Any] = {}
        for argument in self.arguments:
            value = given.get(argument.name, argument.default)
            if value is _MISSING:
                raise UsageError(
                    f"{self.name} needs the argument {argument.name} ({argument.kind}). Nothing changed.",
                    code="invalid-op",
                )
            checked[argument.name] = argument.check(value)
        if not given.keys() <= checked.keys():
            unknown = sorted(set(given) - set(checked))
            known = ", ".join(checked) or "no arguments"
            raise UsageError(
                f"{self.name} takes {known}, not {', '.join(unknown)}. Nothing changed.", code="invalid-op"
            )
        return checked

    def effects(self, crdt: CrdtType, view: View, arguments: Mapping[str, Any]) -> list[Any]:
        return self._method(crdt, view, **arguments)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def mutator(method: _Method) -> _Method:
    """Declare a method of a type as an operation that users may call."""
    method.__dict__["is_mutator"] = True
    return method


def _declared(method: Callable[..., Any]) -> Mutator:
    hints = get_type_hints(method, include_extras=True)
    arguments = []
    for name, parameter in list(inspect.signature(method).parameters.items())[2:]:  # after self and view
        default = _MISSING if parameter.default is parameter.empty else parameter.default
        arguments.append(Argument(name, get_args(hints[name])[1], default))
    return Mutator(method.__name__, tuple(arguments), inspect.getdoc(method) or "", method)


class CrdtType:
    """Base of all types; one instance per type stands in the registry."""

    name: ClassVar[str]
    question: ClassVar[str]
    """The question of an app developer that this type answers."""
    empty: ClassVar[Any] = None
    """The reading of a key that was never written."""
    deletable: ClassVar[bool] = True
    shows_value: ClassVar[bool] = False
    """Whether the reply to a write carries the reading after it (cheap to read), or null."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options at declaration with their defaults; all are booleans so far."""
    mutators: Mapping[str, Mutator]

    def __init__(self) -> None:
        methods = inspect.getmembers(type(self), lambda member: getattr(member, "is_mutator", False))
        self.mutators = {name: _declared(method) for name, method in sorted(methods)}

    def check_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a declaration, defaults filled in.

        Raises:  UsageError ``invalid-value``; nothing changed.
        """
        if unknown := sorted(set(given) - set(self.options)):
            raise UsageError(f"{self.name} has no option {', '.join(unknown)}. Nothing changed.", code="invalid-value")
        for name, value in given.items():
            if not isinstance(value, bool):
                raise UsageError(f"the option {name} must be true or false. Nothing changed.", code="invalid-value")
        return {**self.options, **given}

    def check(self, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Refuse what the collection's options forbid (UsageError); nothing changed."""

    def read(self, view: View) -> Any:
        """The value of a key; a pure function of the dots that are there."""
        raise NotImplementedError

    def conflicts(self, view: View) -> int:
        """How many concurrent writes stand behind the reading without counting in it."""
        return 0
