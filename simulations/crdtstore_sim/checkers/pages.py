"""Pages: what else readers are shown is what the models read: members of a key, what stands behind it, and where writes met.

The question: may a second way to look at a key show something else? Each is worked out by itself, from orders that are kept and lists of
candidates; so each is held against the reading of the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crdtstore_sim.checkers.values import Values
from crdtstore_sim.facts import Group, Span, shown
from crdtstore_sim.models import Key, canonical

__all__ = ["MEMBERED", "Pages"]

MEMBERED = frozenset(("aw_set", "event_log", "g_set", "lww_map", "or_map", "rw_set"))
"""Types whose keys have members."""


class Pages:
    """Keeps nothing of its own."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def on_members(
        self, group: Group, node: int, at: tuple[str, str], fields: Mapping[str, Any], body: dict[str, Any], span: Span
    ) -> None:
        """A user was shown the first page of what a key holds, or whether it holds one thing."""
        model, type_name = self._values.key(group, *at), at[0].rpartition(":")[2]

        def expected(vector: Sequence[int], now_ms: int) -> Any:
            value = model.reading(vector, now_ms).value
            if "has" in fields:
                return canonical(fields["has"]) in [canonical(name) for name in _names(type_name, value)]
            items = list(value)
            if isinstance(value, Mapping):
                items = [{"field": name, "value": value[name]} for name in sorted(value)]
            return items[: fields["limit"]], len(items) > fields["limit"]

        got: Any = body.get("has")
        if got is None:
            items = body["items"]
            if type_name == "or_map":  # in the order of name and type together, which a model need not know
                items = sorted(items, key=lambda item: str(item["field"]))
            got = items, body["next"] is not None
        seen = canonical(got)
        self._values.hold(
            group,
            node,
            f"shows of {at[0]}/{at[1]} {shown(got)}",
            lambda vector, now_ms: bool(seen == canonical(expected(vector, now_ms))),
            expected,
            [model],
            span,
        )

    def on_explained(self, group: Group, node: int, at: tuple[str, str], body: dict[str, Any], span: Span) -> None:
        """A user was shown what stands behind a value: the value itself, and at least one write that counts if there is any."""
        model = self._values.key(group, *at)
        got, has_any = canonical(body["value"]), any(write["counts"] for write in body["live"])

        def is_right(vector: Sequence[int], now_ms: int) -> bool:
            reading = model.reading(vector, now_ms)
            return bool(got == canonical(reading.value)) and (has_any or not reading.exists)

        self._values.hold(
            group,
            node,
            f"explains {at[0]}/{at[1]} as {shown(body['value'])} by {len(body['live'])} writes",
            is_right,
            lambda vector, now_ms: model.reading(vector, now_ms)[:2],
            [model],
            span,
        )

    def on_conflicts(
        self,
        group: Group,
        node: int,
        declared: Collection[str],
        body: dict[str, Any],
        span: Span,
        of_group: Mapping[tuple[str, str], Key],
    ) -> None:
        """A user was shown all keys where writes met; ``declared``: the collections (with their type) that the node had heard of when it
        was asked. What it hears of later it may show. ``of_group``: the models of all keys that the group serves."""
        got = {(item["collection"], item["key"]): item["conflicts"] for item in body["items"]}
        keys = {(at[0].partition(":")[0], at[1]): (at[0] in declared, model) for at, model in of_group.items()}

        def expected(vector: Sequence[int], now_ms: int) -> dict[tuple[str, str], tuple[int, int]]:
            spans = {}
            for at, (is_readable, model) in keys.items():
                reading = model.reading(vector, now_ms)
                spans[at] = (reading.conflicts if is_readable else 0, reading.conflicts + reading.fading)
            return {at: span for at, span in spans.items() if span[1]}

        def is_right(vector: Sequence[int], now_ms: int) -> bool:
            wanted = expected(vector, now_ms)
            return got.keys() <= wanted.keys() and all(
                least <= got.get(at, 0) <= most for at, (least, most) in wanted.items()
            )

        models = [model for _, model in keys.values()]
        self._values.hold(group, node, f"lists as conflicts {shown(got)}", is_right, expected, models, span)


def _names(type_name: str, value: Any) -> list[Any]:
    return [event["id"] for event in value] if type_name == "event_log" else list(value)
