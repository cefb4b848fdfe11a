"""Nodes of several workers: who holds which group, what the others answer, and who may go. Sans I/O."""

from __future__ import annotations

from collections import defaultdict, deque
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import MAX_WORKERS, machine_of, make_replica_id, node_of, parse_replica_id, worker_node, worker_of
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Configuration, Member, group_of
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, ProtocolError, Unavailable, UsageError
from crdtstore.host import Host, HostOutput
from crdtstore.service import PeerChanged, Service
from crdtstore.shards import shard_of
from tests.engine.wire import START_MS
from tests.unit.regions import Regions, op

SHARED = b"0123456789abcdef"


def members(*nodes: str, workers: int = 2) -> tuple[Member, ...]:
    names = [worker_node(node, worker) for node in nodes for worker in range(workers)] if workers > 1 else list(nodes)
    return tuple(Member(make_replica_id(name, at), name[:2]) for at, name in enumerate(names, 1))


def cluster_of(*nodes: str, workers: int = 2) -> Cluster:
    return Cluster.with_workers("test", SHARED, members(*nodes, workers=workers), workers)


class Crews(Regions):
    """Regions whose nodes have workers; each process is known by its name, ``us-1+0``."""

    def __init__(self, *nodes: str, workers: int = 2) -> None:
        self.cluster = cluster_of(*nodes, workers=workers)
        self.replicas = {member.node: member.replica for member in self.cluster.members}
        options = Options()
        self.services = {
            name: Service(Host(self.cluster, replica, options, Random(1))) for name, replica in self.replicas.items()
        }
        for name, service in self.services.items():
            urls = [f"http://{worker_node(machine_of(name), worker)}" for worker in range(workers)]
            service.host.workers.addresses = tuple(urls)
        self.now_ms = START_MS
        self.links = defaultdict(deque)
        self.numbers = defaultdict(list)
        self.replies = {}
        self.output = HostOutput()
        self._ticket = 0
        for left in self.services:
            for right in self.services:
                if left != right:
                    self.step(left, PeerChanged(self.replicas[right], True))
        self.flush()

    def owner(self, machine: str, key: str, shards: int, collection: str = "orders") -> str:
        return worker_node(machine, shard_of(collection, key, shards) % self.cluster.workers)

    def refusal(self, name: str, do: str, **fields: Any) -> Unavailable:
        error = self.refused(name, do, **fields)
        assert isinstance(error, Unavailable), error
        assert (error.code, error.status, error.effect, error.retryable) == ("wrong-worker", 421, "none", True)
        return error


def crews(*nodes: str, workers: int = 2, shards: int = 4) -> Crews:
    made = Crews(*(nodes or ("us-1", "eu-1")), workers=workers)
    first = next(iter(made.services))
    made.do(first, "declare_domain", domain="shop", shards=shards)
    made.do(first, "declare", domain="shop", collection="orders", type="counter")
    made.settle(500)
    return made


# --- names and configurations


@given(st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True), st.integers(0, 99))
def test_a_worker_is_told_by_its_name(machine: str, worker: int) -> None:
    name = worker_node(machine, worker)
    assert (machine_of(name), worker_of(name)) == (machine, worker)
    assert (machine_of(machine), worker_of(machine)) == (machine, None)
    replica = make_replica_id(name, 7)
    assert node_of(replica) == name
    member = Member(replica, "us")
    assert (member.node, member.machine, member.worker) == (name, machine, worker)


