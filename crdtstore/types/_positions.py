"""Positions: where a character stands, as bytes whose order is the order of the text.

The question: how can everybody invent places between any two others, without asking, without ever meeting, and without remembering what
was deleted? A position is a way down a tree. On each level it names a *run* and a number in it:

    position = run number (run number)*

* The characters of one run have the odd numbers. What is inserted later into the gap after a character stands below its number, what is
  inserted into the gap before it below the even number in front of it. So byte order is the order of the text: smaller numbers, what
  stands before a character, the character, what stands after it, greater numbers.
* A run has one owner, the replica that began it, and only the owner gives out its numbers. It grows at both ends, so that typing
  forward and typing backward stay on one level: a character more costs a number, not a level.
* A run is named by (place of the operation in its commit, stamp of the commit, replica). No two have one name, since the stamps of a
  replica only rise. Runs in one gap stand in this order, so names of replicas decide only between equal stamps. In gaps beside its own
  characters a replica needs no name: there is one nameless run a gap, towards the middle.

Where to insert? Of the two visible neighbours one counts: the one that stands below the other, in the gap between them, else the one in a
run of the inserter's own, the left first; else both count. The inserter goes on in the deepest run of its own on the way to the one that
counts, if the next numbers are between the neighbours and neither stands in their gaps; else it begins a run in the gap beside it.

* Two writers at one place stay apart, whether they type forward, backward or back and forth: after its first character each goes on beside
  its own, in runs and gaps that nobody else extends before having seen them. (Tested, not proven.)
* Appending in turns goes no deeper either: each finds its own run on the way. What does is inserting again and again between the last two
  insertions: two bytes a level in one's own text, about a dozen in that of another; ``MAX_POSITION_BYTES`` is the bound.

Nothing is remembered, so an owner may give out the number of a deleted character again. That two characters of one position are never
seen together follows from the causal cut: the owner had applied the deletion, so it is in the deps of the commit that uses the number
again, and whoever has that commit has removed the old character before. Known limit: what others inserted right beside the deleted
character, not knowing of the deletion, then stands beside the new one.

Source: the idea of position strings with runs ("waypoints"), Matthew Weidner, "Fugue: A Basic List CRDT", 2022; growth to the left,
nameless runs and doing without any memory are our own.
"""

from __future__ import annotations

from typing import NamedTuple

from crdtstore.errors import UsageError

__all__ = ["MAX_POSITION_BYTES", "OWNER_BYTES", "Inserter", "between"]

MAX_POSITION_BYTES = 4096
OWNER_BYTES = 8
_HLC_BYTES = 8
_MAX_NUMBER = (1 << 34) - 2
_FIRST = 1
"""The number of the first character of a run."""
_NAMELESS_BEFORE, _NAMELESS_AFTER = b"\x00", b"\xff"
"""Names of the owner's nameless runs in the gaps before and after a character: what the owner puts between two of its characters is in
the middle, so that its next characters are not cut off by what others put there."""
_SPELLED_OUT = 0xFF
"""Instead of a reference to an owner that the position names already."""


class Inserter(NamedTuple):
    """Who inserts: the owner (8 bytes) of runs to be, the stamp of the commit and the place of the operation in it."""

    owner: bytes
    hlc: int
    place: int


class _Step(NamedTuple):
    """One level of a position: what leads to the number, the number, and who owns the run."""

    prefix: bytes
    number: int
    owner: bytes


# --- numbers


def _encode(number: int) -> bytes:
    """A number as 1 to 5 bytes in the order of numbers, none the beginning of another; the first byte is never 0 or 255."""
    if number < 0:
        return bytes(byte ^ 0xFF for byte in _encode(~number))
    if number < 1 << 6:
        return (0x80 | number).to_bytes(1, "big")
    if number < 1 << 13:
        return (0xC000 | number).to_bytes(2, "big")
    if number < 1 << 20:
        return (0xE00000 | number).to_bytes(3, "big")
    if number < 1 << 27:
        return (0xF0000000 | number).to_bytes(4, "big")
    assert number < 1 << 34, f"a number beyond 34 bits: {number}"
    return (0xF800000000 | number).to_bytes(5, "big")


