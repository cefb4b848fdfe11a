"""The handles written out say what the registry says, and ops on them go over the wire as the API shows."""

import gc
import inspect
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from crdtstore.types import REGISTRY
from crdtstore_client import Collection, Counter, Domain, UsageError, connect
from crdtstore_client.handles import HANDLES
from crdtstore_client.handles.or_map import NESTED
from crdtstore_client.ops import check_op_id, new_op_id
from tests.client.fakes import US, FakeCluster

_KIND_OF_LISTS = {"elements", "names"}
_READING = {"decode", "delete", "explain", "get", "op", "read"}
_PAGED = {
    "aw_set": {"has", "members"},
    "event_log": {"members"},
    "g_set": {"has", "members"},
    "lww_map": {"members"},
    "or_map": {"field", "members"} | set(NESTED),
    "rw_set": {"has", "members"},
}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_handle_has_the_mutators_of_the_registry(name: str) -> None:
    assert name in HANDLES, f"the client has no handle for {name}: a class in handles/, a method in catalogue.py"
    crdt, handle = REGISTRY[name], HANDLES[name]
    methods = {m for m, _ in inspect.getmembers(handle, inspect.isfunction) if not m.startswith("_")}
    assert methods - _READING - _PAGED.get(name, set()) == set(crdt.mutators)
    for mutator in crdt.mutators.values():
        parameters = list(inspect.signature(getattr(handle, mutator.name)).parameters.values())[1:]
        assert [p.name for p in parameters] == [a.name.removesuffix("_ms") for a in mutator.arguments]
        for parameter, argument in zip(parameters, mutator.arguments, strict=True):
            if argument.kind in _KIND_OF_LISTS:
                assert parameter.kind is inspect.Parameter.VAR_POSITIONAL
            elif argument.required:
                assert parameter.default is inspect.Parameter.empty
            else:
                assert parameter.default == argument.default


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_words_about_a_handle_begin_with_the_question_of_its_type(name: str) -> None:
    for described in (HANDLES[name], getattr(Domain, name)):
        assert (inspect.getdoc(described) or "").startswith(REGISTRY[name].question), described


def test_a_domain_has_one_method_per_type() -> None:
    assert set(HANDLES) == set(REGISTRY), "handles/ has one class per type, named in HANDLES"
    domain = connect(US, transport=FakeCluster()).domain("shop")
    for name in REGISTRY:
        made = getattr(domain, name, None)
        assert made is not None, f"catalogue.py has no method for {name}"
        assert type(made("x")["y"]) is HANDLES[name]
        assert type(domain.collection("x", name)["y"]) is HANDLES[name]


def test_a_map_has_one_method_per_type_that_nests() -> None:
    assert set(NESTED) == {name for name, crdt in REGISTRY.items() if crdt.nestable}
    handle = connect(US, transport=FakeCluster()).domain("shop").or_map("customers")["c-42"]
    for name in NESTED:
        assert type(getattr(handle, name)("field")) is HANDLES[name], f"handles/or_map.py has no method for {name}"
        assert type(handle.field("field", name)) is HANDLES[name]


async def store_of(cluster: FakeCluster) -> Domain:
    store = await connect(US, transport=cluster)
    shop = store.domain("shop")
    for name in REGISTRY:
        await shop.declare(name, name)
    return shop


async def test_ops_and_values_of_all_types() -> None:
    shop = await store_of(cluster := FakeCluster())
    orders = shop.counter("counter")["de"]
    assert (await orders.add()).value == 1
    assert (await orders.add(amount=-3)).value == -2
    assert await orders.get() == -2
    assert (await orders.delete()).value is None
    assert await orders.get() == 0

    tags = shop.aw_set("aw_set")["c-1"]
    assert (await tags.add("vip", "new", 7, b"\x00")).value is None
    await tags.remove("new")
    assert await tags.get() == frozenset(["vip", 7, b"\x00"])

    name = shop.lww_register("lww_register")["c-1"]
    assert await name.get() is None
    assert (await name.set({"a": [1, None]})).value == {"a": [1, None]}

    profile = shop.lww_map("lww_map")["c-1"]
    await profile.set({"name": "Ada", "age": 36})
    await profile.unset("age", "never")
    assert await profile.get() == {"name": "Ada"}

    log = shop.event_log("event_log")["c-1"]
    await log.append("e1", {"what": "created"})
    await log.append("e2")
    assert [(event["id"], event["body"]) for event in await log.get()] == [("e1", {"what": "created"}), ("e2", None)]
    assert [write.body["ops"][0]["op"] for write in cluster.writes[-2:]] == ["append", "append"]  # type: ignore[index]


