"""What a text says, told a second time: as a tree of characters, from the set of commits and who had seen what.

The question: where does a character stand? That depends on what its maker saw, so every attempt at an operation is looked at on its own:
he saw the characters that the commits he had seen left, and put new ones between two of them, or named some to be cut.

* A character is there when an attempt that inserted it is known and no cut or delete is known that had seen any attempt at it. It stands
  where the attempt of the least (hlc, replica, seq) of those that are known put it.
* Characters are links of chains. A chain hangs before or after a character, or is one of the first of all; it has one owner and goes on in
  both directions. Chains that hang on one side of one character stand in the order (operation in the commit, hlc, owner); but one that
  the owner of that very character hangs there has no name, and it is the nearest to the middle of the gap.
* Which of the two neighbours counts for a maker? The right one where it hangs behind the left one, the left one where it hangs before the
  right one; else the one in a chain of his own, the left first; else both, the left first. Going up from there to the nearest chain of
  his own he takes its next links, if they lie between the neighbours and the right one does not hang behind them, nor the left one
  before them; else he hangs a new chain on the one that counts, in the gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId
from tests.laws.facts import DELETE, STEP, Did, Told

__all__ = ["text"]

BEFORE, SELF, AFTER = -1, 0, 1
Place = tuple[Any, ...]
"""Where a character stands: from the top, in turn the name of a chain and (number of the link, side on which it goes on)."""
Name = tuple[Any, int]
"""A character: the operation that inserted it, and its number in what that inserted."""


class _Attempt(NamedTuple):
    """One operation in one commit."""

    hlc: int
    dot: Dot
    deps: dict[ReplicaId, int]
    did: Did

    @property
    def at(self) -> int:
        """Where it stands in its commit."""
        return self.did.order[3]

    def knows(self, other: _Attempt) -> bool:
        if other.dot == self.dot:
            return other.at < self.at
        return 0 < other.dot.seq <= self.deps.get(other.dot.replica, 0)


class _Character(NamedTuple):
    """A character as it is seen at one time."""

    place: Place
    name: Name
    char: str
    hlc: int


def text(ops: list[Did]) -> Told:
    """What operations leave when all of them are known."""
    told = _Story(ops)
    shown = told.seen(told.attempts)
    return Told("".join(one.char for one in shown), bool(shown), 0, max((one.hlc for one in shown), default=0))


class _Story:
    """Every attempt, none before what it has seen, and what it put where, or ended."""

    def __init__(self, ops: Iterable[Did]) -> None:
        coming = [
            _Attempt(hlc, dot, deps, one)
            for one in ops
            for hlc, dot, deps in one.attempts or [(one.order[0], one.dot, one.deps)]
        ]
        self.attempts: list[_Attempt] = []
        self._put: dict[tuple[Dot, int], list[Place]] = {}
        self._ended: dict[tuple[Dot, int], set[Name]] = {}
        while coming:
            ready = [one for one in coming if not any(one.knows(other) for other in coming)]
            for one in ready:
                self._look([other for other in self.attempts if one.knows(other)], one)
            self.attempts += ready
            coming = [one for one in coming if one not in ready]

    def _look(self, known: list[_Attempt], one: _Attempt) -> None:
        op, given = one.did.op, one.did.arguments
        shown = self.seen(known)
        if op == "insert":
            index = given["index"]
            left = shown[index - 1].place if index else None
            right = shown[index].place if index < len(shown) else None
            self._put[one.dot, one.at] = _between(left, right, len(given["text"]), one)
        elif op == "cut":
            upto = given["index"] + given["length"]
            self._ended[one.dot, one.at] = {character.name for character in shown[given["index"] : upto]}
        elif op == DELETE:
            inserts = [other.did for other in known if other.did.op == "insert"]
            self._ended[one.dot, one.at] = {
                (did.order, number) for did in inserts for number in range(len(did.arguments["text"]))
            }

    def seen(self, known: list[_Attempt]) -> list[_Character]:
        """The characters that are there for whoever knows these attempts, in their order."""
        ended: set[Name] = set()
        for one in known:
            ended |= self._ended.get((one.dot, one.at), set())
        counting: dict[Any, _Attempt] = {}
        for one in sorted(known, key=lambda one: (one.hlc, one.dot)):
            if one.did.op == "insert":
                counting.setdefault(one.did.order, one)
        characters = [
            _Character(place, (name, number), one.did.arguments["text"][number], one.hlc)
            for name, one in counting.items()
            for number, place in enumerate(self._put[one.dot, one.at])
            if (name, number) not in ended
        ]
        assert len({one.place for one in characters}) == len(characters), "two characters seen together at one place"
        return sorted(characters, key=lambda one: one.place)


# --- the tree


def _beside(place: Place, side: int) -> Place:
    """The gap on one side of a character."""
    *above, (number, _) = place
    return (*above, (number, side))


def _hangs_in(place: Place, gap: Place) -> bool:
    return place[: len(gap)] == gap


def _owners(place: Place) -> list[str]:
    """Who owns the chains on the way to a place, from the top; those without a name left out."""
    return [name[-1] for name in place[::2] if len(name) > 1]


def _between(left: Place | None, right: Place | None, count: int, one: _Attempt) -> list[Place]:
    """Where the maker of an attempt puts new characters between two that he sees."""
    me = str(one.dot.replica)
    sides: list[tuple[Place | None, int]]
    if right is not None and (left is None or _hangs_in(right, _beside(left, AFTER))):
        sides = [(right, BEFORE)]
    elif left is None or right is None or _hangs_in(left, _beside(right, BEFORE)) or _owners(left)[-1] == me:
        sides = [(left, AFTER)]
    elif _owners(right)[-1] == me:
        sides = [(right, BEFORE)]
    else:
        sides = [(left, AFTER), (right, BEFORE)]
    for neighbour, side in sides:
        links = _links(neighbour or (), side, count, me)
        is_behind_left = bool(links) and (left is None or left < _beside(links[0], BEFORE))
        if is_behind_left and (
            right is None or (links[-1] < right and not _hangs_in(right, _beside(links[-1], AFTER)))
        ):
            return links
    neighbour, side = sides[0]
    gap = _beside(neighbour, side) if neighbour else ()
    return [(*gap, _name(gap, one, me), (number, SELF)) for number in range(count)]


def _links(place: Place, side: int, count: int, me: str) -> list[Place]:
    """The next links on one side in the nearest chain of one's own, in their order."""
    for depth in range(len(place), 0, -2):
        if _owners(place[:depth])[-1] == me:
            *chain, (number, _) = place[:depth]
            numbers = range(number + 1, number + 1 + count) if side == AFTER else range(number - count, number)
            return [(*chain, (link, SELF)) for link in numbers]
    return []


def _name(gap: Place, one: _Attempt, me: str) -> tuple[Any, ...]:
    """The name of a chain in a gap. Where nothing else decides, owners named above go first, then the order of their hex digits."""
    owners = list(dict.fromkeys(_owners(gap)))
    if gap and _owners(gap)[-1] == me:
        return (0,) if gap[-1][1] == BEFORE else (2,)
    tie = (0, owners.index(me)) if me in owners else (1, me.rpartition(".")[2])
    return (1, one.at // STEP, one.hlc, tie, me)