def _decode(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at an offset, and where it ends."""
    first = data[at]
    flip = 0 if first >= 0x80 else 0xFF
    first ^= flip
    length = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4 if first < 0xF8 else 5
    if at + length > len(data) or first > 0xFB:
        raise ValueError("a position ends within a number")
    number = first & (0xFF >> (length + 1 if length < 5 else 6))
    for byte in data[at + 1 : at + length]:
        number = number << 8 | byte ^ flip
    return (~number if flip else number), at + length


# --- positions


def _steps(position: bytes) -> list[_Step]:
    """The levels of a position, from the top.

    Raises:  ValueError when it is none: a peer of a later version may have written anything.
    """
    steps: list[_Step] = []
    named: list[bytes] = []
    owner = b""
    at = 0
    try:
        while at < len(position):
            if steps and position[at] in (0x00, 0xFF):  # nameless: of the owner of the level above
                at += 1
            else:
                _, at = _decode(position, at)
                at += _HLC_BYTES + 1
                reference = position[at - 1]
                if reference == _SPELLED_OUT:
                    owner = position[at : at + OWNER_BYTES]
                    at += OWNER_BYTES
                    named.append(owner)
                else:
                    owner = named[reference]
            number, end = _decode(position, at)
            steps.append(_Step(position[:at], number, owner))
            at = end
    except IndexError:
        raise ValueError("a position ends too early") from None
    if steps and not steps[-1].number & 1:
        raise ValueError("a position ends in a gap")
    return steps


def _name(above: list[_Step], nameless: bytes, who: Inserter) -> bytes:
    """The name of a new run in a gap: of the last of the levels above it, or of the text as a whole when there are none."""
    if above and above[-1].owner == who.owner:
        return nameless
    owners = _named(above)
    reference = owners.index(who.owner) if who.owner in owners[:_SPELLED_OUT] else _SPELLED_OUT
    spelled = who.owner if reference == _SPELLED_OUT else b""
    return _encode(who.place) + who.hlc.to_bytes(_HLC_BYTES, "big") + bytes((reference,)) + spelled


def _named(steps: list[_Step]) -> list[bytes]:
    """The owners that these levels spell out, in the order in which they do."""
    return list(dict.fromkeys(step.owner for step in steps))


def between(left: bytes, right: bytes | None, count: int, who: Inserter) -> list[bytes]:
    """New positions between two neighbours; ``left`` empty: the beginning of the text, ``right`` None: its end.

    Shape:   ascending; all in one run.
    Cost:    O(length of the two + count).
    Raises:  ValueError when a neighbour is not a position or they are not in order; UsageError ``too-large``. Nothing changed.
    """
    if right is not None and left >= right:
        raise ValueError("positions out of order")
    prefix, first = _place(left, right, count, who)
    size = len(prefix) + len(_encode(first + 2 * count - 2))
    if size > MAX_POSITION_BYTES:
        raise UsageError(
            f"the text is divided too finely here: the place of a character would take {size:,} bytes, at most "
            f"{MAX_POSITION_BYTES:,} are allowed. Nothing changed. Cut the passage and insert it again as a whole.",
            code="too-large",
        )
    places = [prefix + _encode(number) for number in range(first, first + 2 * count, 2)]
    if not left < places[0] or (right is not None and not places[-1] < right):
        raise ValueError("a number in a position is longer than it must be")
    return places


def _place(left: bytes, right: bytes | None, count: int, who: Inserter) -> tuple[bytes, int]:
    """What leads to the numbers of so many new characters, and the first of the numbers."""
    befores, afters = _steps(left), _steps(right or b"")
    gap = afters[-1].prefix + _encode(afters[-1].number - 1) if afters else b""
    if right is not None and right.startswith(left):  # the right one was put beside the left one
        found = _before(left, afters, count, who)
        return found or (gap + _name(afters, _NAMELESS_BEFORE, who), _FIRST)
    is_of_left = bool(befores) and befores[-1].owner == who.owner
    if right is not None and not is_of_left and not left.startswith(gap):
        is_of_right = afters[-1].owner == who.owner
        found = None if is_of_right else _after(right, befores, count, who)
        found = found or _before(left, afters, count, who)
        if found or is_of_right:
            return found or (gap + _name(afters, _NAMELESS_BEFORE, who), _FIRST)
    else:
        found = _after(right, befores, count, who)
    return found or (left + _name(befores, _NAMELESS_AFTER, who), _FIRST)


def _after(right: bytes | None, steps: list[_Step], count: int, who: Inserter) -> tuple[bytes, int] | None:
    """So many numbers after the left neighbour in the deepest run of one's own on the way to it."""
    for prefix, number, owner in reversed(steps):
        if owner == who.owner:
            first = number + (2 if number & 1 else 3)
            last = first + 2 * count - 2
            highest = prefix + _encode(min(last, _MAX_NUMBER))
            is_free = right is None or (highest < right and not right.startswith(highest))
            return (prefix, first) if is_free and last < _MAX_NUMBER else None
    return None


def _before(left: bytes, steps: list[_Step], count: int, who: Inserter) -> tuple[bytes, int] | None:
    """So many numbers before the right neighbour in the deepest run of one's own on the way to it."""
    for prefix, number, owner in reversed(steps):
        if owner == who.owner:
            first = number - (2 if number & 1 else 1) - 2 * count + 2
            lowest = prefix + _encode(max(first - 1, -_MAX_NUMBER))
            return (prefix, first) if left < lowest and first > -_MAX_NUMBER else None
    return None
