"""Whatever was written, delivered, expired and asked before: the pages of a key are its reading, and ``has`` agrees with both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.types import REGISTRY
from tests.unit.regions import Regions, op, shop

ELEMENTS = ["a", "b", "a:counter", 1, -2, b"a", ""]
NAMES = ["a", "b", "a:counter", "a-b", ""]
TYPES = ["counter", "aw_set", "lww_register"]


def set_ops(collection: str) -> st.SearchStrategy[dict[str, Any]]:
    names = [name for name in ("add", "remove") if name in REGISTRY[collection].mutators]
    elements = st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=4)
    change = st.builds(lambda name, some: op(collection, "k", name, elements=some), st.sampled_from(names), elements)
    return change | st.just(op(collection, "k", "delete")) if REGISTRY[collection].deletable else change


def nested(path: list[str], amount: int) -> dict[str, Any]:
    arguments = {"counter": {"amount": amount}, "aw_set": {"elements": [amount]}, "lww_register": {"value": amount}}
    name = "set" if path[1] == "lww_register" else "add"
    return op("or_map", "k", name, path=[path], **arguments[path[1]])


names = st.sampled_from(NAMES)
some_names = st.lists(names, min_size=1, max_size=3)
ttls = st.sampled_from([None, 40, 90])
paths = st.tuples(names, st.sampled_from(TYPES)).map(list)
OPS = {
    **{name: set_ops(name) for name in ("aw_set", "g_set", "rw_set")},
    "lww_map": st.builds(
        lambda some, n: op("lww_map", "k", "set", fields=dict.fromkeys(some, n)), some_names, st.integers()
    )
    | st.builds(lambda some: op("lww_map", "k", "unset", fields=some), some_names)
    | st.builds(lambda some, ttl: op("lww_map", "k", "expire", fields=some, ttl_ms=ttl), some_names, ttls),
    "or_map": st.builds(nested, paths, st.integers(0, 3))
    | st.builds(lambda name: op("or_map", "k", "remove", field=name), names)
    | st.builds(lambda path: op("or_map", "k", "delete", path=[path]), paths)
    | st.builds(lambda path, ttl: op("or_map", "k", "expire", path=[path], ttl_ms=ttl), paths, ttls),
    "event_log": st.builds(lambda name, n: op("event_log", "k", "append", id=name, body=n), names, st.integers(0, 1)),
}


def collected(made: Regions, region: str, collection: str, limit: int) -> list[Any]:
    items: list[Any] = []
    after = None
    for _ in range(20):
        body = made.do(region, "members", domain="shop", collection=collection, key="k", limit=limit, after=after)
        items += body["items"]
        after = body["next"]
        if after is None:
            return items
    raise AssertionError("the pages have no end")


def check(made: Regions, region: str, collection: str, limit: int) -> None:
    value = made.do(region, "read", domain="shop", collection=collection, key="k")["value"]
    items = collected(made, region, collection, limit)
    if collection.endswith("_map"):
        assert {item["field"]: item["value"] for item in items} == value
        assert len(items) == len(value)
    else:
        assert items == value
    here = value if collection != "event_log" else [event["id"] for event in value]
    for member in NAMES if collection.endswith(("_map", "log")) else ELEMENTS:
        fields = {"domain": "shop", "collection": collection, "key": "k", "has": member}
        assert made.do(region, "members", **fields)["has"] is (member in here)


@pytest.mark.parametrize("collection", sorted(OPS))
def test_pages_are_the_reading(collection: str) -> None:
    steps = st.tuples(
        st.sampled_from(["us", "eu"]),
        st.lists(OPS[collection], min_size=1, max_size=3),
        st.booleans(),
        st.integers(1, 3),
    )

    @settings(max_examples=60, deadline=None)
    @given(st.lists(steps, min_size=1, max_size=10))
    def run(story: list[tuple[str, list[dict[str, Any]], bool, int]]) -> None:
        made = shop("us", "eu")
        made.do("us", "declare", domain="shop", collection=collection, type=collection)
        made.flush()
        for region, ops, is_delivered, limit in story:
            made.now_ms += 30
            made.commit(region, *ops)
            if is_delivered:
                made.flush()
            check(made, region, collection, limit)
        made.flush()
        for region in ("us", "eu"):
            check(made, region, collection, 2)

    run()
