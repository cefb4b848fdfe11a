"""What does it say? Text that several regions edit at once.

The question: what becomes of a character whose neighbours are deleted by somebody who has not seen it? Nothing: each character is a leaf
of its own and says itself where it stands (``_positions``), so it needs no neighbour, no parent and no grave. A cut is a drop of the
characters it names: it removes exactly what it has seen, and leaves nothing behind.

A character is named after the operation that inserted it, so two attempts at one insertion in two regions put at the same leaves, and
each character counts once, at the place that the attempt that counts gave it. Indexes are those of the region that judges the operation,
at that moment, in code points. A cut that is attempted in two regions cuts in each what stands there at the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from typing import Any

from crdtstore.errors import UsageError
from crdtstore.leaves import DROP, PUT, Branch, Entry, Many, One, Order, ValueOrder, has_mark
from crdtstore.types._base import Amount, CrdtType, Issuer, Live, Natural, View, Write, reading_mutator
from crdtstore.types._base import Text as String
from crdtstore.types._positions import Inserter, between
from crdtstore.values import pack

__all__ = ["MAX_CHARACTERS", "Text"]

MAX_CHARACTERS = 10_000
"""Code points that one operation may insert or cut."""
_MAX_POSITIONS_BYTES = 2 << 20
"""What the positions of one insertion may take."""
_NAME_BYTES, _SEQ_BYTES, _INDEX_BYTES, _NUMBER_BYTES = 8, 6, 2, 4
_BEYOND = (b"\xff",)
"""Sorts after every position; so does what a later version stores here."""


class Text(CrdtType):
    """Characters in an order."""

    name = "text"
    question = "What does it say?"
    empty = ""

    @reading_mutator
    def insert(self, view: View, index: Natural, text: String) -> list[Any]:
        """Insert text before the character at an index; at the end when the index is the length."""
        _check_count("text", len(text))
        order = view.order(_order)
        length = _length(order)
        if index > length:
            raise UsageError(
                f"index must be 0 to {length}, the length of the text in this region, got {index}. Nothing changed.",
                code="invalid-value",
            )
        assert view.issuer is not None
        left = _position(view, order[index - 1]) if index else b""
        right = _position(view, order[index]) if index < length else None
        name = _name(view, len(text))
        effects: list[Any] = []
        for number, (position, char) in enumerate(zip(_places(left, right, len(text), view.issuer), text, strict=True)):
            effects += (PUT, [name + number.to_bytes(_NUMBER_BYTES, "big")], [position, char])
        return effects

    @reading_mutator
    def cut(self, view: View, index: Natural, length: Amount) -> list[Any]:
        """Remove so many characters from an index on."""
        _check_count("length", length)
        order = view.order(_order)
        present = _length(order)
        if index + length > present:
            raise UsageError(
                f"index and length must lie within the text, which has {present} characters in this region, got index "
                f"{index} and length {length}. Nothing changed.",
                code="invalid-value",
            )
        effects: list[Any] = []
        for part in order.islice(index, index + length):
            effects += (DROP, [part], None)
        return effects

    def read(self, view: View) -> str:
        order = view.order(_order)
        if not order:
            return ""
        children = view.entry.children  # type: ignore[union-attr]
        found = [children[part] for part in islice(order, _length(order))]
        return "".join([child.value[1] if type(child) is One else _held(child)[1] for child in found])

    def explain(self, view: View) -> Iterator[Write]:
        """The passages of the text, each with the write it came from; ``at`` is the index of its first character."""
        order = view.order(_order)
        passage: list[Live] = []
        for index, part in enumerate(islice(order, _length(order))):
            live = _live(view, part)
            if passage and passage[0].dot != live.dot:
                yield _passage(passage, index)
                passage = []
            passage.append(live)
        if passage:
            yield _passage(passage, _length(order))


def _live(view: View, part: Any) -> Live:
    """The write that the character at a part comes from: of several dots the one that is read."""
    entry = view.entry.children[part]  # type: ignore[union-attr]
    held = _held(entry)
    return next(live for live in View(view.replicas, entry).live() if live.value == held)


def _passage(lives: list[Live], upto: int) -> Write:
    said = "".join(live.value[1] for live in lives)
    return Write((upto - len(lives),), lives[0]._replace(value=said), True, "inserted, and not cut")


# --- characters and their order


def _order(branch: Branch) -> Order:
    """The characters of a text in their order; of two at one place, which no version of ours writes, the same one first everywhere."""
    children = branch.children  # not the branch: it would hold itself, and the collector passes over it

    def place(part: Any) -> tuple[Any, ...]:
        held = _held(children[part])
        return (held[0], part) if held and type(part) is bytes else _BEYOND

    return ValueOrder(children, place)


def _held(entry: Entry) -> Any:
    """Position and character that stand at a leaf; nothing where there is none, or something that this version does not know."""
    if type(entry) is not One:
        found = entry.leaf_of(PUT) if type(entry) is Branch and not has_mark(entry) else entry
        if type(found) is Many and found.kind == PUT and found.dots:
            return _known(min(found.dots.values(), key=lambda held: (held[0], pack(held[1])))[1])
        if type(found) is not One:
            return None
        entry = found
    return _known(entry.value) if entry.kind == PUT else None


def _known(value: Any) -> Any:
    if type(value) is not list or len(value) != 2:
        return None
    position, char = value
    is_known = type(position) is bytes and b"" < position < _BEYOND[0] and type(char) is str and len(char) == 1
    return value if is_known else None


def _length(order: Order) -> int:
    return int(order.bisect_key_left(_BEYOND))


def _position(view: View, part: Any) -> bytes:
    held = _held(view.entry.children[part])  # type: ignore[union-attr]
    position: bytes = held[0]
    return position


# --- what an insertion writes


def _name(view: View, count: int) -> bytes:
    """What the names of the characters of an operation begin with: the same for every attempt at it.

    An id that is used anew, after its window, finds what its first use has named, and takes another name.
    """
    issuer = view.issuer
    assert issuer is not None
    place = issuer.index.to_bytes(_INDEX_BYTES, "big")
    if issuer.operation is None:
        return _owner(issuer) + issuer.seq.to_bytes(_SEQ_BYTES, "big") + place
    there = view.entry.children if type(view.entry) is Branch else {}
    name = issuer.operation
    while any(name + place + number.to_bytes(_NUMBER_BYTES, "big") in there for number in range(count)):
        name = sha256(name).digest()[: len(name)]
    return name + place


def _owner(issuer: Issuer) -> bytes:
    return bytes.fromhex(issuer.replica[-2 * _NAME_BYTES :])


def _places(left: bytes, right: bytes | None, count: int, issuer: Issuer) -> list[bytes]:
    try:
        places = between(left, right, count, Inserter(_owner(issuer), issuer.hlc, issuer.index))
    except ValueError as error:
        raise UsageError(
            f"what stands here was written by another version ({error}), and nothing can be inserted beside it. "
            "Nothing changed.",
            code="invalid-value",
        ) from None
    if len(places[-1]) * count > _MAX_POSITIONS_BYTES:
        raise UsageError(
            f"the text is divided too finely here: the places of {count:,} characters would take more than "
            f"{_MAX_POSITIONS_BYTES >> 20} MiB. Nothing changed. Insert less at once.",
            code="too-large",
        )
    return places


def _check_count(what: str, count: int) -> None:
    if not 0 < count <= MAX_CHARACTERS:
        raise UsageError(
            f"{what} must be 1 to {MAX_CHARACTERS:,} characters, got {count:,}. Nothing changed.", code="invalid-value"
        )
