"""What becomes of what was begun: who is fenced decides nothing, what was given up is not tried on behalf of another order, and what
becomes durable after the id was lost is not acknowledged.
"""

from __future__ import annotations

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Member
from crdtstore.engine.events import Tick
from crdtstore.engine.membership.changes import Evict, Join, successor
from crdtstore.errors import CrdtStoreError
from crdtstore.messages import Configure, encode_message
from crdtstore.service import Received, Request
from tests.engine.test_membership import Regrouping

JOIN = Join(Member(make_replica_id("sa", 99), "sa"))


@pytest.mark.parametrize("syncs", [0, 1, 2])
def test_who_is_fenced_decides_nothing_not_even_alone(syncs: int) -> None:
    world = Regrouping("us")
    site = world.sites["us"]
    world.order("us", JOIN)
    for _ in range(syncs):  # it has promised, it has accepted
        site.step(Tick())
    site.host.fence("another one speaks under its id")
    world.run(3_000)
    assert world.configuration("us").number == 0
    assert not site.host.groups[SYSTEM_GROUP].membership.orders


def test_what_was_given_up_is_not_decided_while_another_order_waits() -> None:
    world = Regrouping("us", "eu", "ap")
    site = world.sites["us"]
    decision = site.host.groups[SYSTEM_GROUP].membership.decision
    change = Evict((world.replica("ap"),), world.configuration("us").id)
    site.act(lambda out: site.host.order(SYSTEM_GROUP, change, 1, world.time_ms, out))
    site.act(lambda out: site.host.order(SYSTEM_GROUP, JOIN, 2, world.time_ms, out))
    site.step(Tick())
    site.sync()  # the promises of others are on their way
    assert decision.ballots == 1
    decision.give_up(1)
    answers = list[CrdtStoreError | None]()
    site.host.on_decided = lambda decided: answers.extend(error for _, error in decided)
    world.run(3_000)
    assert answers == [None]
    assert [member.node for member in world.configuration("us").members] == ["us", "eu", "ap", "sa"]


@pytest.mark.parametrize("how", ["fenced", "removed"])
def test_what_is_durable_only_after_its_id_was_lost_is_not_acknowledged(how: str) -> None:
    world = Regrouping("us", "eu", "ap")
    site, shop = world.sites["eu"], world.configuration("us", "shop/0")
    op = {"collection": "visits", "key": "k", "op": "add"}
    site.step(Request(777, "commit", {"domain": "shop", "ops": [op]}))
    if how == "fenced":
        site.host.fence("another one speaks under its id")
    else:
        value = successor(shop, Evict((site.replica,), shop.id), world.replica("us"))
        assert value is not None
        site.step(Received(world.replica("us"), encode_message(Configure("shop/0", value))))
    assert 777 not in world.replies
    site.sync()
    refused = world.replies[777]
    assert isinstance(refused, CrdtStoreError)
    assert (refused.code, refused.effect) == ("fenced", "unknown")
