"""Domains of several shards while members change: all their groups follow, joiners take all of them over, and orphans are told by shard."""

from __future__ import annotations

from typing import Any

from crdtstore.configuration import group_named, name_of
from crdtstore.shards import Division, shard_of
from tests.engine.test_membership_requests import Asking

CRM = Division.of("crm", 4)
KEYS = [f"k{at}" for at in range(12)]


class Sharded(Asking):
    """A domain ``crm`` of four shards beside the one of the world."""

    def declare(self, site: str) -> None:
        assert isinstance(self.ask(site, "declare_domain", domain="crm", shards=4), dict)
        assert isinstance(self.ask(site, "declare", domain="crm", collection="n", type="counter"), dict)

    def add(self, site: str, key: str, amount: int = 1) -> Any:
        return self.ask(
            site, "commit", domain="crm", ops=[{"collection": "n", "key": key, "op": "add", "amount": amount}]
        )

    def listed(self, site: str) -> dict[str, int]:
        body = self.ask(site, "list", domain="crm", collection="n", values=True)
        return {item["key"]: item["value"] for item in body["items"]}


def test_orphans_are_told_and_applied_by_shard() -> None:
    world = Sharded("us", "eu", "ap")
    world.declare("us")
    world.run(1_000)
    for key in KEYS:
        assert isinstance(world.add("ap", key), dict)
    world.run(1_000)
    world.cut(("ap", "us"), ("ap", "eu"))
    world.run(200)
    for key in KEYS:
        assert isinstance(world.add("ap", key, 10), dict)
    world.ask("us", "member_evict", nodes=["ap"], configuration=world.at("us"), yes=True)
    world.run(3_000)
    world.cut()
    world.run(3_000)
    per_shard = [sum(shard_of("n", key, 4) == shard for key in KEYS) for shard in range(4)]
    finals = next(each["final"] for each in world.ask("us", "members_status")["removed"])
    assert {name: finals[name] for name in CRM.groups} == {
        f"crm/{shard}": count for shard, count in enumerate(per_shard)
    }
    assert "crm" not in finals
    for group in CRM.groups:
        assert world.members("eu", group) == ["us", "eu"]
    (life,) = world.ask("ap", "orphans")["replicas"]
    assert life["domains"] == {
        f"crm/{shard}": {"final": count, "made": 2 * count, "orphans": count} for shard, count in enumerate(per_shard)
    }
    found = list[dict[str, Any]]()
    for name in life["domains"]:
        body = world.ask("ap", "orphans", replica=world.replica("ap"), domain=name)
        assert body["final"] == life["domains"][name]["final"]
        found += body["orphans"]
    assert len(found) == len(KEYS)
    data = [each["data"] for each in found]
    elsewhere = world.ask("us", "orphan_apply", domain="shop", commits=data[:1], yes=True)
    assert "it belongs to crm" in elsewhere["refused"][0]["why"]
    for done in ([len(KEYS), 0], [len(KEYS), 0]):  # again: answered, and done once
        answer = world.ask("us", "orphan_apply", domain="crm", commits=data, yes=True)
        assert [len(answer["applied"]), len(answer["refused"])] == done
    world.run(1_000)
    assert world.listed("us") == world.listed("eu") == dict.fromkeys(KEYS, 11)


def test_a_domain_that_is_declared_by_later_members_begins_alike_in_all_shards() -> None:
    world = Sharded("us", "eu", "ap")
    world.ask("us", "member_evict", nodes=["ap"], configuration=world.at("us"), yes=True)
    world.run(3_000)
    world.declare("eu")
    for key in KEYS:
        world.add("us", key)
    world.run(2_000)
    assert world.listed("us") == world.listed("eu") == dict.fromkeys(KEYS, 1)
    for group in CRM.groups:
        begun = [world.sites[site].host.groups[group].configuration for site in ("us", "eu")]
        assert begun[0] == begun[1]
        assert [member.region for member in begun[0].members] == ["us", "eu"]
        assert len({world.sites["us"].host.groups[each].configuration.id for each in CRM.groups}) == 4
    assert group_named("crm") == "crm/0"
    assert group_named("crm/3") == "crm/3"
    assert name_of("crm/0", ["crm/0"]) == "crm"
    assert [name_of(group, CRM.groups) for group in CRM.groups] == list(CRM.groups)
