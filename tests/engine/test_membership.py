"""Members change while everybody writes: evictions, finals, leaving, lines that part."""

from __future__ import annotations

from typing import Any

from crdtstore.admin.orphaned import final_of
from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Configuration, Member
from crdtstore.engine.membership.changes import Change, Evict, forced
from crdtstore.errors import CrdtStoreError
from crdtstore.host import HostOutput
from crdtstore.messages import Configure, encode_message
from crdtstore.service import Received
from tests.engine.clocked import Site, World


class Regrouping(World):
    """A world whose members change, and whose nodes may be cut apart."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.cuts: set[frozenset[str]] = set()
        super().__init__(*names, **options)
        self.ask(names[0], "declare_domain", domain="shop")
        self.ask(names[0], "declare", domain="shop", collection="visits", type="counter")
        self.run(1_000)

    def deliver(self) -> None:
        said, self.waiting = self.waiting, []
        for target, source, data in said:
            to, by = self._by_replica.get(target), self._by_replica.get(source)
            if to is not None and by is not None and frozenset((self.name(to), self.name(by))) not in self.cuts:
                self.waiting.append((target, source, data))
        super().deliver()

    def join(self, name: str, region: str) -> None:
        """A node that holds nothing comes up and asks to be let in."""
        member = Member(make_replica_id(name, len(self.sites) + 1), region)
        site = self.sites[name] = self._by_replica[member.replica] = Site(self, member.replica)
        site.start(member)

    def name(self, site: Site) -> str:
        return next(name for name, each in self.sites.items() if each is site)

    def replica(self, name: str) -> ReplicaId:
        return self.sites[name].replica

    def cut(self, *pairs: tuple[str, str]) -> None:
        self.cuts = {frozenset(pair) for pair in pairs}

    def order(self, name: str, change: Change, group: str = SYSTEM_GROUP) -> list[CrdtStoreError | None]:
        """Have something ordered; the list fills when it is answered."""
        site, answers = self.sites[name], list[CrdtStoreError | None]()
        site.host.on_decided = lambda decided: answers.extend(error for _, error in decided)

        def happen(out: HostOutput) -> None:
            site.host.order(group, change, 1, self.time_ms, out)

        site.act(happen)
        return answers

    def evict(self, name: str, *gone: str) -> list[CrdtStoreError | None]:
        at = self.configuration(name).id
        return self.order(name, Evict(tuple(self.replica(each) for each in gone), at))

    def configuration(self, name: str, group: str = SYSTEM_GROUP) -> Configuration:
        return self.sites[name].host.groups[group].configuration

    def members(self, name: str, group: str = SYSTEM_GROUP) -> list[str]:
        return [member.node.removesuffix("-1") for member in self.configuration(name, group).members]

    def force(self, name: str, *survivors: str) -> None:
        host = self.sites[name].host

        def happen(out: HostOutput) -> None:
            for group, engine in host.groups.items():
                kept = [self.replica(each) for each in survivors]
                host.force(
                    group,
                    forced(engine.configuration, kept, f"{name}{self.time_ms}".rjust(16).encode()),
                    self.time_ms,
                    out,
                )

        self.sites[name].act(happen)


def test_who_is_stopped_is_evicted_and_learns_of_it() -> None:
    world = Regrouping("us", "eu", "ap")
    for name in world.sites:
        assert not isinstance(world.write(name, "add"), CrdtStoreError)
    world.run(500)
    world.sites["ap"].end(is_orderly=True)
    answers = world.evict("us", "ap")
    world.run(3_000)
    assert answers == [None]
    for name in ("us", "eu"):
        for group in (SYSTEM_GROUP, "shop/0"):
            assert world.members(name, group) == ["us", "eu"]
            assert world.configuration(name, group).finals.keys() == {world.replica("ap")}
            claims = world.sites[name].host.groups[group].membership.claims
            assert claims.keep().keys() == {world.replica("eu" if name == "us" else "us")}  # it is gone for good
        assert world.read(name)["value"] == 3
    assert not isinstance(world.write("eu", "add"), CrdtStoreError)
    world.sites["ap"].start()
    world.run(3_000)
    assert world.sites["ap"].host.roster.is_removed
    token = world.read("us")["token"]
    for seen in ({}, {"token": token}):
        refused = world.write("ap", "add", **seen)
        assert isinstance(refused, CrdtStoreError)
        assert refused.code == "fenced", "whatever the session has seen"
    world.run(3_000)
    assert [world.read(name)["value"] for name in ("us", "eu")] == [4, 4]


def test_what_only_the_evicted_has_is_above_its_final() -> None:
    world = Regrouping("us", "eu", "ap")
    world.run(1_000)
    world.cut(("ap", "us"), ("ap", "eu"))
    for _ in range(3):
        assert not isinstance(world.write("ap", "add"), CrdtStoreError)
    world.write("us", "add")
    answers = world.evict("eu", "ap")
    world.run(3_000)
    assert answers == [None]
    final = world.configuration("us", "shop/0").finals[world.replica("ap")]
    assert final == 0
    world.cut()
    world.run(3_000)
    ap = world.sites["ap"].host.groups["shop/0"]
    assert ap.membership.is_removed
    assert ap.configuration == world.configuration("us", "shop/0")
    assert ap.applied[ap.me] == final + 3
    assert [world.read(name)["value"] for name in ("us", "eu")] == [1, 1]


def test_an_eviction_is_judged_in_the_configuration_it_was_ordered_in() -> None:
    world = Regrouping("us", "eu", "ap", "sa")
    before = world.configuration("us").id
    world.sites["sa"].end(is_orderly=True)
    answers = world.evict("us", "sa")
    world.run(2_000)
    assert answers == [None]
    late = world.order("eu", Evict((world.replica("ap"),), before))
    world.run(500)
    assert [error.code for error in late if error is not None] == ["membership-changed"]
    assert world.members("us") == ["us", "eu", "ap"]


def test_two_sides_that_evict_each_other() -> None:
    """Of four the half with the oldest decides; the other half learns of it."""
    world = Regrouping("us", "eu", "ap", "sa")
    world.cut(*[(left, right) for left in ("us", "eu") for right in ("ap", "sa")])
    here, there = world.evict("us", "ap", "sa"), world.evict("ap", "us", "eu")
    world.run(4_000)
    assert (here, there) == ([None], [])
    world.cut()
    world.run(4_000)
    for name in ("us", "eu"):
        assert world.members(name) == ["us", "eu"]
        assert len(world.configuration(name, "shop/0").finals) == 2
    assert all(world.sites[name].host.roster.is_removed for name in ("ap", "sa"))
    assert [error.code for error in there if error is not None] == ["membership-changed"]


def test_who_leaves_loses_nothing() -> None:
    world = Regrouping("us", "eu", "ap")
    world.cut(("ap", "us"), ("ap", "eu"))
    for _ in range(5):
        world.write("ap", "add")
    host = world.sites["ap"].host

    def happen(out: HostOutput) -> None:
        host.leave(world.time_ms, out)

    world.sites["ap"].act(happen)
    refused = world.write("ap", "add")
    assert isinstance(refused, CrdtStoreError)
    assert refused.code == "leaving"
    world.run(1_000)
    assert world.members("us") == ["us", "eu", "ap"]
    world.cut()
    world.run(5_000)
    for group in (SYSTEM_GROUP, "shop/0"):
        assert world.members("us", group) == ["us", "eu"]
    assert world.read("us")["value"] == 5
    assert host.roster.is_removed


def test_a_part_goes_on_by_force_and_the_rest_learns_of_it() -> None:
    world = Regrouping("us", "eu", "ap")
    world.sites["eu"].end(is_orderly=False)
    world.sites["ap"].end(is_orderly=False)
    world.evict("us", "eu", "ap")
    world.run(3_000)
    assert world.members("us") == ["us", "eu", "ap"], "one of three is no quorum"
    world.force("us", "us")
    world.run(3_000)
    assert world.members("us") == ["us"]
    assert world.members("us", "shop/0") == ["us"]
    assert len(world.configuration("us", "shop/0").finals) == 2
    world.sites["eu"].start()
    world.run(3_000)
    assert world.sites["eu"].host.roster.is_removed


def test_lines_that_part_refuse_each_other() -> None:
    world = Regrouping("us", "eu")
    world.cut(("us", "eu"))
    world.run(500)
    world.force("us", "us")
    world.force("eu", "eu")
    world.run(2_000)
    assert not isinstance(world.write("us", "add"), CrdtStoreError)
    assert not isinstance(world.write("eu", "add"), CrdtStoreError)
    world.cut()
    world.run(2_000)
    for name, other in (("us", "eu"), ("eu", "us")):
        assert world.replica(other) in world.sites[name].host.groups["shop/0"].membership.splits
        assert world.read(name)["value"] == 1


def test_who_asks_is_let_in_and_holds_everything() -> None:
    world = Regrouping("us", "eu", "ap", has_stores=True)
    for at in range(30):
        world.write("us", "add", key=f"k{at}")
    world.join("sa", region="sa")
    world.run(1_000)
    assert not isinstance(world.write("eu", "add"), CrdtStoreError)
    world.run(5_000)
    for group in (SYSTEM_GROUP, "shop/0"):
        assert world.members("us", group) == ["us", "eu", "ap", "sa"]
        assert world.configuration("sa", group) == world.configuration("us", group)
    assert world.read("sa", key="k7")["value"] == 1
    assert not isinstance(world.write("sa", "add"), CrdtStoreError)
    world.run(1_000)
    assert world.read("us")["value"] == 2
    digests = {name: site.host.groups["shop/0"].digest for name, site in world.sites.items()}
    assert len(set(digests.values())) == 1


def test_who_joined_may_leave_and_its_writes_stay() -> None:
    world = Regrouping("us", "eu", has_stores=True)
    world.join("sa", region="sa")
    world.run(5_000)
    for _ in range(3):
        assert not isinstance(world.write("sa", "add"), CrdtStoreError)
    host = world.sites["sa"].host

    def happen(out: HostOutput) -> None:
        host.leave(world.time_ms, out)

    world.sites["sa"].act(happen)
    world.run(5_000)
    assert world.members("us") == ["us", "eu"]
    assert world.read("eu")["value"] == 3
    assert host.roster.is_removed


def test_a_domain_that_went_with_an_evicted_node_is_declared_anew_and_joiners_hold_it() -> None:
    world = Regrouping("us", "eu", "ap", has_stores=True)
    world.cut(("ap", "us"), ("ap", "eu"))
    world.ask("ap", "declare_domain", domain="new")
    world.ask("ap", "declare", domain="new", collection="visits", type="counter")
    assert world.evict("us", "ap") == []
    world.run(3_000)
    world.cut()
    world.run(3_000)
    assert "new/0" not in world.sites["us"].host.groups, "what an evicted node declared is declared nowhere"
    world.ask("us", "declare_domain", domain="new")
    world.ask("us", "declare", domain="new", collection="visits", type="counter")
    world.run(2_000)
    host = world.sites["us"].host
    assert final_of(host, host.groups["new/0"], world.replica("ap")) == 0, "all that ap wrote there are orphans"
    assert final_of(host, host.groups["new/0"], world.replica("eu")) is None
    world.join("sa", region="sa")
    world.run(6_000)
    for name in ("us", "eu", "sa"):
        assert world.members(name, "new/0") == ["us", "eu", "sa"]
        host = world.sites[name].host
        assert not host.roster.splits(host.groups["new/0"])


def test_a_group_that_is_open_before_its_declaration_goes_on_in_its_line() -> None:
    """us was shown the group while its declaration was still on its way, and whoever declared it is gone with the declaration."""
    world = Regrouping("us", "eu", "ap", has_stores=True)
    world.ask("ap", "declare_domain", domain="new")
    founders = world.sites["ap"].host.groups["new/0"].configuration
    world.sites["us"].step(Received(world.replica("ap"), encode_message(Configure("new/0", founders))))
    world.sites["ap"].end(is_orderly=False)
    world.waiting.clear()
    assert "new/0" in world.sites["us"].host.groups
    assert world.evict("us", "ap") == []
    world.run(5_000)
    world.ask("us", "declare_domain", domain="new")
    world.run(2_000)
    world.join("sa", region="sa")
    world.run(6_000)
    for name in ("us", "eu", "sa"):
        assert world.members(name, "new/0") == ["us", "eu", "sa"]
        host = world.sites[name].host
        assert not host.roster.splits(host.groups["new/0"])
