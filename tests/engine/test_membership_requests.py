"""Requests of operators: what they cost, when they are done, and what is said when they are not."""

from __future__ import annotations

from typing import Any

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.errors import CrdtStoreError
from crdtstore.service import PeerChanged, Request
from tests.engine.test_membership import Regrouping

Body = dict[str, Any]


class Asking(Regrouping):
    """A world whose operators ask for what takes time."""

    def __init__(self, *names: str, **options: Any) -> None:
        super().__init__(*names, **options)
        for name, site in self.sites.items():
            site.host._random.seed(name)  # two nodes do not draw the same nonce

    def start_asking(self, name: str, do: str, **fields: Any) -> int:
        self._ticket += 1
        out = self.sites[name].step(Request(self._ticket, do, fields, "operator"))
        self.rejoins = out.rejoin
        return self._ticket

    def page(self, name: str) -> Body:
        body = self.ask(name, "members_status")
        assert isinstance(body, dict), body
        return body

    def refused(self, name: str, do: str, **fields: Any) -> CrdtStoreError:
        error = self.ask(name, do, **fields)
        assert isinstance(error, CrdtStoreError), error
        return error

    def at(self, name: str) -> str:
        return str(self.configuration(name).id)


class Slow(Asking):
    """While it is slow nothing arrives."""

    is_slow = False

    def deliver(self) -> None:
        if not self.is_slow:
            super().deliver()

    def release(self) -> None:
        self.is_slow = False


def told(error: CrdtStoreError) -> tuple[str, int, str]:
    return error.code, error.status, error.effect


# --- who is who


def test_the_page_of_the_members() -> None:
    world = Asking("us", "eu", "ap")
    world.write("us", "add")
    world.run(1_000)
    body = world.page("us")
    assert (body["node"], body["state"], body["why"], body["configuration"]) == ("us", "member", None, world.at("us"))
    assert [(each["node"], each["is_self"], each["connected"], each["is_installed"]) for each in body["members"]] == [
        ("us", True, True, True),
        ("eu", False, True, True),
        ("ap", False, True, True),
    ]
    assert [each["only_there"]["commits"] for each in body["members"]] == [0, 0, 0]
    assert body["members"][1]["heard_ms"] < 1_000
    assert body["quorum"] == {"needed": "more than half of 3 members", "reachable": True, "reached": ["us", "eu", "ap"]}
    assert [each["domain"] for each in body["groups"]] == ["_sys", "shop"]
    assert body["groups"][1]["members"] == [world.replica(name) for name in world.sites]
    assert (body["split"], body["orders"], body["what_now"], body["removed"]) == ([], [], [], [])


def test_what_only_one_member_has_is_counted_as_long_as_it_is_heard() -> None:
    world = Asking("us", "eu", "ap")
    world.cut(("ap", "eu"))
    site = world.sites["ap"]
    world.run(200)
    for _ in range(3):
        world.start_asking("ap", "commit", domain="shop", ops=[{"collection": "visits", "key": "k", "op": "add"}])
    site.sync()
    assert [each["only_there"]["commits"] for each in world.page("ap")["members"]][2] in (0, 3)
    site.end(is_orderly=False)
    world.run(100)
    ap = world.page("us")["members"][2]
    assert (ap["connected"], ap["only_there"]) == (False, {"commits": None}), "nobody knows what it did since"
    assert any("member evict ap" in said for said in world.page("us")["what_now"])


# --- eviction


def test_an_eviction_says_its_price_first() -> None:
    world = Asking("us", "eu", "ap")
    world.sites["ap"].end(is_orderly=True)
    world.run(100)
    error = world.refused("us", "member_evict", nodes=["ap"])
    assert told(error) == ("confirm-needed", 409, "none")
    assert error.more["configuration"] == world.at("us")
    costs = " ".join(error.more["costs"])
    assert "2 members of 3 will remain: us, eu" in costs
    assert "never be a member again" in costs
    world.run(1_000)
    assert world.members("us") == ["us", "eu", "ap"]


def test_an_eviction_is_answered_when_it_is_decided() -> None:
    world = Asking("us", "eu", "ap")
    world.sites["ap"].end(is_orderly=True)
    at = world.at("us")
    body = world.ask("us", "member_evict", nodes=["ap"], configuration=at, yes=True)
    assert [each["node"] for each in body["members"]] == ["us", "eu"]
    assert world.sites["us"].host.groups[SYSTEM_GROUP].membership.told == world.configuration("us").id, "and durable"
    world.run(3_000)
    removed = world.page("eu")["removed"]
    assert [(each["node"], set(each["final"])) for each in removed] == [("ap", {"_sys", "shop"})]
    assert world.ask("us", "member_evict", nodes=["ap"], configuration=at, yes=True)["state"] == "member", (
        "done is done"
    )
    late = world.refused("us", "member_evict", nodes=["eu"], configuration=at, yes=True)
    assert told(late) == ("membership-changed", 409, "none")
    assert world.members("us") == ["us", "eu"]


