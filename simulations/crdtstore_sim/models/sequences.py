"""Models of what has an order: events, and text.

The question: which order of characters is right? Any single one that is the same for ever and everywhere, and in which whoever inserts or
cuts finds his characters at the index he named. So a model takes the position of a character from the commit that inserted it, and holds
each commit to it: sorted by position, the text must be what its maker saw, with exactly what he did to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from crdtstore.causal import Dot
from crdtstore.clock import physical_ms, rfc3339
from crdtstore_sim.models.base import Act, Here, Letter, Model, Shown, canonical
from crdtstore_sim.models.history import There

__all__ = ["EventLog", "Text", "letters", "placed"]


class EventLog(Model):
    """One entry per id, the first in (hlc, replica, seq); other bodies under one id are a conflict."""

    deletable = False
    acts: Mapping[str, Act] = {
        "append": lambda here, given: here.write((given["id"],), given.get("body")),
    }

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        first = sorted((*at.writes[0].order, name, at.writes[0].value) for name, at in there.below.items() if at.writes)
        events = [
            {"id": name, "body": value, "dot": str(Dot(replica, seq)), "time": rfc3339(physical_ms(hlc))}
            for hlc, replica, seq, name, value in first
        ]
        conflicts = sum(len({canonical(write.value) for write in at.writes}) > 1 for at in there.below.values())
        return Shown(events, conflicts)


class Text(Model):
    """The characters that nobody who had seen them cut, in the order of their positions."""

    def __init__(self) -> None:
        self.acts: Mapping[str, Act] = {"insert": _insert, "cut": _cut}

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown("".join(letter.char for letter in letters(there)))


def letters(there: There) -> list[Letter]:
    """The characters that count at a place, in their order."""
    found = [Letter(name, *at.writes[0].value[::-1]) for name, at in there.below.items() if at.writes]
    return sorted(found, key=lambda letter: (letter.position, letter.name))


def _insert(here: Here, given: Mapping[str, Any]) -> None:
    event, draft, index = here.event, here.draft(), given["index"]
    draft[index:index] = [
        Letter((event.operation or event.name, here.index, number), char) for number, char in enumerate(given["text"])
    ]


def _cut(here: Here, given: Mapping[str, Any]) -> None:
    draft, index = here.draft(), given["index"]
    upto = index + given.get("length", 1)
    for letter in draft[index:upto]:
        here.clear((letter.name,))
    del draft[index:upto]


def placed(draft: Sequence[Letter], puts: Sequence[tuple[bytes, str]]) -> str | None:
    """Give the new characters of a commit the positions that it says, in the order in which they were typed.

    Returns what is wrong, None when the text is what its maker wanted.
    """
    fresh = sorted((letter for letter in draft if letter.position is None), key=lambda letter: letter.name)
    if [letter.char for letter in fresh] != [char for _, char in puts]:
        return f"inserts {[char for _, char in puts]!r}, asked for was {[letter.char for letter in fresh]!r}"
    for letter, (position, _) in zip(fresh, puts, strict=True):
        letter.position = position
    wanted = "".join(letter.char for letter in draft)
    for one, other in pairwise(draft):
        if one.position is None or other.position is None or one.position >= other.position:
            return f"wants {wanted!r}, but {one.char!r} and {other.char!r} do not stand in this order"
    return None
