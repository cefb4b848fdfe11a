"""Model values: what a node shows is what the model reads in the same set of commits.

The question: the same as which set? A read that a user gets must be the reading of what is durable at the node; what a look into the
state finds must be the reading of what is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crdtstore.engine.engine import Engine
from crdtstore.types import REGISTRY, View
from crdtstore_sim.facts import Facts, Group, shown
from crdtstore_sim.models import MODELS, Reading, canonical

__all__ = ["Values"]


def _nothing(collection: str) -> Reading:
    """What a key reads that was never written."""
    return Reading(REGISTRY[collection.partition(":")[2]].read(View([], None)), False, 0)


def _under_etag(collection: str, reading: Reading) -> Any:
    """What an etag tells apart. It is a share of the state digest, which is linear: the etag of a counter does not tell whether there are
    amounts that add up to nothing."""
    if collection.endswith(":counter"):
        return reading.value
    return canonical(list(reading))


class Values:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_read(self, group: Group, node: int, collection: str, key: str, body: dict[str, Any], since_us: int) -> None:
        """A user was shown a key, which was asked for at ``since_us``."""
        got = Reading(body["value"], body["exists"], body["conflicts"])
        model = group.keys.get((collection, key))
        self._hold(
            group,
            node,
            f"shows {collection}/{key} as",
            got,
            lambda vector: model.reading(vector) if model else _nothing(collection),
            since_us,
        )

    def on_list(self, group: Group, node: int, collection: str, body: dict[str, Any], since_us: int) -> None:
        """A user was shown all keys of a collection, perhaps with their values."""
        items = body["items"]
        has_values = any("value" in item for item in items)
        got = [(item["key"], item["value"] if has_values else None) for item in items]
        keys = sorted((key, model) for (name, key), model in group.keys.items() if name == collection)

        def expected(vector: Sequence[int]) -> Any:
            readings = [(key, model.reading(vector)) for key, model in keys]
            return [(key, reading.value if has_values else None) for key, reading in readings if reading.exists]

        self._hold(group, node, f"lists {collection} as", got, expected, since_us)

    def _hold(
        self, group: Group, node: int, how: str, got: Any, expected: Callable[[Sequence[int]], Any], since_us: int
    ) -> None:
        """What was shown is what the model reads of all that is durable, or was of all that was applied at a moment since it was
        asked for and is durable by now."""
        durable, seen = group.durable[node], canonical(got)
        if seen == canonical(expected(durable)):
            return
        if any(seen == canonical(expected(vector)) for vector in group.stood_at(node, since_us)):
            return
        self._report(
            group, node, f"{how} {shown(got)}; of what is durable, {durable}, it is {shown(expected(durable))}"
        )

    def on_written(
        self, group: Group, node: int, ops: Sequence[tuple[str, str, str, Any]], values: list[Any], dot: tuple[int, int]
    ) -> None:
        """A user was shown what a write on distinct keys led to: the reading right after it."""
        origin, seq = dot
        vector = list(group.records[origin][seq - 1].deps)
        vector[origin] = seq
        for (collection, key, _, _), value in zip(ops, values, strict=True):
            model = group.keys.get((collection, key))
            if value is None or model is None:
                continue
            expected = model.reading(vector).value
            if canonical(value) != canonical(expected):
                self._report(
                    group,
                    node,
                    f"answers a write on {collection}/{key} with {shown(value)}, at {vector} it is {shown(expected)}",
                )

    def on_matched(self, group: Group, dot: tuple[int, int], collection: str, key: str, read: dict[str, Any]) -> None:
        """A commit was taken on the condition that a key still is as it was read."""
        origin, seq = dot
        model = group.keys.get((collection, key))
        if model is None or seq > len(group.records[origin]):
            return
        before = model.reading(group.records[origin][seq - 1].deps)
        shown_then = Reading(read["value"], read["exists"], read["conflicts"])
        if _under_etag(collection, before) != _under_etag(collection, shown_then):
            self._report(
                group, origin, f"took a commit if {collection}/{key} is {shown(read['value'])}; it was {shown(before)}"
            )

    def on_look(self, group: Group, node: int, collection: str, key: str, engine: Engine) -> Reading | None:
        """Look at a key in the state of a node."""
        type_name = collection.partition(":")[2]
        crdt = REGISTRY.get(type_name)
        if crdt is None or type_name not in MODELS:
            return None
        view = engine.keyspace.view(collection, key)
        got = Reading(crdt.read(view), view.exists, crdt.conflicts(view))
        self._compare(group, node, collection, key, got, group.applied[node], "holds")
        return got

    def _compare(
        self, group: Group, node: int, collection: str, key: str, got: Reading, vector: list[int], how: str
    ) -> None:
        model = group.keys.get((collection, key))
        type_name = collection.partition(":")[2]
        if type_name not in MODELS:
            return
        if model is None:
            if got.exists:
                self._report(group, node, f"{how} {collection}/{key}, which nobody wrote")
            return
        expected = model.reading(vector)
        if canonical(list(got)) != canonical(list(expected)):
            self._report(
                group,
                node,
                f"{how} {collection}/{key} as {shown(got.value)} (exists {got.exists}, {got.conflicts} conflicts), at "
                f"{vector} it is {shown(expected.value)} ({expected.exists}, {expected.conflicts})",
            )

    def _report(self, group: Group, node: int, detail: str) -> None:
        self._facts.report("model values", f"{group.name}: {self._facts.members[node]} {detail}")
