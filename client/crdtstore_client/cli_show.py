"""What the command line shows of what came back.

The question: what may a value do to a terminal? Nothing: whatever is not printable is shown as JSON shows it, and columns
are counted as terminals count them.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import click

from crdtstore.values import to_json
from crdtstore_client.cli_support import element_of

__all__ = ["clip", "echo_json", "is_safe", "pad", "plain", "plain_element", "short_dot", "width_of"]


def plain(value: Any) -> str:
    """A value as people read it: text as it is, anything else as JSON; never a control character."""
    if isinstance(value, str) and value.isprintable() and value:
        return value
    return json.dumps(to_json(value), ensure_ascii=not _is_printable(value))


def _is_printable(value: Any) -> bool:
    return json.dumps(to_json(value), ensure_ascii=False).isprintable()


def plain_element(element: Any) -> str:
    """An element as it is typed: the text of a number stands in quotes."""
    text = plain(element)
    return text if element_of(text) == element else json.dumps(to_json(element), ensure_ascii=False)


def is_safe(line: str) -> bool:
    """Whether a terminal shows it as it is."""
    return not line or line.isprintable()


def width_of(text: str) -> int:
    """The columns it takes on a terminal: two for wide characters, none for those that stand on the one before."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def pad(text: str, width: int) -> str:
    """With spaces up to a width; what is longer stays as it is."""
    return text + " " * (width - width_of(text))


def clip(text: str, width: int) -> str:
    """No wider than a width; what is left out is marked."""
    if width_of(text) <= width:
        return text
    kept, columns = [], 0
    for character in text:
        columns += _columns(character)
        if columns >= width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def echo_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(to_json(value), ensure_ascii=False))


def short_dot(dot: str) -> str:
    """A dot as tables show it: the node instead of the whole replica id."""
    replica, _, seq = dot.rpartition(":")
    return f"{replica.rpartition('.')[0] or replica}:{seq}"
