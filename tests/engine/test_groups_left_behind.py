"""A group whose quorum is lost while that of the cluster is not: it is told, and there is a way on."""

from __future__ import annotations

from tests.engine.test_membership import Regrouping


def test_a_group_without_a_quorum_goes_on_by_force_though_the_cluster_has_one() -> None:
    world = Regrouping("us", "eu", has_stores=True)
    world.join("ap", "ap")
    for _ in range(400):
        world.run(20)
        if len(world.members("eu")) == 3:
            break
    assert world.members("eu", "shop/0") == ["us", "eu"]
    world.sites["us"].end(is_orderly=False)  # before it let the new member into the domain, too
    world.run(8_000)
    assert world.ask("eu", "members_status")["what_now"] != []
    asked = {"configuration": str(world.configuration("eu").id), "yes": True}
    world.ask("eu", "member_evict", nodes=["us"], **asked)
    world.run(5_000)
    assert world.members("eu") == ["eu", "ap"]
    assert world.members("eu", "shop/0") == ["us", "eu"]
    (said,) = world.ask("eu", "members_status")["what_now"]
    assert said.startswith("the members of shop do not follow those of the cluster")
    assert said.endswith("crdtstore member force eu ap")
    asked["configuration"] = str(world.configuration("eu").id)
    refused = world.ask("eu", "member_force", survivors=["eu", "ap"], configuration=asked["configuration"])
    assert refused.code == "confirm-needed"
    assert f"{world.replica('us')} can never be a member again" in refused.more["costs"]
    world.ask("eu", "member_force", survivors=["eu", "ap"], **asked)
    world.run(5_000)
    assert world.members("eu", "shop/0") == ["eu", "ap"]
    assert world.sites["ap"].host.groups["shop/0"].takes_part
    assert world.ask("eu", "members_status")["what_now"] == []
    again = world.ask(
        "eu", "member_force", survivors=["eu", "ap"], configuration=str(world.configuration("eu").id), yes=True
    )
    assert "these are all members" in again.detail