async def test_a_reading_tells_what_the_node_knows() -> None:
    shop = await store_of(FakeCluster())
    reading = await shop.counter("counter")["de"].read()
    assert (reading.value, reading.exists, reading.region, reading.staleness) == (0, False, "us", 0.041)
    assert reading.etag == '"9f3a"'


async def test_integers_of_any_size() -> None:
    shop = await store_of(FakeCluster())
    big = 1 << 2000
    assert (await shop.counter("counter")["de"].add(big)).value == big
    assert await shop.counter("counter")["de"].get() == big


@dataclass
class Customer:
    name: str
    visits: int


async def test_values_in_the_users_own_types() -> None:
    shop = await store_of(FakeCluster())
    ids = shop.aw_set("aw_set", UUID)["x"]
    one = UUID("0199d8a0-0000-7000-8000-000000000001")
    await ids.add(one)
    assert await ids.get() == {one}

    ada = shop.lww_register("lww_register", Customer)["ada"]
    ack = await ada.set(Customer("Ada", 3))
    assert ack.value == Customer("Ada", 3)
    assert await ada.get() == Customer("Ada", 3)
    assert await shop.lww_register("lww_register")["ada"].get() == {"name": "Ada", "visits": 3}

    record = shop.lww_map("lww_map", dict[str, int])["x"]
    await record.set({"a": 1})
    assert await record.get() == {"a": 1}
    await shop.lww_map("lww_map")["x"].set({"a": "text"})
    with pytest.raises(UsageError, match="shop/lww_map/x does not hold what this handle was made for"):
        await record.get()


async def test_a_handle_of_another_type_than_the_collection() -> None:
    shop = await store_of(FakeCluster())
    with pytest.raises(UsageError, match="type-mismatch: shop/counter is declared as counter, not as aw_set"):
        await shop.aw_set("counter")["x"].get()


@pytest.mark.parametrize("amount", [1.5, True, "3", None])
def test_a_wrong_argument_fails_where_it_is_written(amount: Any) -> None:
    orders = connect(US, transport=FakeCluster()).domain("shop").counter("orders")
    with pytest.raises(UsageError, match=r"amount must be an integer, got .*Nothing changed"):
        orders["de"].add(amount)


def test_what_a_type_cannot_do() -> None:
    shop = connect(US, transport=FakeCluster()).domain("shop")
    with pytest.raises(UsageError, match="not-deletable"):
        shop.event_log("log")["x"].delete()
    with pytest.raises(UsageError, match="counter has no operation 'remove'; it has add, expire, delete"):
        shop.counter("orders")["de"].op("remove")
    with pytest.raises(UsageError, match="text, an integer or bytes"):
        shop.aw_set("tags")["x"].add(1.0)
    with pytest.raises(UsageError, match="at least one item"):
        shop.aw_set("tags")["x"].add()
    with pytest.raises(UsageError, match="no handle for a type 'set'; it has aw_set"):
        shop.collection("tags", "set")


@pytest.mark.parametrize("key", ["", "\ud800", 7, None])
def test_keys_that_cannot_stand_in_a_path(key: Any) -> None:
    orders: Collection[Counter] = connect(US, transport=FakeCluster()).domain("shop").counter("orders")
    with pytest.raises(UsageError, match="the key must"):
        orders[key]


async def test_an_op_that_was_never_sent_warns() -> None:
    shop = await store_of(FakeCluster())
    orders = shop.counter("counter")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        orders["de"].add(3)
        gc.collect()
    assert [(w.category, str(w.message)) for w in caught] == [
        (RuntimeWarning, "op add on shop/counter/de was never sent")
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await orders["de"].add(3)
        orders["de"].add(4).discard()
        with pytest.raises(UsageError):
            await shop.commit(orders["de"].add(3), orders["fr"].add(3))
        gc.collect()
    assert caught == []


def test_operation_ids() -> None:
    ids = [new_op_id() for _ in range(100)]
    assert len(set(ids)) == 100
    for text in ids:
        assert text[0] == "~"
        assert UUID(text[1:]).version == 7
        assert UUID(text[1:]).variant == "specified in RFC 4122"
        assert check_op_id(text) == text
    for wrong in ("", "~mine", "x" * 129, "a\nb", "\ud800", " a"):
        with pytest.raises(UsageError, match="an id "):
            check_op_id(wrong)


def test_importing_is_cheap() -> None:
    program = (
        "import sys, time; begun = time.perf_counter(); import crdtstore_client; "
        "print(f'{(time.perf_counter() - begun) * 1000:.0f} ms', "
        "[m for m in ('aiohttp', 'rich', 'click', 'crdtstore_node', 'uvloop') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    print("import crdtstore_client:", run.stdout)
    assert run.stdout.rstrip().endswith("[]")