@pytest.mark.parametrize("name", ["us-1+", "us-1+01", "us-1+-1", "us-1+100", "us-1+1+1", "+1", "us-1+x"])
def test_what_is_no_worker_has_no_id(name: str) -> None:
    with pytest.raises(ValueError, match="replica id"):
        parse_replica_id(f"{name}.{'0' * 16}")


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 40))
def test_each_shard_is_held_by_one_worker_of_each_node(workers: int, nodes: int, shards: int) -> None:
    cluster = cluster_of(*(f"n{at}" for at in range(nodes)), workers=workers)
    everybody = cluster.members
    system = cluster.configuration(SYSTEM_GROUP)
    assert system.members == everybody
    later = Configuration(3, ((0, b"x"),), everybody)
    for shard in range(shards):
        group = group_of("shop", shard)
        for configuration in (cluster.configuration(group), cluster.beginning(group, later)):
            configuration.check()
            assert {member.machine for member in configuration.members} == {f"n{at}" for at in range(nodes)}
            assert len(configuration.members) == nodes
            assert {member.worker for member in configuration.members} == {shard % workers}
        holders = [
            member.node
            for member in everybody
            if Host(cluster, member.replica, Options(), Random(1)).holds(group) and member.machine == "n0"
        ]
        assert holders == [worker_node("n0", shard % workers) if workers > 1 else "n0"]


def test_one_worker_is_as_it_ever_was() -> None:
    """What is signed, hashed and stored of a cluster does not change for those who have no workers."""
    plain = Cluster("test", SHARED, members("us-1", "eu-1", workers=1))
    told = cluster_of("us-1", "eu-1", workers=1)
    assert told.nonce == plain.nonce == SHARED
    for group in (SYSTEM_GROUP, "shop/0", "shop/7"):
        assert told.configuration(group) == plain.configuration(group)
        assert told.worker_of(group) is None
    assert cluster_of("us-1", "eu-1", workers=2).nonce not in {SHARED, cluster_of("us-1", workers=3).nonce}


def test_a_cluster_has_all_workers_of_each_number_or_none() -> None:
    us, eu = members("us-1", "eu-1", workers=1)
    workers = members("us-1", workers=2)
    for wrong, count, said in (
        ((us, eu), 2, "no worker, but the nodes of the cluster test have 2 workers each"),
        (workers, 1, "worker 0, but the nodes of the cluster test have one worker each"),
        (members("us-1", workers=3), 2, "is worker 2, but"),
        (workers[:1], 2, "no member is worker 1 of 2"),
        ((us,), 0, "1 to 64 workers, got 0"),
        ((us,), MAX_WORKERS + 1, "1 to 64 workers, got 65"),
    ):
        with pytest.raises(UsageError, match=said):
            Cluster.with_workers("test", SHARED, wrong, count)


def test_who_counts_otherwise_is_refused_in_words() -> None:
    def host(workers: int, node: str = "us-1") -> Host:
        cluster = cluster_of("us-1", "eu-1", workers=workers)
        return Host(cluster, members(node, workers=workers)[0].replica, Options(), Random(workers))

    two, three, one = host(2), host(3), host(1)
    for here, there, said in ((two, three, 3), (three, two, 2), (two, one, 1), (one, two, 2)):
        with pytest.raises(
            ProtocolError, match=rf"this cluster with workers = {said}, but here it is {here.workers.count}"
        ):
            here.check_hello(there.hello(None, START_MS))
    other = Cluster.with_workers("test", b"another nonce 16", members("eu-1"), 2)
    with pytest.raises(ProtocolError, match="belongs to another cluster"):
        two.check_hello(Host(other, other.members[0].replica, Options(), Random(9)).hello(None, START_MS))


def test_nobody_is_a_worker_beyond_the_number() -> None:
    here = Host(cluster_of("us-1"), members("us-1")[0].replica, Options(), Random(1))
    forged = Cluster("test", here.cluster.nonce, members("eu-1", workers=3), 3)
    with pytest.raises(ProtocolError, match=r"eu-1\+2.* is worker 2, but the nodes of the cluster test have 2 workers"):
        here.check_hello(Host(forged, forged.members[2].replica, Options(), Random(2)).hello(None, START_MS))


# --- requests


def test_groups_are_open_only_where_they_are_held() -> None:
    made = crews(shards=5, workers=2)
    for name, service in made.services.items():
        held = {group for group in service.host.groups if group != SYSTEM_GROUP}
        assert held == {f"shop/{shard}" for shard in range(5) if shard % 2 == worker_of(name)}
        for group in held:
            there = service.host.groups[group].configuration.members
            assert {member.worker for member in there} == {worker_of(name)}
            assert len(there) == 2
        status = service.status(made.now_ms)
        assert status["domains"] == {"shop": 5}
        assert [each["node"] for each in status["workers"]] == [worker_node(machine_of(name), at) for at in (0, 1)]
        assert [each["api"] for each in status["workers"]] == [f"http://{machine_of(name)}+{at}" for at in (0, 1)]


