"""What the types say of themselves: why a value is what it is, what they refuse, what may be declared."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.errors import UsageError
from crdtstore.testing.laws import World, members
from crdtstore.testing.strategies import Call, Deliver, Write
from crdtstore.types import REGISTRY, CrdtType

NAMES = ("us", "eu")
KEY = "k"


def told(name: str, *writes: tuple[str, Call]) -> World:
    """Regions write without hearing of each other, then hear of everything."""
    world = World(REGISTRY[name], members(NAMES))
    for at_ms, (region, call) in enumerate(writes):
        world.step(Write(NAMES.index(region), [(KEY, call)], at_ms))
    for at in range(len(NAMES)):
        world.step(Deliver(at, 0, 99))
    return world


def explained(world: World) -> list[tuple[Any, ...]]:
    view = world.replicas[0].keyspace.view(f"things:{world.crdt.name}", KEY)
    return [
        (write.at, write.live.replica.partition(".")[0], write.live.value, write.counts, write.why)
        for write in world.crdt.explain(view)
    ]


def call(op: str, **arguments: Any) -> Call:
    return Call(op, arguments)


X = {"elements": ["x"]}
EXPLAINED: list[tuple[str, list[tuple[str, Call]], list[tuple[Any, ...]]]] = [
    (
        "lww_register",
        [("us", call("set", value=1)), ("eu", call("set", value=2))],
        [((), "eu", 2, True, "latest of 2 concurrent writes"), ((), "us", 1, False, "concurrent and earlier")],
    ),
    ("lww_register", [("us", call("set", value=1))], [((), "us", 1, True, "the latest write")]),
    (
        "mv_register",
        [("us", call("set", value=1)), ("eu", call("set", value=2))],
        [((), "us", 1, True, "one of 2 concurrent writes"), ((), "eu", 2, True, "one of 2 concurrent writes")],
    ),
    (
        "max_register",
        [("us", call("set", value=1)), ("eu", call("set", value=2))],
        [((), "eu", 2, True, "the greatest value"), ((), "us", 1, False, "not the greatest value")],
    ),
    (
        "counter",
        [("us", call("add", amount=1)), ("us", call("add", amount=2)), ("eu", call("add", amount=5))],
        [((), "us", 3, True, "sum of its region"), ((), "eu", 5, True, "sum of its region")],
    ),
    ("ew_flag", [("us", call("enable"))], [((), "us", True, True, "an enable that no disable has seen")]),
    (
        "dw_flag",
        [("us", call("enable")), ("eu", call("disable"))],
        [
            ((), "eu", False, True, "a disable wins over concurrent enables"),
            ((), "us", True, False, "concurrent to a disable"),
        ],
    ),
    ("g_set", [("us", Call("add", X))], [(("x",), "us", "x", True, "an add, and nothing is removed")]),
    ("aw_set", [("us", Call("add", X))], [(("x",), "us", "x", True, "an add that no remove has seen")]),
    (
        "rw_set",
        [("us", Call("add", X)), ("eu", Call("remove", X))],
        [
            (("x",), "eu", "x", True, "a remove wins over concurrent adds"),
            (("x",), "us", "x", False, "concurrent to a remove"),
        ],
    ),
    (
        "lww_map",
        [("us", call("set", fields={"f": 1})), ("eu", call("set", fields={"f": 2}))],
        [(("f",), "eu", 2, True, "latest of 2 concurrent writes"), (("f",), "us", 1, False, "concurrent and earlier")],
    ),
    (
        "event_log",
        [("us", call("append", id="e", body=1)), ("eu", call("append", id="e", body=2))],
        [
            (("e",), "us", 1, True, "the first with this id"),
            (("e",), "eu", 2, False, "another body under the same id"),
        ],
    ),
    (
        "or_map",
        [
            ("us", Call("set", {"value": "a"}, (("f", "lww_register"),))),
            ("eu", Call("add", {"amount": 2}, (("f", "counter"),))),
        ],
        [
            (("f:counter",), "eu", 2, True, "sum of its region"),
            (("f:lww_register",), "us", "a", False, 'another type serves under the name "f"'),
        ],
    ),
]


@pytest.mark.parametrize(("name", "writes", "expected"), EXPLAINED, ids=lambda value: str(value)[:20])
def test_why_a_value_is_what_it_is(name: str, writes: Any, expected: Any) -> None:
    assert explained(told(name, *writes)) == expected


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_was_never_written_reads_as_empty(name: str) -> None:
    crdt = REGISTRY[name]
    value, exists, conflicts = told(name).replicas[0].reading(crdt, KEY)
    assert (list(value) if isinstance(crdt.empty, tuple) else value) == (crdt.empty if crdt.empty != () else [])
    assert (exists, conflicts, explained(told(name))) == (False, 0, [])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_type_says_what_it_is_for(name: str) -> None:
    crdt = REGISTRY[name]
    assert crdt.question.endswith("?")
    assert all(mutator.doc for mutator in crdt.mutators.values())
    assert ("expire" in crdt.mutators) == crdt.deletable


@pytest.mark.parametrize("name", ["max_register", "min_register"])
@pytest.mark.parametrize(("first", "other", "says"), [(1, "a", "must be an integer"), ("a", 1, "must be text")])
def test_integers_and_text_do_not_meet_where_it_can_be_seen(name: str, first: Any, other: Any, says: str) -> None:
    crdt = REGISTRY[name]
    view = told(name, ("us", call("set", value=first))).replicas[0].keyspace.view(f"things:{name}", KEY)
    with pytest.raises(UsageError, match=says) as refused:
        crdt.mutators["set"].effects(crdt, view, value=other)
    assert refused.value.code == "invalid-value"
    assert "Nothing changed." in refused.value.detail


def test_where_integers_and_text_met_all_the_same_text_is_greater() -> None:
    writes = [("us", call("set", value=7)), ("eu", call("set", value="a"))]
    assert told("max_register", *writes).replicas[1].reading(REGISTRY["max_register"], KEY)[0] == "a"
    assert told("min_register", *writes).replicas[1].reading(REGISTRY["min_register"], KEY)[0] == 7


# --- declared fields of a map

MAP: CrdtType = REGISTRY["or_map"]


def test_fields_are_declared_by_name_and_type() -> None:
    given = {"fields": {"visits": "counter", "a:b": "or_map"}}
    assert MAP.check_options(given) == {"fields": {"a:b": "or_map", "visits": "counter"}}
    assert MAP.check_options({}) == {"fields": {}}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (["visits"], "must be a map"),
        ({"f": "bounded_counter"}, "must be one of"),
        ({"f": "no_such_type"}, "must be one of"),
        ({"f": ["counter"]}, "must be one of"),
        ({1: "counter"}, "must be text"),
        ({"\ud800": "counter"}, "valid Unicode"),
        ({f"f{at}": "counter" for at in range(1_001)}, "at most 1,000"),
    ],
)
def test_what_cannot_be_a_field_is_refused(fields: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        MAP.check_options({"fields": fields})
    assert refused.value.code == "invalid-value"
    assert "Nothing changed." in refused.value.detail


def test_a_declared_field_is_removed_also_where_it_was_not_seen() -> None:
    """The drop of what is not there costs one effect, and says the same in every region."""
    world = World(MAP, members(NAMES))
    keyspace = world.replicas[0].keyspace
    declared = keyspace.view("things:or_map", KEY, options={"fields": {"f": "counter"}})
    bare = keyspace.view("things:or_map", KEY)
    remove = MAP.mutators["remove"]
    assert remove.effects(MAP, declared, field="f") == [0, ["f:counter"], None]
    assert remove.effects(MAP, bare, field="f") == []


def test_names_of_fields_may_hold_colons() -> None:
    world = told("or_map", ("us", Call("add", {"amount": 2}, (("a:b", "counter"),))))
    assert world.replicas[0].reading(MAP, KEY)[0] == {"a:b": 2}
    assert world.replicas[1].reading(MAP, KEY)[0] == {"a:b": 2}
