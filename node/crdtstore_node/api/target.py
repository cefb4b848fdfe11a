"""The raw request target: path segments and query as users wrote them.

The question: may two URLs name one key by accident? aiohttp hands ``%ff`` on as three characters and joins what was encoded with what was
not, so the raw target is taken apart here: first split, then decoded, once, and strictly. A key is exactly one segment; a ``/`` in it
arrives as ``%2F``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from crdtstore.errors import UsageError
from crdtstore.values import from_json

__all__ = ["Query", "boolean", "element", "integer", "parse_query", "segments", "split", "text"]

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile("[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")
_INTEGER = re.compile("-?[0-9]{1,18}")

Query = Mapping[str, Callable[[str, str], Any]]
"""Which parameters a route takes, and how each is read."""


def split(target: str) -> tuple[str, str]:
    """Path and query of a target, both still encoded."""
    if target[:1] != "/":
        target = _ABSOLUTE.sub("", target, count=1) or "/"
    if "#" in target:
        raise UsageError("a fragment (#) is not part of a request; in a key write %23. Nothing changed.")
    path, _, query = target.partition("?")
    return path, query


def segments(path: str) -> list[str]:
    """The parts of a path, decoded."""
    parts = path.split("/")
    if "%" not in path and path.isascii():
        return parts
    return [_decode(part) for part in parts]


def _decode(part: str) -> str:
    if _BAD_ESCAPE.search(part):
        raise UsageError(f"% begins an escape of two hex digits, got {_shown(part)}. Nothing changed.")
    try:
        return unquote_to_bytes(part).decode()
    except ValueError:
        raise UsageError(f"percent escapes stand for UTF-8, got {_shown(part)}. Nothing changed.") from None


def _shown(part: str) -> str:
    return ascii(part[:100])


def parse_query(query: str, known: Query) -> dict[str, Any]:
    """The parameters of a query.

    Raises:  UsageError for one that is not known, stands there twice or has a value of another kind; nothing changed.
    """
    fields: dict[str, Any] = {}
    if not query:
        return fields
    for pair in query.split("&"):
        raw_name, equals, raw_value = pair.partition("=")
        name = _decode(raw_name.replace("+", " "))
        read = known.get(name)
        if read is None:
            there_are = ", ".join(known) if known else "none here"
            raise UsageError(f"there is no query parameter {name[:100]!r}; there are: {there_are}. Nothing changed.")
        if name in fields:
            raise UsageError(f"the query parameter {name} stands there twice. Nothing changed.")
        if not equals:
            raise UsageError(f"the query parameter {name} has no value. Nothing changed.")
        fields[name] = read(name, _decode(raw_value.replace("+", " ")))
    return fields


def text(name: str, value: str) -> str:
    """Text, as it is."""
    return value


def element(name: str, value: str) -> Any:
    """An element of a set or the name of a field: JSON, and text where it is no JSON; ``"5"`` is text and ``5`` a number."""
    try:
        return from_json(value.encode())
    except ValueError:
        return value


def integer(name: str, value: str) -> int:
    """A decimal integer."""
    if not _INTEGER.fullmatch(value):
        raise UsageError(f"{name} must be an integer of at most 18 digits, got {value[:100]!r}. Nothing changed.")
    return int(value)


def boolean(name: str, value: str) -> bool:
    """``true`` or ``false``."""
    if value not in ("true", "false"):
        raise UsageError(f"{name} must be true or false, got {value[:100]!r}. Nothing changed.")
    return value == "true"
