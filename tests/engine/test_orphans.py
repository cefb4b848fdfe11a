"""Orphans: what went with a removed id is shown as it was, and done once more at most once."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from crdtstore.causal import ReplicaId
from crdtstore.commit import decode_commit
from crdtstore.orphans import Life, decode_orphan, encode_orphan, last_of, orphans_of
from crdtstore.types import REGISTRY
from tests.engine.test_membership_requests import Asking

WRITES: dict[str, list[dict[str, Any]]] = {
    "counter": [{"op": "add", "amount": 3}],
    "lww_register": [{"op": "set", "value": "gold"}],
    "mv_register": [{"op": "set", "value": [1, 2]}],
    "max_register": [{"op": "set", "value": 7}],
    "ew_flag": [{"op": "enable"}],
    "dw_flag": [{"op": "disable"}],
    "aw_set": [{"op": "add", "elements": ["ann", "bob"]}, {"op": "remove", "elements": ["eve"]}],
    "rw_set": [{"op": "add", "elements": [5]}],
    "lww_map": [{"op": "set", "fields": {"city": "Oslo"}}],
    "or_map": [{"op": "add", "amount": 2, "path": [["visits", "counter"]]}],
    "event_log": [{"op": "append", "id": "e1", "body": {"x": 1}}],
    "text": [{"op": "insert", "index": 0, "text": "hello"}],
}
SAID = {
    "counter": "add 3",
    "lww_register": 'set "gold"',
    "mv_register": "set [1, 2]",
    "max_register": "at least 7",
    "ew_flag": "enable",
    "dw_flag": "disable",
    "aw_set": 'remove "eve"; add "ann"; add "bob"',
    "rw_set": "add 5",
    "lww_map": 'set "city" to "Oslo"',
    "or_map": 'in the field "visits": add 2',
    "event_log": 'append "e1": {"x": 1}',
    "text": 'insert "hello"',
}


class Bereft(Asking):
    """Us and eu evicted ap, which had written what nobody else got."""

    def __init__(self, *, is_settled: bool = True, **options: Any) -> None:
        super().__init__("us", "eu", "ap", **options)
        for name in REGISTRY:
            self.ask("us", "declare", domain="shop", collection=name.replace("_", "-"), type=name)
        self.ask("us", "commit", domain="shop", ops=[self.op("bounded_counter", {"op": "grant", "amount": 5})])
        self.ask(
            "us", "commit", domain="shop", ops=[self.op("bounded_counter", {"op": "transfer", "amount": 4, "to": "ap"})]
        )
        self.run(1_000)
        self.commit("ap", "counter", {"op": "add", "amount": 100})
        self.run(1_000)
        self.cut(("ap", "us"), ("ap", "eu"))
        self.run(200)
        self.write_alone()
        self.ask("us", "member_evict", nodes=["ap"], configuration=self.at("us"), yes=True)
        if is_settled:
            self.run(3_000)
            self.cut()
            self.run(3_000)

    def write_alone(self) -> None:
        for name, ops in WRITES.items():
            self.commit("ap", name, *ops)

    def op(self, name: str, op: dict[str, Any]) -> dict[str, Any]:
        return {"collection": name.replace("_", "-"), "key": "k", **op}

    def commit(self, site: str, name: str, *ops: dict[str, Any]) -> Any:
        body = self.ask(site, "commit", domain="shop", ops=[self.op(name, op) for op in ops], reason=f"by {name}")
        assert isinstance(body, dict), body
        return body

    def value(self, site: str, name: str) -> Any:
        return self.read(site, name.replace("_", "-"))["value"]

    def orphans(self, **fields: Any) -> list[dict[str, Any]]:
        body = self.ask("ap", "orphans", replica=self.replica("ap"), domain="shop", **fields)
        assert isinstance(body, dict), body
        return list(body["orphans"])

    def apply(self, site: str, orphans: list[dict[str, Any]], domain: str = "shop") -> Any:
        return self.ask(site, "orphan_apply", domain=domain, commits=[each["data"] for each in orphans], yes=True)


def test_what_went_with_an_id_is_counted_and_said_in_words() -> None:
    world = Bereft()
    (life,) = world.ask("ap", "orphans")["replicas"]
    assert (life["replica"], life["left"]) == (world.replica("ap"), None)
    assert life["domains"] == {"shop": {"final": 1, "made": 1 + len(WRITES), "orphans": len(WRITES)}}
    found = world.orphans()
    assert [each["dot"] for each in found] == [f"{world.replica('ap')}:{seq}" for seq in range(2, 2 + len(WRITES))]
    for name, each in zip(WRITES, found, strict=True):
        (change,) = each["changes"]
        assert (change["collection"], change["key"], change["type"]) == (name.replace("_", "-"), "k", name)
        assert change["what"] == SAID[name]
        assert (each["reason"], each["author"], each["applied"]) == (f"by {name}", "anonymous", None)
    assert world.ask("us", "orphans") == {"replicas": []}, "us was never removed"


def test_orphans_come_in_pages() -> None:
    world = Bereft()
    asked = {"replica": world.replica("ap"), "domain": "shop", "limit": 5}
    seen, after = list[str](), 0
    while True:
        body = world.ask("ap", "orphans", after=after, **asked)
        seen += [each["dot"] for each in body["orphans"]]
        if body["next"] is None:
            break
        after = body["next"]
    assert seen == [each["dot"] for each in world.orphans()]
    assert len(seen) == len(WRITES)


def test_a_page_of_large_orphans_says_that_there_are_more() -> None:
    class Large(Bereft):
        def write_alone(self) -> None:
            for number in range(3):
                ops = [{"op": "append", "id": f"{number}-{part}", "body": "x" * 900_000} for part in range(3)]
                self.commit("ap", "event_log", *ops)

    world = Large(frame_bytes=4 << 20)
    asked = {"replica": world.replica("ap"), "domain": "shop"}
    pages, after = list[int](), 0
    while len(pages) < 5:
        body = world.ask("ap", "orphans", after=after, **asked)
        pages.append(len(body["orphans"]))
        if body["next"] is None:
            break
        after = body["next"]
    assert pages == [1, 1, 1]


def test_applied_orphans_do_what_they_did_and_only_once() -> None:
    world = Bereft()
    found = world.orphans()
    body = world.apply("us", found)
    assert (len(body["applied"]), body["refused"]) == (len(WRITES), [])
    assert [each["orphan"] for each in body["applied"]] == [each["dot"] for each in found]
    again = world.apply("us", found)
    assert again["applied"] == body["applied"], "the same commits"
    world.run(1_000)
    elsewhere = world.apply("eu", found)
    assert elsewhere["applied"] == body["applied"]
    world.run(1_000)
    expected = {
        "counter": 103, "lww_register": "gold", "mv_register": [[1, 2]], "max_register": 7, "ew_flag": True, "dw_flag": False,
        "aw_set": ["ann", "bob"], "rw_set": [5], "lww_map": {"city": "Oslo"}, "or_map": {"visits": 2}, "text": "hello",
    }  # fmt: skip
    for site in ("us", "eu"):
        assert {name: world.value(site, name) for name in expected} == expected
        assert [each["body"] for each in world.value(site, "event_log")] == [{"x": 1}]
    (change, *_) = world.ask("us", "explain", domain="shop", collection="lww-register", key="k")["live"]
    assert (change["author"], change["reason"]) == ("anonymous", f"orphan {found[1]['dot']}")


def test_two_regions_that_apply_it_without_hearing_each_other_count_it_once() -> None:
    world = Bereft()
    (orphan, *_) = world.orphans()
    world.cut(("us", "eu"))
    made = [world.apply(name, [orphan])["applied"][0]["dot"] for name in ("us", "eu")]
    assert made[0] != made[1]
    world.cut()
    world.run(2_000)
    assert [world.value(name, "counter") for name in ("us", "eu")] == [103, 103]


def test_a_drop_takes_what_is_there_now() -> None:
    class Removing(Bereft):
        def write_alone(self) -> None:
            self.commit("ap", "aw_set", {"op": "remove", "elements": ["eve"]})
            self.commit("ap", "counter", {"op": "delete"})

    world = Removing()
    world.commit("us", "aw_set", {"op": "add", "elements": ["eve", "ann"]})
    found = world.orphans()
    assert [each["changes"][0]["what"] for each in found] == ['remove "eve"', "delete"]
    assert len(world.apply("us", found)["applied"]) == 2
    assert (world.value("us", "aw_set"), world.value("us", "counter")) == (["ann"], 0)


def test_what_cannot_be_done_by_another_id_is_refused_with_a_reason() -> None:
    class Spending(Bereft):
        def write_alone(self) -> None:
            self.commit("ap", "bounded_counter", {"op": "consume", "amount": 1})
            self.ask("ap", "declare", domain="shop", collection="alone", type="counter")
            self.commit("ap", "counter", {"op": "add", "amount": 1})

    world = Spending()
    rights, counter = world.orphans()
    body = world.apply("us", [rights, counter])
    assert [each["orphan"] for each in body["applied"]] == [counter["dot"]]
    (refused,) = body["refused"]
    assert refused["orphan"] == rights["dot"]
    assert "rights belong to the id that had them" in refused["why"]
    (declared,) = world.ask("ap", "orphans", replica=world.replica("ap"), domain="_sys")["orphans"]
    (refused,) = world.apply("us", [declared], "_sys")["refused"]
    assert "declare or write it anew" in refused["why"]
    (refused,) = world.apply("us", [declared])["refused"]
    assert "it belongs to _sys" in refused["why"]


def test_a_commit_that_counts_is_not_done_twice() -> None:
    world = Bereft()
    ap = world.sites["ap"].host.groups["shop/0"]
    data = encode_orphan("shop/0", world.replica("ap"), ap.history.commit(ap.me, 1))
    us = world.sites["us"].host.groups["shop/0"]
    own = encode_orphan("shop/0", world.replica("us"), us.history.commit(us.me, us.applied[us.me]))
    body = world.apply("us", [{"data": data}, {"data": own}])
    assert body["applied"] == []
    assert ["it is no orphan" in each["why"] for each in body["refused"]] == [True, False]
    assert "was not removed" in body["refused"][1]["why"]
    assert world.value("us", "counter") == 100


def test_nothing_is_an_orphan_before_it_is_settled() -> None:
    world = Bereft(is_settled=False)
    ap = world.sites["ap"].host.groups["shop/0"]
    data = encode_orphan("shop/0", world.replica("ap"), ap.history.commit(ap.me, 2))
    (refused,) = world.apply("us", [{"data": data}])["refused"]
    assert "not settled yet" in refused["why"] or "was not removed" in refused["why"]
    assert world.ask("ap", "orphans") == {"replicas": []}, "it has not heard of it"


def test_what_is_removed_and_not_settled_waits() -> None:
    world = Bereft()
    (orphan, *_) = world.orphans()
    for name in ("us", "ap"):
        engine = world.sites[name].host.groups["shop/0"]
        removed = tuple(structs.replace(each, final=None) for each in engine.configuration.removed)
        engine.configuration = structs.replace(engine.configuration, removed=removed)
    (refused,) = world.apply("us", [orphan])["refused"]
    assert "not settled yet" in refused["why"]
    assert world.orphans() == []
    (life,) = world.ask("ap", "orphans")["replicas"]
    assert life["domains"]["shop"] == {"final": None, "made": 1 + len(WRITES), "orphans": 0}


def test_applying_has_to_be_confirmed_and_what_is_no_orphan_is_said() -> None:
    world = Bereft()
    found = world.orphans()
    fields = {"domain": "shop", "commits": [each["data"] for each in found]}
    error = world.refused("us", "orphan_apply", **fields)
    assert (error.code, error.status) == ("confirm-needed", 409)
    assert f"{len(WRITES)} commits" in error.more["costs"][0]
    for commits in (["x"], [], ["AAAA"], [found[0]["data"][:-8]]):
        assert world.refused("us", "orphan_apply", domain="shop", commits=commits, yes=True).code == "bad-request"
    assert (
        world.refused("us", "orphan_apply", domain="none", commits=fields["commits"], yes=True).code == "not-declared"
    )
    assert world.refused("ap", "orphans", replica="xx", domain="shop").code == "bad-request"
    assert world.refused("ap", "orphans", domain="shop").code == "bad-request"
    here = world.apply("ap", found[:1])
    assert "removed" in here["refused"][0]["why"]


def test_an_earlier_life_is_read_from_its_log() -> None:
    world = Bereft()
    ap = world.replica("ap")
    entries = [
        entry for _, record in world.sites["ap"].log.replay(0) for entry in record if entry.group and entry.origin
    ]

    class Kept:
        def lives(self) -> list[Life]:
            return [Life(ap, "2026-01-05T10:00:00Z", "it was removed")]

        def made(self, replica: ReplicaId) -> dict[str, int]:
            last = dict[str, int]()
            last_of(entries, replica, last)
            return last

        def commits(self, replica: ReplicaId, group: str, after: int, most: int) -> list[bytes]:
            return orphans_of(entries, replica, group, after)[:most]

    before = world.orphans()
    us = world.sites["us"].service.administration.orphaned
    us.left = Kept()
    (life,) = world.ask("us", "orphans")["replicas"]
    assert (life["left"], life["why"]) == ("2026-01-05T10:00:00Z", "it was removed")
    assert life["domains"]["shop"] == {"final": 1, "made": 1 + len(WRITES), "orphans": len(WRITES)}
    assert us.count() == len(WRITES)
    body = world.ask("us", "orphans", replica=ap, domain="shop", limit=3)
    assert (body["orphans"], body["next"]) == (before[:3], 4)
    applied = world.apply("us", body["orphans"])["applied"]
    after = world.ask("us", "orphans", replica=ap, domain="shop", limit=3)["orphans"]
    assert [each["applied"] for each in after] == [each["dot"] for each in applied]


def test_a_commit_as_text_and_back() -> None:
    for each in Bereft().orphans():
        orphan = decode_orphan(each["data"])
        assert (str(orphan.dot), orphan.group) == (each["dot"], "shop/0")
        assert decode_commit(orphan.data) == orphan.commit