def test_an_eviction_without_a_quorum_ends_and_is_not_tried_again() -> None:
    world = Asking("us", "eu", "ap")
    world.cut(("us", "eu"), ("us", "ap"))
    asked = {"nodes": ["eu"], "configuration": world.at("us"), "yes": True, "wait_ms": 500}
    error = world.refused("us", "member_evict", **asked)
    assert told(error) == ("no-quorum", 503, "unknown")
    assert "crdtstore member force" in error.detail
    world.cut()
    world.run(4_000)
    assert world.members("us") == ["us", "eu", "ap"]
    assert world.page("us")["orders"] == []


def test_a_vote_that_comes_after_it_was_given_up_decides_nothing() -> None:
    world = Slow("us", "eu", "ap")
    world.is_slow = True
    asked = {"nodes": ["ap"], "configuration": world.at("us"), "yes": True, "wait_ms": 300}
    ticket = world.start_asking("us", "member_evict", **asked)
    world.run(100)
    world.release()
    world.run(20)
    world.is_slow = True
    world.run(600)
    assert world.replies[ticket].code == "no-quorum"
    world.release()
    world.run(3_000)
    assert world.members("us") == ["us", "eu", "ap"]


def test_who_may_not_evict_whom() -> None:
    world = Asking("us", "eu", "ap")
    at = world.at("us")
    for fields in (
        {"nodes": ["us"], "configuration": at, "yes": True},
        {"nodes": ["xx"], "configuration": at, "yes": True},
        {"nodes": [], "configuration": at, "yes": True},
        {"nodes": ["eu", "eu"], "configuration": at, "yes": True},
        {"nodes": ["eu"], "yes": True},
        {"nodes": ["eu"], "configuration": at, "yes": True, "wait_ms": -1},
    ):
        assert world.refused("us", "member_evict", **fields).code == "bad-request", fields
    assert (
        world.refused("us", "member_evict", nodes=["eu"], configuration="9.00000000", yes=True).code
        == "membership-changed"
    )
    world.run(2_000)
    assert world.members("us") == ["us", "eu", "ap"]


# --- leaving


def test_who_leaves_takes_no_writes_and_is_gone_at_last() -> None:
    world = Asking("us", "eu", "ap")
    assert world.refused("us", "member_leave", node="ap").code == "bad-request"
    world.cut(("ap", "us"), ("ap", "eu"))
    world.write("ap", "add")
    body = world.ask("ap", "member_leave")
    assert (body["state"], body["members"][2]["is_leaving"]) == ("leaving", True)
    for do, fields in (
        ("commit", {"domain": "shop", "ops": [{"collection": "visits", "key": "k", "op": "add"}]}),
        ("declare_domain", {"domain": "crm"}),
        ("declare", {"domain": "shop", "collection": "more", "type": "counter"}),
    ):
        assert world.refused("ap", do, **fields).code == "leaving", do
    assert world.read("ap")["value"] == 1
    world.cut()
    world.run(6_000)
    assert world.members("us") == ["us", "eu"]
    assert world.read("us")["value"] == 1
    body = world.page("ap")
    assert body["state"] == "removed"
    assert any("member rejoin" in said for said in body["what_now"])
    assert world.read("ap")["identity"] == "removed"


def test_the_last_member_does_not_leave() -> None:
    world = Asking("us")
    assert world.refused("us", "member_leave").code == "bad-request"
    assert not isinstance(world.write("us", "add"), CrdtStoreError)


# --- force


def test_force_needs_all_survivors_on_one_line_now() -> None:
    world = Asking("us", "eu", "ap")
    world.sites["ap"].end(is_orderly=False)
    at = world.at("us")
    world.run(6_000)
    for survivors in (["eu"], ["us", "eu", "ap"], ["xx"]):
        assert (
            world.refused("us", "member_force", survivors=survivors, configuration=at, yes=True).code == "bad-request"
        )
    error = world.refused("us", "member_force", survivors=["us", "ap"], configuration=at, yes=True)
    assert told(error) == ("not-one-line", 409, "none")
    world.sites["eu"].end(is_orderly=False)
    error = world.refused("us", "member_force", survivors=["us"], configuration=at)
    assert told(error) == ("confirm-needed", 409, "none")
    assert "two clusters" in " ".join(error.more["costs"])
    body = world.ask("us", "member_force", survivors=["us"], configuration=at, yes=True)
    assert [each["node"] for each in body["members"]] == ["us"]
    host = world.sites["us"].host
    nonces = {engine.configuration.id.nonce for engine in host.groups.values()}
    assert len(nonces) == len(host.groups), "one of its own per group"
    assert all(engine.membership.told == engine.configuration.id for engine in host.groups.values())
    assert world.members("us", "shop/0") == ["us"]
    assert not isinstance(world.write("us", "add"), CrdtStoreError)
    world.sites["eu"].start()
    world.run(3_000)
    assert world.page("eu")["state"] == "removed"


