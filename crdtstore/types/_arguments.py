"""Arguments of operations: their annotations in the types' methods are their checks.

The question: who says what is wrong with a value? The same function for HTTP, the Python client and the command line, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from crdtstore.errors import UsageError
from crdtstore.values import check_element, check_integer, check_text, check_value, element_order, show

__all__ = [
    "KINDS",
    "MAX_TTL_MS",
    "MISSING",
    "Amount",
    "Argument",
    "Duration",
    "Element",
    "Elements",
    "Fields",
    "Integer",
    "Names",
    "Natural",
    "Orderable",
    "SomeNames",
    "Text",
    "Ttl",
    "Value",
]

Amount = Annotated[int, "amount"]
Duration = Annotated[int, "duration"]
Integer = Annotated[int, "integer"]
Natural = Annotated[int, "natural"]
Orderable = Annotated[Any, "orderable"]
Text = Annotated[str, "text"]
Ttl = Annotated[int | None, "ttl"]
Value = Annotated[Any, "value"]
Element = Annotated[Any, "element"]
Elements = Annotated[Sequence[Any], "elements"]
Fields = Annotated[Mapping[str, Any], "fields"]
Names = Annotated[Sequence[str], "names"]
SomeNames = Annotated[Sequence[str] | None, "some_names"]

_MAX_ITEMS = 10_000
MISSING = object()
"""The default of an argument that must be given."""
_LISTS = (list, tuple, set, frozenset)


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, _LISTS) or not value:
        raise UsageError(
            f"{what} must be a list with at least one item, got {show(value)}. Nothing changed.", code="invalid-value"
        )
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
        raise UsageError(
            f"{what} must be a map with at least one field, got {show(value)}. Nothing changed.", code="invalid-value"
        )
    names = _names(list(value), what)
    return {name: check_value(value[name], f"{what}.{name}") for name in names}


def _natural(value: Any, what: str) -> int:
    if check_integer(value, what) < 0:
        raise UsageError(f"{what} must not be negative, got {show(value)}. Nothing changed.", code="invalid-value")
    return int(value)


def _amount(value: Any, what: str) -> int:
    if check_integer(value, what) < 1:
        raise UsageError(f"{what} must be at least 1, got {show(value)}. Nothing changed.", code="invalid-value")
    return int(value)


def _orderable(value: Any, what: str) -> str | int:
    if isinstance(value, str):
        return str(check_value(value, what))
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(
            f"{what} must be an integer or text, got {show(value)}. Nothing changed.", code="invalid-value"
        )
    return check_integer(value, what)


MAX_TTL_MS = 100 * 366 * 86_400_000


def _duration(value: Any, what: str, or_null: str = "") -> int:
    if not 0 < check_integer(value, what) <= MAX_TTL_MS:
        raise UsageError(
            f"{what} must be 1 to {MAX_TTL_MS} ms{or_null}, got {show(value)}. Nothing changed.", code="invalid-value"
        )
    return int(value)


def _ttl(value: Any, what: str) -> int | None:
    return None if value is None else _duration(value, what, " or null")


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "amount": _amount,
    "duration": _duration,
    "natural": _natural,
    "orderable": _orderable,
    "integer": check_integer,
    "text": check_text,
    "value": check_value,
    "element": check_element,
    "elements": _elements,
    "fields": _fields,
    "names": _names,
    "some_names": lambda value, what: None if value is None else _names(value, what),
    "ttl": _ttl,
}


KINDS = {
    "amount": "integer from 1",
    "duration": "milliseconds",
    "element": "element",
    "elements": "list of elements",
    "fields": "map from names to values",
    "integer": "integer",
    "names": "list of names",
    "natural": "integer from 0",
    "orderable": "integer or text",
    "some_names": "list of names, or null: the whole key",
    "text": "text",
    "ttl": "milliseconds, or null",
    "value": "value",
}
"""What each kind of argument is, in the words of the documentation."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a mutator; ``kind`` is one of ``KINDS``."""

    name: str
    kind: str
    default: Any = MISSING

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def check(self, value: Any) -> Any:
        return _CHECKS[self.kind](value, self.name)
