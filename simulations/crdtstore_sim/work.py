"""What users write: operations on few keys, with what they know of them from what they were shown.

The question: how does a random operation get past the checks? Many that are drawn blindly would be refused: an index beyond the end of a
text, a hold that nobody made. So users remember the last holds and how long texts were; what changed meanwhile is refused, as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from crdtstore.types import REGISTRY
from crdtstore_sim import scenario
from crdtstore_sim.arguments import Known, random_op
from crdtstore_sim.facts import AskedOp
from crdtstore_sim.mixes import Collection, collections, favoured
from crdtstore_sim.models import part_of

__all__ = ["Work"]

_ADDRESS = frozenset(("collection", "key", "op", "if_match", "path"))
_KEYS = ("k0", "k1", "é/ß", "k 3")
_TEXT_KEY = _KEYS[1]
"""Where what is compared is text."""
_HOLDS = 6


class Work:
    """Mutable: what users remember."""

    def __init__(self, random: Random, options: scenario.Work, regions: Sequence[str]) -> None:
        self._random = random
        self._options = options
        self._regions = regions
        all_of_them = collections(options.mix, options.types)
        self.collections = all_of_them if options.mix == "basic" else favoured(random, all_of_them)
        """The favourites several times."""
        self.by_name = {one.name: one for one in all_of_them}
        self.lengths: dict[tuple[str, str, str], int] = {}
        """How long texts were when they were last read, by domain, collection and key."""
        self._holds: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
        """The last holds that were made, and at which node."""

    def key(self) -> str:
        """One of the few keys."""
        index = self._random.randrange(self._options.keys)
        return _KEYS[index] if index < len(_KEYS) else f"k{index}"

    def ops(self, domain: str, node: int) -> list[dict[str, Any]]:
        """The operations of a commit at a node."""
        random, options = self._random, self._options
        collection = random.choice(self.collections)
        ops = [self.op(domain, collection, self.key(), node)]
        if random.random() < options.several:
            is_one_key = random.random() < 0.5
            for _ in range(random.choice((1, 1, 2, 4))):
                key = ops[0]["key"] if is_one_key else self.key()
                ops.append(self.op(domain, collection if is_one_key else random.choice(self.collections), key, node))
        return ops

    def op(self, domain: str, collection: Collection, key: str, node: int) -> dict[str, Any]:
        """An operation on a key."""
        at = domain, collection.name, key
        fields = collection.options.get("fields", {})
        known = Known(
            regions=self._regions,
            holds=self._known_holds(at, node),
            length=self.lengths.get(at, 0),
            is_growing=bool(collection.options.get("grow_only")),
            fields=fields,
            expire=self._options.expire,
            wants_text=key == _TEXT_KEY,
        )
        op, arguments, path = random_op(self._random, REGISTRY[collection.type_name], self._options.delete, known)
        if "hold" in arguments and self._random.random() < 0.8:  # it is ended now, most probably
            self._holds[at] = [one for one in self._holds.get(at, []) if one[0] != arguments["hold"]]
        asked = {"collection": collection.name, "key": key, "op": op, **arguments}
        if path:
            steps: list[Any] = [list(part.rpartition(":")[::2]) for part in path]
            asked["path"] = [steps[0][0], *steps[1:]] if fields else steps
        return asked

    def asked(self, op: dict[str, Any]) -> AskedOp:
        """The operation as the models are told of it."""
        collection = self.by_name[op["collection"]]
        declared = collection.options.get("fields", {})
        steps = [step if isinstance(step, list) else [step, declared[step]] for step in op.get("path", ())]
        arguments = {name: value for name, value in op.items() if name not in _ADDRESS}
        return AskedOp(collection.path, op["key"], op["op"], arguments, tuple(part_of(*step) for step in steps))

    def _known_holds(self, at: tuple[str, str, str], node: int) -> list[str]:
        """The holds on a key, mostly those that may be ended where the user is."""
        holds = self._holds.get(at, [])
        return [hold for hold, maker in holds if maker == node or self._random.random() < 0.1]

    def note(self, node: int, domain: str, ops: list[dict[str, Any]], values: list[Any]) -> None:
        """Remember what an acknowledged write did: the names of holds, and how long texts are now."""
        for op, value in zip(ops, values, strict=True):
            at = domain, op["collection"], op["key"]
            if op["op"] == "insert":
                self.lengths[at] = self.lengths.get(at, 0) + len(op["text"])
            elif op["op"] == "cut":
                self.lengths[at] = max(0, self.lengths.get(at, 0) - op["length"])
            elif op["op"] == "reserve" and isinstance(value, str):
                holds = self._holds.setdefault(at, [])
                holds.append((value, node))
                del holds[:-_HOLDS]
