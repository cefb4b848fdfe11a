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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore.errors import UsageError
from crdtstore.leaves import DEADLINE
from crdtstore.types._arguments import (
    KINDS,
    MISSING,
    Amount,
    Argument,
    Duration,
    Element,
    Elements,
    Fields,
    Integer,
    Names,
    Natural,
    Orderable,
    Text,
    Ttl,
    Value,
)
from crdtstore.types._view import Issuer, Live, View, Write
from crdtstore.values import show

__all__ = [
    "Amount",
    "Argument",
    "CrdtType",
    "Duration",
    "Element",
    "Elements",
    "Fields",
    "Integer",
    "Issuer",
    "Live",
    "Mutator",
    "Names",
    "Natural",
    "Orderable",
    "Text",
    "Ttl",
    "Value",
    "View",
    "Write",
    "deadline",
    "mutator",
    "reading_mutator",
]


@dataclass(frozen=True, slots=True)
class Mutator:
    """An operation of a type, as declared by its method."""

    name: str
    arguments: tuple[Argument, ...]
    doc: str
    reads: bool
    """Whether the effects depend on what stands at the key."""
    effects: Callable[..., list[Any]] = field(repr=False)
    """Takes the type, a view and the arguments."""

    def check(self, given: Mapping[str, Any], beside: Collection[str] = ()) -> dict[str, Any]:
        """The checked arguments of a request, defaults filled in; fields ``beside`` them are none.

        Raises:  UsageError ``invalid-op`` for a missing or unknown argument, ``invalid-value`` for a wrong one; nothing changed.
        """
        checked: dict[str, Any] = {}
        for argument in self.arguments:
            value = given.get(argument.name, argument.default)
            if value is MISSING:
                raise UsageError(
                    f"{self.name} needs the argument {argument.name} ({KINDS[argument.kind]}). Nothing changed.",
                    code="invalid-op",
                )
            checked[argument.name] = argument.check(value)
        if unknown := [name for name in given if name not in checked and name not in beside]:
            known = ", ".join(checked) or "no arguments"
            raise UsageError(
                f"{self.name} takes {known}, not {', '.join(sorted(unknown))}. Nothing changed.", code="invalid-op"
            )
        return checked


_Method = TypeVar("_Method", bound=Callable[..., Any])


def mutator(method: _Method) -> _Method:
    """Declare a method of a type as an operation that users may call. Its effects depend on its arguments alone."""
    method.__dict__["is_mutator"] = True
    return method


def reading_mutator(method: _Method) -> _Method:
    """As ``mutator``, for operations whose effects depend on what stands at the key, or on who issues them."""
    method.__dict__["reads"] = True
    return mutator(method)


def _declared(method: Callable[..., Any]) -> Mutator:
    hints = get_type_hints(method, include_extras=True)
    arguments = []
    for name, parameter in list(inspect.signature(method).parameters.items())[2:]:  # after self and view
        default = MISSING if parameter.default is parameter.empty else parameter.default
        arguments.append(Argument(name, get_args(hints[name])[1], default))
    return Mutator(method.__name__, tuple(arguments), inspect.getdoc(method) or "", "reads" in method.__dict__, method)


def deadline(view: View, ttl_ms: int | None) -> int | None:
    """The instant (Unix ms) so long after the commit that is being judged; None: never."""
    assert view.issuer is not None
    return None if ttl_ms is None else physical_ms(view.issuer.hlc) + ttl_ms


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
    """Options at declaration with their defaults."""
    nestable: ClassVar[bool] = True
    """Whether a field of an or_map may be of this type."""
    has_fields: ClassVar[bool] = False
    """Whether what stands one level below a key can have a deadline of its own."""
    mutators: Mapping[str, Mutator]

    def __init__(self) -> None:
        methods = inspect.getmembers(type(self), lambda member: getattr(member, "is_mutator", False))
        self.mutators = {
            name: _declared(method) for name, method in sorted(methods) if name != "expire" or self.deletable
        }

    @reading_mutator
    def expire(self, view: View, ttl_ms: Ttl) -> list[Any]:
        """Let the key end so many milliseconds from now; null: it does not end by itself."""
        return [DEADLINE, [], deadline(view, ttl_ms)]

    def check_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a declaration, defaults filled in.

        Raises:  UsageError ``invalid-value``; nothing changed.
        """
        if unknown := sorted(set(given) - set(self.options)):
            known = f"it has {', '.join(self.options)}" if self.options else "it has none"
            raise UsageError(
                f"{self.name} has no option {', '.join(unknown)}; {known}. Nothing changed.", code="invalid-value"
            )
        return {**self.options, **{name: self.check_option(name, value) for name, value in given.items()}}

    def check_option(self, name: str, value: Any) -> Any:
        """The value of one option; most are true or false.

        Raises:  UsageError ``invalid-value``; nothing changed.
        """
        if not isinstance(value, bool):
            raise UsageError(
                f"the option {name} must be true or false, got {show(value)}. Nothing changed.", code="invalid-value"
            )
        return value

    def check(self, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Refuse what the collection's options forbid (UsageError); nothing changed."""

    def read(self, view: View) -> Any:
        """The value of a key; a pure function of the dots that are there."""
        raise NotImplementedError

    def shown(self, view: View, op: str) -> Any:
        """What the reply to a write shows after this operation (``view.issuer`` made it), where the type shows anything."""
        return self.read(view)

    def beside(self, view: View, replica: ReplicaId, regions: Mapping[ReplicaId, str]) -> dict[str, Any]:
        """What a read at a replica shows beside the value."""
        return {}

    def conflicts(self, view: View) -> int:
        """How many concurrent writes stand behind the reading without counting in it."""
        return 0

    def explain(self, view: View) -> Iterator[Write]:
        """The writes behind the reading, those that count first; may be many."""
        raise NotImplementedError

    def place(self, at: tuple[Any, ...], regions: Mapping[ReplicaId, str]) -> list[Any]:
        """A path below a key, as ``explain`` gives it, in words of users."""
        return list(at)
