"""Model values: what a node shows is what the model reads in the same set of commits, at the same instant.

The question: the same as which set? A read that a user gets must be the reading of what is durable at the node, by that node's clock;
what a look into the state finds must be the reading of what is applied, with all that has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crdtstore.clock import physical_ms
from crdtstore.engine.engine import Engine
from crdtstore.types import REGISTRY
from crdtstore_sim.facts import AskedOp, Facts, Group, Span, shown
from crdtstore_sim.models import MODELS, Key, Reading, canonical

__all__ = ["Values"]


def _is_same(got: Reading, expected: Reading) -> bool:
    """Whether that may be shown; conflicts that nobody need remember any more may be forgotten, each replica in its time."""
    return (
        expected.conflicts <= got.conflicts <= expected.conflicts + expected.fading
        and got.exists == expected.exists
        and canonical(got.value) == canonical(expected.value)
    )


def _is_right(got: Reading, expected: Reading) -> bool:
    """The same of what a user is shown, who is also told when it ends."""
    return _is_same(got, expected) and got.ends == expected.ends


def _is_same_under_etag(collection: str, one: Reading, other: Reading) -> bool:
    """Whether an etag may take two readings for one. It is a share of the state digest, which is linear: it does not tell whether there
    are amounts that add up to nothing, and where these are a field, they may serve under its name; marks are no part of it."""
    type_name = collection.rpartition(":")[2]
    if type_name == "or_map":
        return _is_same_but_for_nothing(one.value, other.value)
    if type_name in {"counter", "bounded_counter", "rw_set"}:
        return bool(canonical(one.value) == canonical(other.value))
    return bool(canonical(list(one[:3])) == canonical(list(other[:3])))


def _is_same_but_for_nothing(one: Any, other: Any) -> bool:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return _is_nothing(one) or _is_nothing(other) or bool(canonical(one) == canonical(other))
    return all(_is_same_but_for_nothing(one.get(name), other.get(name)) for name in {*one, *other})


def _is_nothing(value: Any) -> bool:
    """What a field may read although no dot of it is in the digest, or that has none."""
    return value is None or value == {} or (value == 0 and value is not False)


class Values:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def key(self, group: Group, collection: str, key: str) -> Key:
        """The model of a key; one that was never written reads as nothing."""
        facts = self._facts
        model = group.keys.get((collection, key))
        if model is None:
            type_name, options = collection.rpartition(":")[2], facts.options.get(collection)
            model = Key(MODELS, type_name, facts.members, facts.regions, options)  # type: ignore[arg-type]
        return model

    def on_read(self, group: Group, node: int, collection: str, key: str, body: dict[str, Any], span: Span) -> None:
        """A user was shown a key."""
        ends: dict[str, Any] = {name: body[name] for name in ("expires", "field_expires") if name in body}
        got = Reading(body["value"], body["exists"], body["conflicts"], 0, ends)
        model = self.key(group, collection, key)
        self.hold(
            group,
            node,
            f"shows {collection}/{key} as {shown(tuple(got))}",
            lambda vector, now_ms: _is_right(got, model.reading(vector, now_ms)),
            lambda vector, now_ms: tuple(model.reading(vector, now_ms)),
            [model],
            span,
        )

    def on_list(
        self,
        group: Group,
        node: int,
        collection: str,
        body: dict[str, Any],
        span: Span,
        of_group: Mapping[tuple[str, str], Key],
    ) -> None:
        """A user was shown all keys of a collection, perhaps with their values; ``of_group``: models of the keys that the group serves."""
        items = body["items"]
        has_values = any("value" in item for item in items)
        got = [(item["key"], item["value"] if has_values else None) for item in items]
        seen = canonical(got)
        keys = sorted((key, model) for (name, key), model in of_group.items() if name == collection)

        def expected(vector: Sequence[int], now_ms: int) -> Any:
            readings = [(key, model.reading(vector, now_ms)) for key, model in keys]
            return [(key, reading.value if has_values else None) for key, reading in readings if reading.exists]

        self.hold(
            group,
            node,
            f"lists {collection} as {shown(got)}",
            lambda vector, now_ms: bool(seen == canonical(expected(vector, now_ms))),
            expected,
            [model for _, model in keys],
            span,
        )

    def hold(
        self,
        group: Group,
        node: int,
        how: str,
        is_right: Callable[[Sequence[int], int], bool],
        expected: Callable[[Sequence[int], int], Any],
        models: Iterable[Key],
        span: Span,
    ) -> None:
        """What was shown is what the model reads of all that is durable, or was of all that was applied at a moment since it was
        asked for and is durable by now; at the time of its clock, or one that it was since."""
        durable = group.durable[node]
        if is_right(durable, span.now_ms):
            return
        vectors = [tuple(durable), *group.stood_at(node, span.since_us)]
        instants = {when for model in models for when in model.instants(vectors, span.from_ms, span.to_ms)}
        if any(is_right(vector, now_ms) for vector in vectors for now_ms in sorted(instants)):
            return
        self._report(
            group, node, f"{how}; of what is durable, {durable}, it is {shown(expected(durable, span.now_ms))}"
        )

    def on_written(
        self,
        group: Group,
        node: int,
        ops: Sequence[AskedOp],
        values: list[Any],
        dot: tuple[int, int],
        span: Span,
    ) -> None:
        """A user was shown what a write on distinct keys led to: the reading right after it."""
        origin, seq = dot
        record = group.records[origin][seq - 1]
        vector = list(record.deps)
        vector[origin] = seq
        for index, (op, value) in enumerate(zip(ops, values, strict=True)):
            model = group.keys.get((op.collection, op.key))
            if value is None or model is None:
                continue
            if op.op == "reserve":
                expected: list[Any] = [f"{record.name}.{index}"]
            else:
                instants = [*model.instants([vector], span.from_ms, span.to_ms), physical_ms(record.hlc)]
                expected = [model.value_at(vector, now_ms, op.path) for now_ms in instants]
            if canonical(value) not in [canonical(one) for one in expected]:
                self._report(
                    group,
                    node,
                    f"answers {op.op} on {op.collection}/{op.key} {op.path or ''} with {shown(value)}, at {vector} it is "
                    f"{shown(expected[0])}",
                )

    def on_matched(self, group: Group, dot: tuple[int, int], collection: str, key: str, read: dict[str, Any]) -> None:
        """A commit was taken on the condition that a key still is as it was read."""
        origin, seq = dot
        model = group.keys.get((collection, key))
        if model is None or seq > len(group.records[origin]):
            return
        record = group.records[origin][seq - 1]
        before = model.reading(record.deps, physical_ms(record.hlc))
        shown_then = Reading(read["value"], read["exists"], read["conflicts"])
        if not _is_same_under_etag(collection, before, shown_then):
            self._report(
                group, origin, f"took a commit if {collection}/{key} is {shown(read['value'])}; it was {shown(before)}"
            )

    def on_look(self, group: Group, node: int, collection: str, key: str, engine: Engine) -> Reading | None:
        """Look at a key in the state of a node."""
        type_name = collection.rpartition(":")[2]
        if type_name not in MODELS or type_name not in REGISTRY:
            return None
        crdt = REGISTRY[type_name]
        view = engine.keyspace.view(collection, key, None, self._facts.options.get(collection, {}))
        got = Reading(crdt.read(view), view.exists, crdt.conflicts(view))
        vector = group.applied[node]
        expected = self.key(group, collection, key).reading(vector)
        if not _is_same(got, expected):
            self._report(
                group,
                node,
                f"holds {collection}/{key} as {shown(got.value)} (exists {got.exists}, {got.conflicts} conflicts), at "
                f"{vector} it is {shown(expected.value)} ({expected.exists}, {expected.conflicts})",
            )
        return got

    def _report(self, group: Group, node: int, detail: str) -> None:
        self._facts.report("model values", f"{group.name}: {self._facts.members[node]} {detail}")