def test_every_key_has_one_owner_in_each_region_and_all_others_name_it() -> None:
    made = crews(shards=4, workers=2)
    keys = [f"key-{at}" for at in range(40)]
    for key in keys:
        for machine in ("us-1", "eu-1"):
            owner = made.owner(machine, key, 4)
            other = worker_node(machine, 1 - (worker_of(owner) or 0))
            fields: dict[str, Any] = {"domain": "shop", "collection": "orders", "key": key}
            refusals = [
                made.refusal(other, "commit", domain="shop", ops=[op("orders", key, "add")]),
                *(made.refusal(other, do, **fields) for do in ("read", "explain")),
            ]
            for error in refusals:
                assert error.more["worker"] == worker_of(owner)
                assert error.more["shards"] == 4
                assert error.more["domain"] == "shop"
                assert error.more["workers"][error.more["worker"]]["node"] == owner
                assert f"held by the worker {owner} at http://{owner}" in error.detail
                assert error.detail.endswith("Nothing changed.")
            assert made.commit(owner, op("orders", key, "add"))["values"] == [1]
    made.settle()
    for key in keys:
        for machine in ("us-1", "eu-1"):
            owner = made.owner(machine, key, 4)
            assert made.do(owner, "read", domain="shop", collection="orders", key=key)["value"] == 2
    for shard in range(4):
        digests = {
            service.host.groups[f"shop/{shard}"].digest
            for name, service in made.services.items()
            if worker_of(name) == shard % 2
        }
        assert len(digests) == 1


def test_a_list_is_never_a_part_of_the_domain_unasked() -> None:
    made = crews(shards=4, workers=2)
    keys = sorted(f"key-{at:02}" for at in range(30))
    for key in keys:
        made.commit(made.owner("us-1", key, 4), op("orders", key, "add"))
    fields: dict[str, Any] = {"domain": "shop", "collection": "orders", "limit": 100}
    found = []
    for worker in (0, 1):
        name = worker_node("us-1", worker)
        for do, more in (("list", fields), ("conflicts", {"domain": "shop"})):
            error = made.refusal(name, do, **more)
            assert error.more["owners"] == [0, 1]
            assert "http://us-1+0" in error.detail
            assert "http://us-1+1" in error.detail
            made.refusal(name, do, **more, shards_of=1 - worker)
            made.refusal(name, do, **more, shards_of=7)
        found.append([item["key"] for item in made.do(name, "list", **fields, shards_of=worker)["items"]])
        assert made.do(name, "conflicts", domain="shop", shards_of=worker)["items"] == []
    assert sorted(found[0] + found[1]) == keys
    assert found[0]
    assert found[1]


def test_a_domain_of_few_shards_has_few_owners() -> None:
    made = crews(shards=1, workers=3)
    made.commit("us-1+0", op("orders", "de", "add"))
    fields: dict[str, Any] = {"domain": "shop", "collection": "orders"}
    assert made.do("us-1+0", "list", **fields)["items"] == [{"key": "de"}]
    for name in ("us-1+1", "us-1+2"):
        assert made.refusal(name, "list", **fields).more["owners"] == [0]
        made.refusal(name, "list", **fields, shards_of=worker_of(name))


def test_every_worker_declares_and_tells_what_is_declared() -> None:
    made = crews(shards=3, workers=2)
    made.do("eu-1+1", "declare", domain="shop", collection="names", type="lww_register")
    made.settle(500)
    for name in made.services:
        assert made.do(name, "domain", domain="shop")["collections"] == {"names": "lww_register", "orders": "counter"}
    key = next(key for key in map(str, range(99)) if shard_of("names", key, 3) == 1)
    made.commit("us-1+1", op("names", key, "set", value="Ada"))


