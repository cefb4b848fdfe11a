"""Clusters: what a cluster file may say, and what follows from it for every group."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Cluster, ConfigurationId, Member, group_of
from crdtstore.engine.options import Options
from crdtstore.errors import UsageError

US, EU = make_replica_id("us-1", 1), make_replica_id("eu-1", 2)
MEMBERS = (Member(US, "us", "127.0.0.1:1"), Member(EU, "eu"))


def test_all_founders_agree_without_having_met() -> None:
    here, there = (Cluster("demo", b"n" * 16, MEMBERS).configuration("shop/0") for _ in range(2))
    assert here == there
    assert here.id.number == 0
    assert here.members == MEMBERS
    assert here.ids == here.origins == (US, EU)


def test_groups_and_clusters_have_configurations_of_their_own() -> None:
    cluster, other = Cluster("demo", b"n" * 16, MEMBERS), Cluster("demo", b"o" * 16, MEMBERS)
    ids = {
        made.configuration(group).id
        for made in (cluster, other)
        for group in (SYSTEM_GROUP, group_of("shop"), group_of("shop", 1))
    }
    assert len(ids) == 6
    assert all(isinstance(name, ConfigurationId) and len(name.nonce) == 16 for name in ids)


def test_members_are_found_by_their_id() -> None:
    cluster = Cluster("demo", b"n" * 16, MEMBERS)
    assert cluster.member(EU) is MEMBERS[1]
    assert cluster.member(make_replica_id("eu-1", 3)) is None
    assert MEMBERS[0].node == "us-1"


@pytest.mark.parametrize(
    ("name", "nonce", "members", "why"),
    [
        ("demo", b"short", MEMBERS, "16 bytes"),
        ("demo", b"n" * 16, (), "at least one member"),
        ("Demo", b"n" * 16, MEMBERS, "is named like"),
        ("demo", b"n" * 16, (Member(US, "USA"),), "is named like"),
        ("demo", b"n" * 16, (Member(US, "us"), Member(US, "eu")), "the same replica"),
        ("demo", b"n" * 16, (Member(US, "us"), Member(make_replica_id("us-1", 9), "eu")), "the same node"),
    ],
)
def test_a_cluster_that_cannot_be(name: str, nonce: bytes, members: tuple[Member, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Cluster(name, nonce, members)


@pytest.mark.parametrize(
    "given",
    [
        {"gossip_interval_ms": 0},
        {"early_bytes": 1},
        {"max_waiting": 0},
        {"no_such": 1},
        {"ack_delay_ms": "5"},
        {"retry_window_ms": 1 << 60},
    ],
)
def test_options_have_bounds(given: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, Options)
    assert msgspec.convert({"gossip_interval_ms": 100}, Options).gossip_interval_ms == 100
