"""Which worker a request goes to, what is learned on the way, and how pages of several become one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.errors import Unavailable, problem
from crdtstore.shards import shard_of
from crdtstore_client import NotSent, Response, connect
from crdtstore_client.cli_support import ask_all
from crdtstore_client.regions import _reachable
from crdtstore_client.routes import Routes, merge_pages

SHARDS = 8


# --- what belongs where


def routes(workers: int = 2, **domains: int) -> Routes:
    made = Routes()
    made.learn({"workers": [{}] * workers, "domains": domains})
    return made


@given(st.text(min_size=1), st.integers(1, 9), st.integers(2, 7))
def test_a_key_belongs_to_the_worker_that_holds_its_shard(key: str, shards: int, workers: int) -> None:
    made, fields = routes(workers, shop=shards), {"domain": "shop", "collection": "orders", "key": key}
    expected = shard_of("orders", key, shards) % workers
    for do in ("read", "members", "explain"):
        assert made.worker(do, fields) == expected
        assert made.worker(do, {**fields, "collection": "orders@counter"}) == expected
    assert made.worker("commit", {"domain": "shop", "ops": [{"collection": "orders", "key": key}]}) == expected
    assert made.worker("read", {**fields, "domain": "shop@3"}) == shard_of("orders", key, 3) % workers
    assert made.worker("read", {**fields, "domain": "unknown"}) is None
    for do in ("declare", "declare_domain", "domain", "status"):
        assert made.worker(do, {"domain": "shop", "collection": "orders"}) is None


@pytest.mark.parametrize(("shards", "workers", "owners"), [(1, 4, [0]), (3, 2, [0, 1]), (8, 3, [0, 1, 2])])
def test_a_list_goes_to_all_who_hold_a_part(shards: int, workers: int, owners: list[int]) -> None:
    made, fields = routes(workers, shop=shards), {"domain": "shop", "collection": "orders"}
    assert made.owners(fields) == owners
    assert made.divides("list", fields) == made.divides("conflicts", fields) == (len(owners) > 1)
    assert not made.divides("list", {**fields, "shards_of": 1})
    assert made.worker("list", {**fields, "shards_of": 1}) == 1
    assert made.worker("list", fields) == (0 if len(owners) == 1 else None)
    assert made.owners({"domain": "unknown"}) == []


# --- pages

KEYS = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=40).map(sorted)


def page_of(keys: list[str], after: str, limit: int) -> dict[str, Any]:
    rest = [key for key in keys if key > after]
    items = [{"key": key} for key in rest[:limit]]
    return {"items": items, "next": items[-1]["key"] if len(rest) > limit else None, "token": "t"}


@given(st.lists(KEYS, min_size=2, max_size=4), st.lists(st.integers(1, 7), min_size=4, max_size=4), st.integers(1, 9))
def test_merged_pages_hold_every_key_once_and_in_order(parts: list[list[str]], limits: list[int], limit: int) -> None:
    """Whatever a worker puts on its page, as long as it is whole up to its end."""
    parts = [[key for key in part if hash(key) % len(parts) == at] for at, part in enumerate(parts)]
    found, after = list[str](), ""
    while True:
        pages = [page_of(part, after, min(own, limit)) for part, own in zip(parts, limits, strict=False)]
        merged = merge_pages("list", pages, limit)
        assert len(merged["items"]) <= limit
        found += [item["key"] for item in merged["items"]]
        if merged["next"] is None:
            break
        assert merged["next"] > after
        after = merged["next"]
    assert found == sorted(key for part in parts for key in part)


def test_merged_conflicts_stand_in_the_order_of_one_node() -> None:
    def item(collection: str, kind: str, key: str) -> dict[str, Any]:
        return {"collection": collection, "type": kind, "key": key, "conflicts": 2}

    one = {"items": [item("a", "lww_register", "y"), item("b@mv_register", "mv_register", "k")], "next": None}
    two = {"items": [item("a", "lww_register", "x"), item("b", "lww_register", "z")], "next": "b@lww_register/z"}
    merged = merge_pages("conflicts", [one, two], 10)
    assert [(each["collection"], each["key"]) for each in merged["items"]] == [("a", "x"), ("a", "y"), ("b", "z")]
    assert merged["next"] == "b@lww_register/z"
    cut = merge_pages("conflicts", [one, two], 2)
    assert [each["key"] for each in cut["items"]] == ["x", "y"]
    assert cut["next"] == "a@lww_register/y"


# --- on the wire


class Crew:
    """Nodes ``us-1`` and ``eu-1`` of several workers behind the transport seam, each answering only for its own keys."""

    def __init__(self, workers: int = 2, *, tells_shards: bool = True) -> None:
        self.workers = workers
        self.tells_shards = tells_shards
        self.asked: list[tuple[str, str]] = []
        self.dead: set[str] = set()
        self.moved: dict[str, str] = {}
        """New urls of workers by their old ones."""

    def url(self, machine: str, worker: int) -> str:
        url = f"http://{machine}-{worker}"
        return self.moved.get(url, url)

    def _map(self, machine: str) -> list[dict[str, Any]]:
        return [
            {"index": at, "node": f"{machine}-1+{at}", "region": machine, "api": self.url(machine, at)}
            for at in range(self.workers)
        ]

    async def ask(
        self,
        url_base: str,
        do: str,
        fields: Any,
        authorization: str | None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        machine, _, worker = url_base.removeprefix("http://").removesuffix(":2").partition("-")
        if url_base in self.dead:
            raise NotSent(f"{url_base} refused")
        self.asked.append((url_base, do))
        key = fields.get("key") or (fields["ops"][0]["key"] if do == "commit" else None)
        owner = None if key is None else shard_of("orders", key, SHARDS) % self.workers
        if (owner is not None and owner != int(worker)) or (do == "list" and fields.get("shards_of") != int(worker)):
            error = Unavailable(
                "elsewhere",
                code="wrong-worker",
                domain="shop",
                shards=SHARDS,
                index=int(worker),
                workers=self._map(machine),
            )
            return Response(421, problem(error))
        if do == "list":
            return Response(200, {"items": [{"key": f"of {worker}"}], "next": None, "token": "t"})
        reading = {"value": 1, "type": "counter", "exists": True, "etag": '"a"', "conflicts": 0, "staleness_ms": 0}
        return Response(200, {**reading, "region": machine, "token": "t"})

    async def request(self, url_base: str, method: str, path: str, **more: Any) -> Response:
        assert path == "/v1/status"
        if url_base in self.dead:
            raise NotSent(f"{url_base} refused")
        machine, _, worker = url_base.removeprefix("http://").partition("-")
        status = {"node": f"{machine}-1+{worker}", "region": machine, "ready": True, "workers": self._map(machine)}
        return Response(200, {**status, "domains": {"shop": SHARDS} if self.tells_shards else {}})

    async def close(self) -> None:
        pass


KEYS_OF = {
    worker: [key for key in map(str, range(60)) if shard_of("orders", key, SHARDS) % 2 == worker] for worker in (0, 1)
}


async def test_every_request_goes_straight_to_the_owner_by_the_url_of_one_worker() -> None:
    crew = Crew()
    async with connect("http://us-0", transport=crew) as store:
        for worker, keys in KEYS_OF.items():
            for key in keys:
                await store.domain("shop").counter("orders")[key].get()
                assert crew.asked.pop() == (f"http://us-{worker}", "read")
        assert crew.asked == [], "nobody was asked in vain"


async def test_who_knows_nothing_of_a_domain_asks_in_vain_once() -> None:
    crew = Crew(tells_shards=False)
    async with connect("http://us-0", transport=crew) as store:
        for key in KEYS_OF[1]:
            await store.domain("shop").counter("orders")[key].get()
    wrong = [url for url, _ in crew.asked if url == "http://us-0"]
    assert len(wrong) == 1
    assert len(crew.asked) == len(KEYS_OF[1]) + 1


async def test_the_owner_in_another_region_stands_in_for_one_that_is_gone() -> None:
    crew = Crew()
    async with connect("http://us-0", "http://eu-0", transport=crew, timeout=2.0) as store:
        await ask_all(store)
        crew.dead |= {"http://us-1"}
        orders = store.domain("shop").counter("orders")
        for key in KEYS_OF[1][:5]:
            await orders[key].get()
            assert crew.asked[-1] == ("http://eu-1", "read")
        crew.dead |= {"http://eu-1"}
        with pytest.raises(Unavailable) as raised:
            await orders[KEYS_OF[1][0]].get()
        assert raised.value.code == "unreachable"
        await orders[KEYS_OF[0][0]].get()


async def test_a_list_is_put_together_from_all_workers() -> None:
    for tells in (True, False):
        crew = Crew(3, tells_shards=tells)
        async with connect("http://us-1", transport=crew) as store:
            body = await store.domain("shop").list_keys("orders")
            assert [item["key"] for item in body["items"]] == ["of 0", "of 1", "of 2"]
            assert body["next"] is None


async def test_a_worker_that_was_started_elsewhere_is_found_again() -> None:
    crew = Crew()
    async with connect("http://us-0", transport=crew, timeout=5.0) as store:
        orders = store.domain("shop").counter("orders")
        await orders[KEYS_OF[1][0]].get()
        crew.dead.add("http://us-1")
        crew.moved["http://us-1"] = "http://us-1:2"
        await orders[KEYS_OF[1][0]].get()
        assert crew.asked[-1] == ("http://us-1:2", "read")
        assert [node.url for node in store._link.nodes] == ["http://us-0", "http://us-1:2"]


@pytest.mark.parametrize(
    ("api", "by", "found"),
    [
        ("http://0.0.0.0:7402", "http://us.example:7401", "http://us.example:7402"),
        ("http://[::]:7402", "http://[::1]:7401", "http://[::1]:7402"),
        ("https://us-1.example/", "https://us.example", "https://us-1.example"),
    ],
)
def test_a_worker_that_listens_everywhere_is_where_the_other_one_was(api: str, by: str, found: str) -> None:
    assert _reachable(api, by) == found