def test_a_token_of_one_worker_is_shown_to_the_others() -> None:
    """What a session has seen at one worker does not hold it up at another, and is not forgotten there either."""
    made = crews(shards=2, workers=2)
    zero, one = (next(key for key in map(str, range(99)) if shard_of("orders", key, 2) == at) for at in (0, 1))
    first = made.commit("us-1+0", op("orders", zero, "add"))
    second = made.commit("us-1+1", op("orders", one, "add"), token=first["token"])
    made.lose()
    error = made.ask("eu-1+1", "read", domain="shop", collection="orders", key=one, token=second["token"], wait_ms=0)
    assert made.error(error).code == "replica-behind"
    seen = made.services["us-1+1"].sessions.seen(second["token"])
    assert {group for group, vector in seen.items() if vector} >= {"shop/0", "shop/1"}
    made.settle(8_000)
    third = made.do("eu-1+1", "read", domain="shop", collection="orders", key=one, token=second["token"], wait_ms=0)
    assert third["value"] == 1
    made.do("eu-1+0", "read", domain="shop", collection="orders", key=zero, token=third["token"], wait_ms=0)


def test_a_commit_across_shards_is_refused_whoever_holds_them() -> None:
    made = crews(shards=2, workers=2)
    zero, one = (next(key for key in map(str, range(99)) if shard_of("orders", key, 2) == at) for at in (0, 1))
    for name in ("us-1+0", "us-1+1"):
        error = made.refused(name, "commit", domain="shop", ops=[op("orders", zero, "add"), op("orders", one, "add")])
        assert error.code == "cross-shard"
    assert not made.services["us-1+0"].host.groups["shop/0"].applied[0]


# --- members


def evict(made: Crews, at: str, *nodes: str) -> dict[str, Any] | CrdtStoreError:
    configuration = made.do(at, "members_status")["configuration"]
    ticket = made.ask(at, "member_evict", nodes=list(nodes), configuration=configuration, yes=True)
    made.settle(3_000)
    return made.replies[ticket]


def test_an_evicted_node_goes_with_all_its_workers_and_from_every_group() -> None:
    made = crews("us-1", "eu-1", "ap-1", shards=3)
    reply = evict(made, "us-1+0", "ap-1")
    assert isinstance(reply, dict), reply
    made.settle(6_000)
    left = {"us-1+0", "us-1+1", "eu-1+0", "eu-1+1"}
    for name in left:
        host = made.services[name].host
        assert {member.node for member in host.roster.members} == left
        for group, engine in host.groups.items():
            expected = left if group == SYSTEM_GROUP else {each for each in left if worker_of(each) == worker_of(name)}
            assert {member.node for member in engine.configuration.members} == expected, group
    again = evict(made, "us-1+0", "ap-1")
    assert isinstance(again, dict), "it is done already"


def test_nobody_goes_whose_shards_nobody_else_would_hold() -> None:
    made = crews("us-1", "eu-1", shards=2)
    error = evict(made, "us-1+0", "us-1+1", "eu-1+1")
    assert isinstance(error, UsageError)
    assert "no member would be worker 1 of 2: its shards would be lost. Nothing changed." in error.detail
    configuration = made.do("us-1+0", "members_status")["configuration"]
    ticket = made.ask("us-1+0", "member_force", survivors=["us-1+0", "eu-1+0"], configuration=configuration, yes=True)
    assert "no member would be worker 1 of 2" in made.error(ticket).detail
    assert isinstance(evict(made, "us-1+0", "eu-1+1"), dict)
    leaves = made.ask("us-1+1", "member_leave")
    assert "the only member that is worker 1" in made.error(leaves).detail


def test_one_worker_can_go_alone() -> None:
    made = crews("us-1", "eu-1", "ap-1", shards=2)
    assert isinstance(evict(made, "us-1+0", "ap-1+1"), dict)
    made.settle(6_000)
    zero, one = (made.services[name].host.groups for name in ("us-1+0", "us-1+1"))
    assert len(zero["shop/0"].configuration.members) == 3
    assert len(one["shop/1"].configuration.members) == 2