def test_a_survivor_of_another_configuration_is_not_on_the_line() -> None:
    world = Asking("us", "eu", "ap")
    world.run(200)
    membership = world.sites["us"].host.groups["shop/0"].membership
    at, ms = membership.heard[world.replica("eu")]
    membership.heard[world.replica("eu")] = type(at)(at.number + 1, at.nonce), ms
    error = world.start_asking("us", "member_force", survivors=["us", "eu"], configuration=world.at("us"), yes=True)
    assert world.replies[error].code == "not-one-line"


# --- a new id


def test_who_is_a_member_does_not_rejoin_and_who_was_removed_does() -> None:
    world = Asking("us", "eu", "ap")
    assert world.refused("ap", "member_rejoin", yes=True).code == "bad-request"
    world.cut(("ap", "us"), ("ap", "eu"))
    for _ in range(2):
        world.write("ap", "add")
    world.ask("us", "member_evict", nodes=["ap"], configuration=world.at("us"), yes=True)
    world.run(3_000)
    world.cut()
    world.run(3_000)
    error = world.refused("ap", "member_rejoin")
    assert error.code == "confirm-needed"
    assert "2 commits made here count nowhere" in " ".join(error.more["costs"])
    ticket = world.start_asking("ap", "member_rejoin", yes=True)
    assert world.replies[ticket]["state"] == "removed"
    assert world.rejoins is not None
    for do, fields in (
        ("member_evict", {"nodes": ["eu"]}),
        ("member_leave", {}),
        ("member_force", {"survivors": ["ap"]}),
    ):
        assert world.refused("ap", do, **fields).code == "fenced", do


def test_of_two_lines_one_side_is_told_to_rejoin() -> None:
    world = Asking("us", "eu")
    world.cut(("us", "eu"))
    world.run(6_000)
    for name in ("us", "eu"):
        body = world.ask(name, "member_force", survivors=[name], configuration=world.at(name), yes=True)
        assert [each["node"] for each in body["members"]] == [name]
    world.cut()
    world.run(2_000)
    body = world.page("us")
    assert [each["node"] for each in body["split"]] == ["eu"]
    assert any("member rejoin" in said for said in body["what_now"])
    groups = world.ask("us", "status")["groups"]
    assert [group["split"] for group in groups] == [1, 1]
    world.start_asking("eu", "member_rejoin", yes=True)
    assert world.rejoins is not None


# --- what a member holds back


def cut_off(allowed: int, *others: str) -> Asking:
    """A cluster from which ap is cut off while the others write."""
    world = Asking("us", "eu", "ap", evict_held_bytes=allowed, history_bytes=1 << 20)
    cuts = [("ap", "us"), ("ap", "eu"), *[("us", other) for other in others]]
    world.cut(*cuts)
    for left, right in cuts:
        for here, there in ((left, right), (right, left)):
            world.sites[here].step(PeerChanged(world.replica(there), False))
    for _ in range(40):
        world.write("us", "add")
        world.write("ap", "add")
    world.run(9_000)
    return world


def test_who_holds_back_too_much_is_evicted_by_the_others() -> None:
    world = cut_off(1_000)
    assert world.members("us") == ["us", "eu"]
    assert world.members("ap") == ["us", "eu", "ap"], "who is cut off blames nobody"


def test_without_a_quorum_nobody_blames_anybody() -> None:
    world = cut_off(1_000, "eu")
    for name in world.sites:
        assert world.members(name) == ["us", "eu", "ap"]
        assert world.page(name)["orders"] == []


def test_who_lacks_less_than_is_allowed_stays() -> None:
    assert cut_off(1 << 20).members("us") == ["us", "eu", "ap"]


def test_without_the_option_nobody_is_evicted_and_the_page_says_who_holds_back() -> None:
    world = cut_off(0)
    assert world.members("us") == ["us", "eu", "ap"]
    shop = world.page("us")["groups"][1]
    assert shop["held_back_by"] == world.replica("ap")
    assert shop["held_back_bytes"] > 1_000
