"""Shards: keys stay where they are for ever, and nobody who does not commit across shards can tell that there are several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.declarations import DOMAINS, declared_groups
from crdtstore.engine.events import Draft, Op
from crdtstore.errors import ReplicaBehind, UsageError
from crdtstore.service import PeerChanged
from crdtstore.shards import MAX_SHARDS, Division, shard_of
from crdtstore.tokens import Tokens
from crdtstore.types import REGISTRY
from tests.unit.regions import Regions, op, shop

KEYS = ["", "de", "fr", "k", "sku-7", "ž/?", "☃", "a b", "x" * 60]
ALL = ("us", "eu", "ap")


def sharded(*regions: str, shards: int = 8, **options: Any) -> Regions:
    """As ``shop``, with so many shards."""
    made = Regions(*(regions or ALL), **options)
    made.do(next(iter(made.services)), "declare_domain", domain="shop", shards=shards)
    return _with_collections(made)


def _with_collections(made: Regions) -> Regions:
    types = {
        "n": "counter",
        "reg": "lww_register",
        "mv": "mv_register",
        "tags": "aw_set",
        "map": "or_map",
        "stock": "bounded_counter",
    }
    for name, type_name in types.items():
        made.do(next(iter(made.services)), "declare", domain="shop", collection=name, type=type_name)
    made.settle(500)
    return made


def apart(made: Regions, *regions: str) -> None:
    """Nobody hears these regions, nor do they hear anybody."""
    for region in regions:
        for other in made.services:
            if other != region:
                made.step(region, PeerChanged(made.replicas[other], False))
                made.step(other, PeerChanged(made.replicas[region], False))
    made.lose()


def together(made: Regions) -> None:
    for region in made.services:
        for other in made.services:
            if other != region:
                made.step(region, PeerChanged(made.replicas[other], True))
    made.settle(3_000)


def listed(
    made: Regions, region: str, collection: str, domain: str = "shop", limit: int = 100, **fields: Any
) -> list[tuple[str, Any]]:
    """All of a collection, page by page."""
    found, after = [], ""
    while True:
        page = made.do(
            region, "list", domain=domain, collection=collection, values=True, limit=limit, after=after, **fields
        )
        assert len(page["items"]) <= limit
        found += [(item["key"], item["value"]) for item in page["items"]]
        if page["next"] is None:
            return found
        after = page["next"]


def same_everywhere(made: Regions) -> None:
    """Law L1, group by group."""
    for group in next(iter(made.services.values())).host.groups:
        engines = [service.host.groups[group] for service in made.services.values()]
        assert len({tuple(engine.durability.vector) for engine in engines}) == 1, group
        assert len({engine.digest for engine in engines}) == 1, group


# --- where a key is


@pytest.mark.parametrize(
    ("collection", "key", "of_2", "of_3", "of_8", "of_256"),
    [
        ("orders", "de", 1, 2, 3, 243),
        ("orders", "fr", 0, 0, 4, 220),
        ("stock", "sku-7", 1, 2, 1, 169),
        ("stock", "de", 0, 0, 6, 254),
        ("o", "ключ/☃:1", 1, 0, 1, 65),
        ("orders", "x" * 512, 0, 1, 2, 162),
    ],
)
def test_where_a_key_is_never_changes(collection: str, key: str, of_2: int, of_3: int, of_8: int, of_256: int) -> None:
    assert [shard_of(collection, key, shards) for shards in (1, 2, 3, 8, 256)] == [0, of_2, of_3, of_8, of_256]


def test_it_is_a_hash_of_two_texts_in_msgpack() -> None:
    assert shard_of("orders", "de", 251) == xxh3_64_intdigest(b"\x92\xa6orders\xa2de") % 251
    assert Division.of("shop", 251).shard_of("orders@counter", "de") == shard_of("orders", "de", 251), (
        "whatever its type"
    )


def test_keys_spread_evenly() -> None:
    counts = [0] * 16
    for at in range(16_000):
        counts[shard_of("orders", f"key-{at}", 16)] += 1
    assert 850 < min(counts) <= max(counts) < 1_150


# --- declared


def test_a_domain_gets_its_shards_when_it_is_declared_and_keeps_them() -> None:
    made = sharded(shards=4)
    for region in ALL:
        assert sorted(made.services[region].host.groups) == ["_sys/0", "shop/0", "shop/1", "shop/2", "shop/3"]
        assert made.do(region, "domain", domain="shop")["shards"] == 4
    applied = list(made.services["us"].host.groups[SYSTEM_GROUP].applied)
    assert made.do("us", "declare_domain", domain="shop", shards=4)["shards"] == 4
    assert made.do("us", "declare_domain", domain="shop")["shards"] == 4, "what is not named is not changed"
    assert made.services["us"].host.groups[SYSTEM_GROUP].applied == applied, "and no commit is made"
    error = made.refused("eu", "declare_domain", domain="shop", shards=8, owner="me")
    assert (error.code, error.status) == ("type-mismatch", 409)
    assert "has 4 shards, not 8" in error.detail
    changed = made.do("eu", "declare_domain", domain="shop", owner="team", shards=4)
    assert (changed["owner"], changed["shards"]) == ("team", 4)
    made.settle()
    assert made.do("us", "domain", domain="shop")["owner"] == "team"


@pytest.mark.parametrize("shards", [0, -1, MAX_SHARDS + 1, 1.5, True, "4", None])
def test_a_domain_has_1_to_256_shards(shards: Any) -> None:
    made = Regions("us")
    assert made.refused("us", "declare_domain", domain="shop", shards=shards).code == "bad-request"
    assert list(made.services["us"].host.groups) == ["_sys/0"]


def test_without_a_number_there_is_one() -> None:
    made = shop("us")
    assert made.do("us", "domain", domain="shop")["shards"] == 1
    assert made.refused("us", "declare_domain", domain="shop", shards=2).code == "type-mismatch"
    assert made.do("us", "declare_domain", domain="most", shards=MAX_SHARDS)["shards"] == MAX_SHARDS
    assert made.services["us"].status(made.now_ms)["domains"] == {"most": MAX_SHARDS, "shop": 1}


def test_there_are_not_more_groups_than_nodes_can_hold() -> None:
    made = Regions("us")
    for at in range(16):
        made.do("us", "declare_domain", domain=f"d{at}", shards=MAX_SHARDS)
    error = made.refused("us", "declare_domain", domain="more")
    assert error.code == "too-large"
    assert "at most 4096 shards; there are 4096" in error.detail


def test_a_domain_whose_declaration_was_lost_is_declared_with_the_groups_that_are_there() -> None:
    made = Regions("us")
    made.services["us"].host.open("shop/5")
    error = made.refused("us", "declare_domain", domain="shop", shards=4)
    assert error.code == "type-mismatch"
    assert "was declared with more than 5 shards" in error.detail
    assert made.do("us", "declare_domain", domain="shop", shards=6)["shards"] == 6


def test_shards_share_what_a_domain_may_take() -> None:
    made = Regions("us", history_bytes=1 << 20, early_bytes=2_048)
    made.do("us", "declare_domain", domain="shop", shards=8)
    made.do("us", "declare_domain", domain="crm")
    groups = made.services["us"].host.groups
    limits = {name: (engine.options.history_bytes, engine.options.early_bytes) for name, engine in groups.items()}
    assert limits["shop/0"] == limits["shop/7"] == (1 << 17, 1_024)
    assert limits["crm/0"] == limits["_sys/0"] == (1 << 20, 2_048)
    assert groups["shop/3"].options.window_bytes == groups["crm/0"].options.window_bytes


def test_a_point_in_time_knows_the_groups_that_a_commit_declares() -> None:
    assert declared_groups(["domains:lww_map", "shop", "shards"], 2) == ("shop/0", "shop/1")
    assert declared_groups(["domains:lww_map", "shop", "owner"], 3) == ("shop/0",)
    assert declared_groups(["domains:lww_map", "shop"], None) == ("shop/0",)


# --- commits


def test_a_commit_stays_in_one_shard() -> None:
    made = sharded("us")
    where = {key: shard_of("n", key, 8) for key in map(str, range(40))}
    first, second = next((a, b) for a in where for b in where if a != b and where[a] == where[b])
    other = next(key for key in where if where[key] != where[first])
    before = {name: list(engine.applied) for name, engine in made.services["us"].host.groups.items()}
    ops = [op("n", first, "add"), op("n", other, "add"), op("n", second, "add")]
    error = made.refused("us", "commit", domain="shop", ops=ops)
    assert (error.code, error.status) == ("cross-shard", 422)
    assert error.more["shards"] == [where[first], where[other], where[first]]
    assert (
        f"op 0 (n/{first}), op 2 (n/{second}) in shard {where[first]}; op 1 (n/{other}) in shard {where[other]}"
        in error.detail
    )
    assert error.detail.endswith("Nothing changed.")
    assert {name: list(engine.applied) for name, engine in made.services["us"].host.groups.items()} == before
    many = made.refused("us", "commit", domain="shop", ops=[op("n", key, "add") for key in where])
    assert "more in shard" in many.detail
    assert "the others in 5 more" in many.detail
    both = made.do("us", "commit", domain="shop", ops=[ops[0], ops[2]])
    assert both["values"] == [1, 1]
    assert made.do("us", "read", domain="shop", collection="n", key=other)["exists"] is False


def test_what_is_wrong_with_an_op_is_said_before_where_it_is() -> None:
    made = sharded("us")
    for ops, code in (
        ([op("n", "a", "add"), op("n", "", "add")], "bad-request"),
        ([op("n", "a", "add"), {"op": "add"}], "bad-request"),
        ([op("n", "a", "add"), op("nowhere", "b", "add")], "not-declared"),
    ):
        assert made.refused("us", "commit", domain="shop", ops=ops).code == code
        token = Tokens(made.cluster.nonce).encode({"shop/0": {made.replicas["us"]: 0}})
        assert made.refused("us", "commit", domain="shop", ops=ops, token=token).code == code


def test_a_retry_counts_once_and_an_etag_is_compared_in_the_shard_of_its_key() -> None:
    made = sharded("us", "eu")
    first = made.commit("us", op("n", "de", "add", amount=3), id="once")
    made.settle(500)
    again = made.commit("eu", op("n", "de", "add", amount=3), id="once")
    assert (again["replayed"], again["dot"], again["values"]) == (True, first["dot"], [3])
    etag = made.do("eu", "read", domain="shop", collection="n", key="de")["etag"]
    assert made.commit("eu", op("n", "de", "add", if_match=etag))["values"] == [4]
    assert (
        made.refused("eu", "commit", domain="shop", ops=[op("n", "de", "add", if_match=etag)]).code
        == "precondition-failed"
    )


def test_rights_move_within_the_shard_of_their_key() -> None:
    made = sharded()
    for key in ("sku-1", "sku-2", "sku-3", "sku-4"):
        made.commit("us", op("stock", key, "grant", amount=10))
    made.settle(500)
    for key in ("sku-1", "sku-2", "sku-3", "sku-4"):
        ticket = made.ask("ap", "commit", domain="shop", ops=[op("stock", key, "consume", amount=4)])
        made.settle(1_000)
        assert made.reply(ticket)["values"] == [6]
    assert (
        made.refused("ap", "commit", domain="shop", ops=[op("stock", "sku-1", "consume", amount=7)], wait_ms=0).code
        == "insufficient-rights"
    )
    made.settle(500)
    assert listed(made, "eu", "stock") == [(f"sku-{at}", 6) for at in range(1, 5)]
    same_everywhere(made)


# --- sessions


def test_a_token_names_the_groups_that_were_touched() -> None:
    made = sharded("us", "eu")
    made.step("us", PeerChanged(made.replicas["eu"], False))
    tokens = Tokens(made.cluster.nonce)
    division = Division.of("shop", 8)
    written = made.commit("us", op("n", "de", "add"))
    assert set(tokens.decode(written["token"])) == {division.group_of("n", "de")}
    read = made.do("us", "read", domain="shop", collection="n", key="fr", token=written["token"])
    assert set(tokens.decode(read["token"])) == {division.group_of("n", "de")}, "nothing is in the other shard yet"
    made.commit("us", op("n", "fr", "add"))
    read = made.do("us", "read", domain="shop", collection="n", key="fr")
    assert set(tokens.decode(read["token"])) == {division.group_of("n", "fr")}
    for do, fields in (("list", {"collection": "n"}), ("conflicts", {})):
        shown = made.do("us", do, domain="shop", **fields)
        assert set(tokens.decode(shown["token"])) == {division.group_of("n", key) for key in ("de", "fr")}


def test_a_request_waits_for_its_own_shard_only() -> None:
    made = sharded("us", "eu")
    apart(made, "eu")
    token = made.commit("us", op("n", "de", "add"))["token"]
    other = next(key for key in map(str, range(100)) if shard_of("n", key, 8) != shard_of("n", "de", 8))
    same = next(key for key in map(str, range(100)) if shard_of("n", key, 8) == shard_of("n", "de", 8))
    assert made.do("eu", "read", domain="shop", collection="n", key=other, token=token)["value"] == 0
    assert made.commit("eu", op("n", other, "add"), token=token)["values"] == [1]
    waiting = [
        made.ask("eu", "read", domain="shop", collection="n", key="de", token=token),
        made.ask("eu", "read", domain="shop", collection="n", key=same, token=token),
        made.ask("eu", "commit", domain="shop", ops=[op("n", "de", "add")], token=token),
        made.ask("eu", "list", domain="shop", collection="n", token=token),
        made.ask("eu", "conflicts", domain="shop", token=token),
        made.ask("eu", "members", domain="shop", collection="tags", key="no", token=token),
    ]
    made.sync()
    asleep = [made.answer(ticket) is None for ticket in waiting]
    assert asleep == [True, True, True, True, True, shard_of("tags", "no", 8) == shard_of("n", "de", 8)]
    together(made)
    made.sync()
    assert made.reply(waiting[0])["value"] == 1
    assert made.reply(waiting[2])["values"] == [2]
    assert [item["key"] for item in made.reply(waiting[3])["items"]] == sorted(["de", other])


def test_a_token_of_a_domain_that_is_not_known_yet() -> None:
    made = Regions("us", "eu")
    apart(made, "eu")
    made.do("us", "declare_domain", domain="shop", shards=8)
    _with_collections(made)
    token = made.commit("us", op("n", "de", "add"))["token"]
    error = made.ask("eu", "read", domain="shop", collection="n", key="de", token=token, wait_ms=50)
    ticket = made.ask("eu", "read", domain="shop", collection="n", key="de", token=token, wait_ms=60_000)
    made.tick(100)
    assert isinstance(made.error(error), ReplicaBehind)
    together(made)
    made.sync()
    assert made.reply(ticket)["value"] == 1


# --- lists


@settings(max_examples=25, deadline=None)
@given(
    keys=st.sets(st.text("abc/ž", min_size=1, max_size=4), max_size=60),
    shards=st.sampled_from([1, 2, 5, 16]),
    limit=st.integers(1, 20),
    prefix=st.text("ab", max_size=2),
    after=st.text("abc", max_size=2),
)
def test_pages_of_all_shards_are_in_the_order_of_keys(
    keys: set[str], shards: int, limit: int, prefix: str, after: str
) -> None:
    made = Regions("us")
    made.do("us", "declare_domain", domain="shop", shards=shards)
    made.do("us", "declare", domain="shop", collection="n", type="counter")
    gone = {key for key in keys if len(key) == 3}
    for key in sorted(keys):
        made.commit("us", op("n", key, "add", amount=len(key)))
    for key in sorted(gone):
        made.commit("us", op("n", key, "delete"))
    wanted = sorted((key, len(key)) for key in keys - gone)
    assert listed(made, "us", "n", limit=limit) == wanted
    page = made.do("us", "list", domain="shop", collection="n", prefix=prefix, after=after, limit=1_000)
    assert [item["key"] for item in page["items"]] == [
        key for key, _ in wanted if key.startswith(prefix) and key > after
    ]


def test_a_page_of_conflicts_goes_over_all_shards() -> None:
    made = sharded("us", "eu")
    keys = [f"k{at}" for at in range(30)]
    for key in keys:
        for region in ("us", "eu"):
            made.commit(region, op("reg", key, "set", value=region))
            made.commit(region, op("mv", key, "set", value=region))
    made.settle()
    found, after = list[Any](), None
    while True:
        page = made.do("us", "conflicts", domain="shop", limit=7, after=after)
        found += [(item["collection"], item["key"]) for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == [(name, key) for name in ("mv", "reg") for key in sorted(keys)]


# --- as if there were one

_OPS: list[Callable[[int], dict[str, Any]]] = [
    lambda at: {"collection": "n", "op": "add", "amount": at + 1},
    lambda at: {"collection": "reg", "op": "set", "value": at},
    lambda at: {"collection": "mv", "op": "set", "value": at},
    lambda at: {"collection": "tags", "op": "add", "elements": [at % 5]},
    lambda at: {"collection": "tags", "op": "remove", "elements": [at % 5]},
    lambda at: {"collection": "map", "op": "add", "path": [["n", "counter"]], "amount": 1},
    lambda at: {"collection": "stock", "op": "grant", "amount": 5},
    lambda at: {"collection": "stock", "op": "consume", "amount": 1},
    lambda at: {"collection": "n", "op": "delete"},
    lambda at: {"collection": "mv", "op": "delete"},
    lambda at: {"collection": "tags", "op": "expire", "ttl_ms": 40 * at + 1},
]
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, len(_OPS) - 1), st.integers(1, 6)),
        st.sampled_from(["meet", "cut", "join"]),
    ),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(steps=_STEPS, shards=st.integers(2, 9))
def test_nobody_can_tell_that_there_are_several(steps: Sequence[Any], shards: int) -> None:
    """The same ops at the same times in a domain of one shard and of several: what can be read is the same."""
    made = [sharded(shards=1), sharded(shards=shards)]
    for at, step in enumerate(steps):
        for each in made:
            each.now_ms += 1  # or the counters below a millisecond would order what is concurrent
            if step == "meet":
                each.settle(300)
            elif step == "cut":
                apart(each, "ap")
            elif step == "join":
                together(each)
            else:
                region, which, key = step
                fields = {**_OPS[which](at), "key": KEYS[key]}
                ticket = each.ask(ALL[region], "commit", domain="shop", ops=[fields], wait_ms=0)
                each.sync(ALL[region])
                assert each.answer(ticket) is not None
        for region in ALL:
            assert seen(made[0], region) == seen(made[1], region), (at, step, region)
    for each in made:
        together(each)
        same_everywhere(each)
    for region in ALL:
        assert seen(made[0], region) == seen(made[1], region)


def seen(made: Regions, region: str) -> list[Any]:
    """What a region shows of all keys, less what only says who wrote it."""
    found: list[Any] = [listed(made, region, name) for name in ("n", "reg", "mv", "tags", "map", "stock")]
    found.append(made.do(region, "conflicts", domain="shop")["items"])
    for key in KEYS[1:3]:
        body = made.do(region, "read", domain="shop", collection="tags", key=key)
        found.append({name: body[name] for name in ("value", "exists", "conflicts")})
        found.append(made.do(region, "members", domain="shop", collection="tags", key=key)["items"])
    return found


# --- two numbers


def clashing(first: int, second: int, cut: Sequence[str] = ("eu",)) -> Regions:
    """``us`` declares the domain first, ``eu`` a moment later, and neither hears of the other; then both write."""
    made = Regions("us", "eu", "ap")
    apart(made, *cut)
    made.do("us", "declare_domain", domain="shop", shards=first)
    made.do("us", "declare", domain="shop", collection="n", type="counter")
    made.now_ms += 5
    made.do("eu", "declare_domain", domain="shop", shards=second, owner="eu")
    made.do("eu", "declare", domain="shop", collection="n", type="counter")
    for at in range(24):
        made.commit("us", op("n", f"k{at}", "add", amount=100))
        made.commit("eu", op("n", f"k{at}", "add", amount=1))
    assert made.do("us", "domain", domain="shop")["shards"] == first
    assert made.do("eu", "domain", domain="shop")["shards"] == second
    return made


@pytest.mark.parametrize(("first", "second"), [(4, 8), (8, 4), (3, 5), (1, 6), (6, 1)])
def test_of_two_numbers_the_earlier_serves_and_nothing_is_lost(first: int, second: int) -> None:
    made = clashing(first, second)
    together(made)
    keys = [f"k{at}" for at in range(24)]
    where = {key: (shard_of("n", key, first), shard_of("n", key, second)) for key in keys}
    for region in ALL:
        groups = made.services[region].host.groups
        assert sorted(groups) == sorted(["_sys/0", *Division.of("shop", max(first, second)).groups])
        assert made.do(region, "domain", domain="shop")["shards"] == first
        assert made.do(region, "domain", domain="shop")["owner"] == "eu", (
            "who declared later has the last word on the rest"
        )
        served = dict(listed(made, region, "n", limit=5))
        other = dict(listed(made, region, "n", f"shop@{second}", limit=5))
        assert listed(made, region, "n", f"shop@{first}", limit=5) == sorted(served.items())
        assert sorted(served) == sorted(other) == sorted(keys)
        for key, (here, there) in where.items():
            assert served[key] == (101 if here == there else 100), "in one group: both are there; else each in its own"
            assert other[key] == (101 if here == there else 1)
            for name, value in ((f"shop@{second}", other[key]), ("shop", served[key])):
                assert made.do(region, "read", domain=name, collection="n", key=key)["value"] == value
                assert made.do(region, "explain", domain=name, collection="n", key=key)["value"] == value
        clashes = [{"collection": None, "serves": first, "also": [second]}]
        assert made.do(region, "conflicts", domain="shop")["declarations"] == clashes
        assert made.do(region, "members_status")["shards"] == [{"domain": "shop", "serves": first, "also": [second]}]
        assert made.refused(region, "declare_domain", domain="shop", shards=second).code == "type-mismatch"
    for key in keys:  # what is missing is written again
        if where[key][0] != where[key][1]:
            made.commit("ap", op("n", key, "add", amount=1))
    made.settle()
    assert listed(made, "eu", "n") == sorted((key, 101) for key in keys)
    same_everywhere(made)


def test_only_readings_name_a_number() -> None:
    made = clashing(4, 8)
    together(made)
    for do, fields in (
        ("commit", {"ops": [op("n", "k", "add")]}),
        ("declare", {"collection": "m", "type": "counter"}),
        ("declare_domain", {}),
        ("domain", {}),
        ("collection", {"collection": "n"}),
    ):
        assert made.refused("us", do, domain="shop@8", **fields).code == "bad-request", do
    for number, code in (
        ("9", "not-declared"),
        ("08", "not-declared"),
        ("", "bad-request"),
        ("x", "bad-request"),
        ("٨", "bad-request"),
    ):
        error = made.refused("us", "read", domain=f"shop@{number}", collection="n", key="k")
        assert error.code == code, number
    assert "is not declared with 9 shards" in made.refused("us", "list", domain="shop@9", collection="n").detail
    assert isinstance(made.refused("us", "conflicts", domain="@8"), UsageError)


def test_who_was_cut_off_from_both_takes_over_both() -> None:
    made = clashing(2, 5, cut=("eu", "ap"))
    together(made)
    assert listed(made, "ap", "n", "shop@5") == listed(made, "eu", "n", "shop@5")
    same_everywhere(made)


def test_a_session_waits_for_the_shard_that_serves_then() -> None:
    """While it waits for the declaration to come it turns out that another one serves, so that its key is elsewhere."""
    made = clashing(4, 6)
    key = next(f"k{at}" for at in range(24) if shard_of("n", f"k{at}", 4) != shard_of("n", f"k{at}", 6))
    declared = made.do("us", "declare_domain", domain="shop")["token"]  # as clients do, once per session
    token = made.commit("us", op("n", key, "add"), token=declared)["token"]
    ticket = made.ask("eu", "read", domain="shop", collection="n", key=key, token=token, wait_ms=60_000)
    write = made.ask("eu", "commit", domain="shop", ops=[op("n", key, "add")], token=token, wait_ms=60_000)
    together(made)
    made.sync()
    assert made.reply(ticket)["value"] == 101
    assert made.reply(write)["values"] == [102]


def test_what_no_number_can_be_is_passed_over() -> None:
    """A later version may allow more; what it declared is kept, and serves nowhere here."""
    made = Regions("us")
    system = made.services["us"].host.groups[SYSTEM_GROUP]
    crdt = REGISTRY["lww_map"]
    fields = {"owner": None, "shards": 1_000}
    declare = Op(crdt, DOMAINS, "shop", crdt.mutators["set"], {"fields": fields})
    made.services["us"].host.commit(SYSTEM_GROUP, [Draft(99_999, [declare], "later")], made.now_ms, made.output)
    assert system.applied == [1]
    assert made.services["us"].host.declarations.numbers("shop") == [1]
    assert list(made.services["us"].host.groups) == ["_sys/0", "shop/0"]
    assert made.do("us", "domain", domain="shop")["shards"] == 1
