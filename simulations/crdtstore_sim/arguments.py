"""Random operations of every type, derived from the registry: whatever a type declares is used.

The question: what makes a fuzz find conflicts? Few values. Elements, fields and event ids come from small pools, so that replicas meet
at the same places; numbers sometimes pass 64 bits, and 1, "1" and b"1" are three elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from crdtstore.types import REGISTRY, Argument, CrdtType
from crdtstore_sim.models import part_of

__all__ = ["Known", "random_member", "random_op"]

_ELEMENTS = ("a", "b", "1", 1, -7, b"1", 1 << 70)
_NAMES = ("f", "g", "h", "")
_FIELDS = ("f", "g:h", "")
_TEXTS = ("e1", "e2", "e3", "é\u2028")
_WORDS = ("a", "no", "day", "éß", "words", "🙂")
_TTLS_MS = (50, 300, 300, 1_000, 1_000, 3_000, 60_000, None)
_OF_HOLDS = ("confirm", "release")
_NEVER_HELD = "a-1.0000000000000000:1.0"


class Known(NamedTuple):
    """What a user may know of the key that he writes to."""

    regions: Sequence[str] = ()
    holds: Sequence[str] = ()
    """Names of holds on it."""
    length: int = 0
    """How long a text is, perhaps."""
    is_growing: bool = False
    """Whether nothing negative may be added."""
    fields: Mapping[str, str] = {}
    """Declared fields; empty: any."""
    expire: float = 0.0
    """The share of operations that set deadlines."""
    wants_text: bool = False
    """Whether what is compared here is text; else integers."""


NOTHING_KNOWN = Known()


def _integer(random: Random) -> int:
    dice = random.random()
    if dice < 0.9:
        return random.randint(-3, 9)
    return random.choice((1 << 63, -(1 << 63) - 1, (1 << 64) + 5, 1 << 200, (1 << 63) - 1))


def _value(random: Random) -> Any:
    dice = random.random()
    if dice < 0.6:
        return random.randint(0, 99)
    if dice < 0.8:
        return f"v{random.randint(0, 9)}"
    return random.choice(
        (None, True, 1, 1.0, 0.5, b"\x00", [1, [2.0]], {"y": 1, "x": {"b": [None], "a": False}}, 1 << 90)
    )


def _some(random: Random, pool: tuple[Any, ...]) -> list[Any]:
    return [random.choice(pool) for _ in range(random.choice((1, 1, 1, 2, 3)))]


_KINDS: dict[str, Callable[[Random], Any]] = {
    "amount": lambda random: random.choice((1, 1, 2, 3, 5, 8)),
    "duration": lambda random: random.choice([each for each in _TTLS_MS if each is not None]),
    "integer": _integer,
    "natural": lambda random: random.randint(0, 4),
    "ttl": lambda random: random.choice(_TTLS_MS),
    "text": lambda random: random.choice(_TEXTS),
    "value": _value,
    "element": lambda random: random.choice(_ELEMENTS),
    "elements": lambda random: _some(random, _ELEMENTS),
    "fields": lambda random: {name: _value(random) for name in _some(random, _NAMES)},
    "names": lambda random: _some(random, _NAMES),
    "some_names": lambda random: _some(random, _NAMES) if random.random() < 0.7 else None,
}


def _orderable(random: Random, known: Known) -> Any:
    is_text = known.wants_text != (random.random() < 0.03)
    return f"v{random.randint(0, 30)}" if is_text else random.choice((random.randint(-9, 30), 1 << 70))


_SPECIAL: dict[tuple[str, str, str], Callable[[Random, Known], Any]] = {
    ("bounded_counter", "grant", "amount"): lambda random, known: random.choice((5, 10, 20)),
    ("bounded_counter", "transfer", "to"): lambda random, known: random.choice(known.regions or ("nowhere",)),
    ("bounded_counter", "confirm", "hold"): lambda random, known: random.choice(known.holds or (_NEVER_HELD,)),
    ("bounded_counter", "release", "hold"): lambda random, known: random.choice(known.holds or (_NEVER_HELD,)),
    ("bounded_counter", "reserve", "ttl_ms"): lambda random, known: random.choice((100, 1_000, 2_000, 60_000, 60_000)),
    ("counter", "add", "amount"): lambda random, known: abs(_integer(random)) if known.is_growing else _integer(random),
    ("or_map", "remove", "field"): lambda random, known: random.choice(list(known.fields) or _FIELDS),
    ("text", "insert", "index"): lambda random, known: random.randint(0, max(0, known.length)),
    ("text", "insert", "text"): lambda random, known: random.choice(_WORDS),
    ("text", "cut", "index"): lambda random, known: random.randint(0, max(0, known.length - 1)),
    ("text", "cut", "length"): lambda random, known: random.choice((1, 1, 1, 2, 3)),
}
"""By type, operation and argument: what cannot be drawn from the kind of the argument alone."""


def _argument(random: Random, crdt: CrdtType, op: str, argument: Argument, known: Known) -> Any:
    special = _SPECIAL.get((crdt.name, op, argument.name))
    if special is not None:
        return special(random, known)
    if argument.kind == "orderable":
        return _orderable(random, known)
    return _KINDS[argument.kind](random)


def random_op(
    random: Random, crdt: CrdtType, delete: float, known: Known = NOTHING_KNOWN
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """An operation of a type, its arguments, and the field of a field … that it goes to; with the given share a delete."""
    if crdt.name == "or_map" and random.random() < 0.8:
        return _nested(random, delete, known)
    if crdt.deletable and random.random() < delete:
        return "delete", {}, ()
    mutators = [mutator for mutator in crdt.mutators.values() if mutator.name != "expire"]
    if "expire" in crdt.mutators and random.random() < known.expire:
        mutators = [crdt.mutators["expire"]]
    elif crdt.name == "bounded_counter" and random.random() < 0.6:  # end holds if there are any
        mutators = [mutator for mutator in mutators if (mutator.name in _OF_HOLDS) == bool(known.holds)]
    elif crdt.name == "text" and not known.length and random.random() < 0.9:
        mutators = [crdt.mutators["insert"]]
    mutator = random.choice(mutators)
    arguments = {
        argument.name: _argument(random, crdt, mutator.name, argument, known)
        for argument in mutator.arguments
        if argument.required or random.random() < 0.8
    }
    return mutator.name, arguments, ()


def _nested(random: Random, delete: float, known: Known) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """An operation one level down: of the declared type of a field, or of one of a few types under few names."""
    if known.fields:
        name = random.choice(sorted(known.fields))
        type_name = known.fields[name]
    else:
        name = random.choice(_FIELDS)
        nestable = [crdt.name for crdt in REGISTRY.values() if crdt.nestable]
        type_name = "or_map" if random.random() < 0.2 else random.choice(nestable)
    op, arguments, below = random_op(random, REGISTRY[type_name], delete, known._replace(fields={}))
    return op, arguments, (part_of(name, type_name), *below)


def random_member(random: Random, type_name: str) -> Any:
    """An element, a field or an event id that a key may hold."""
    pool = {"event_log": _TEXTS, "lww_map": _NAMES, "or_map": _FIELDS}.get(type_name, _ELEMENTS)
    return random.choice(pool)
