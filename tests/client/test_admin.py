"""``store.admin``: who belongs to the cluster, and orders that change it, from Python."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crdtstore.errors import AccessError, OutcomeUnknown, Unavailable, UsageError
from crdtstore_client import Store, connect
from crdtstore_client.admin import View, best_of
from crdtstore_client.members import Members, number_of, short_replica
from tests.client.fake_members import IDS, REGIONS, FakeMembers, keep_orphans, page, url_of


@pytest.fixture
def nodes() -> FakeMembers:
    return FakeMembers()


@pytest_asyncio.fixture
async def store(nodes: FakeMembers) -> AsyncIterator[Store]:
    async with connect(*map(url_of, REGIONS), transport=nodes, timeout=0.5) as store:
        yield store


async def test_members(store: Store, nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    members = await store.admin.members()
    assert (members.node, members.configuration, members.quorum.reached) == ("us-1", "3.ab12cd34", ["us-1", "eu-1"])
    us, eu, ap = members.members
    assert us.is_self
    assert (eu.connected, eu.heard_ms, eu.only_there.commits) == (True, 40, 0)
    assert (ap.connected, ap.heard_ms, ap.only_there.commits) == (False, 31_000, None)
    assert (await store.admin.members("eu-1")).region == "eu"
    assert (await store.admin.members(IDS["eu"])).region == "eu"
    with pytest.raises(Unavailable, match="http://ap does not answer"):
        await store.admin.members("ap-1")


async def test_evict(store: Store, nodes: FakeMembers) -> None:
    looked_at = await store.admin.members()
    members = await store.admin.evict("ap-1", configuration=looked_at.configuration)
    assert [each.node for each in members.members] == ["us-1", "eu-1"]
    assert members.removed[0].final == {"_sys": 12, "shop": None}
    assert [each.waits_for for each in members.groups] == [[], [IDS["ap"]]]
    assert nodes.posts == [
        (
            "us",
            "/admin/v1/members/evict",
            {"nodes": [IDS["ap"]], "configuration": "3.ab12cd34", "wait_ms": 1_000, "yes": True},
        )
    ]
    with pytest.raises(UsageError, match="changed since") as caught:
        await store.admin.evict("eu-1", configuration=looked_at.configuration)
    assert caught.value.code == "membership-changed"
    assert len((await store.admin.members()).members) == 2
    assert (await store.admin.evict("ap-1")).configuration == members.configuration  # it was done before


async def test_costs_change_nothing(store: Store, nodes: FakeMembers) -> None:
    admin = store.admin
    assert await admin.costs(await admin.order_evict(["ap-1"])) == [
        f"commits of {IDS['ap']} may be there only",
        "2 of 3 remain",
    ]
    assert [each.node for each in (await admin.members()).members] == ["us-1", "eu-1", "ap-1"]
    await admin.evict("ap-1")
    assert await admin.costs(await admin.order_evict(["ap-1"])) is None


async def test_leave_force_and_rejoin(store: Store, nodes: FakeMembers) -> None:
    assert (await store.admin.leave("eu-1")).state == "leaving"
    assert (await store.admin.rejoin("ap-1")).state == "joining"
    assert [each.node for each in (await store.admin.force("us-1", "eu-1")).members] == ["us-1", "eu-1"]
    assert [(name, path.rpartition("/")[2]) for name, path, _ in nodes.posts] == [
        ("eu", "leave"),
        ("ap", "rejoin"),
        ("us", "force"),
    ]


async def test_an_order_is_sent_once(store: Store, nodes: FakeMembers) -> None:
    nodes.fails["evict"] = Unavailable("too many wait. Nothing changed.", code="overloaded")
    with pytest.raises(Unavailable, match="too many wait"):
        await store.admin.evict("ap-1")
    nodes.fails["evict"] = "lost"
    with pytest.raises(OutcomeUnknown, match="member list shows"):
        await store.admin.evict("ap-1")
    assert len(nodes.posts) == 1  # the first fault came before it was done


async def test_a_credential_that_does_not_suffice(store: Store, nodes: FakeMembers) -> None:
    nodes.fails["members"] = AccessError("this credential may not look. Nothing changed.")
    nodes.dead.add("us")
    with pytest.raises(AccessError, match="may not look"):
        await store.admin.members()


async def test_what_is_no_node_of_ours(store: Store, nodes: FakeMembers) -> None:
    nodes.pages["us"] = {"hello": "I am a gateway"}
    assert (await store.admin.members()).node == "eu-1"
    nodes.pages = {"us": {"hello": "I am a gateway"}}
    with pytest.raises(Unavailable, match="no answer from http://us, http://eu, http://ap"):
        await store.admin.members()


async def test_orphans(store: Store, nodes: FakeMembers) -> None:
    keep_orphans(nodes)
    [(view, kept)] = await store.admin.orphans()
    assert (view.url, kept.replica, kept.count) == ("http://ap", IDS["ap"], 3)
    found = await store.admin.orphans_of(view, kept.replica, "shop")
    assert [each.changes[0].what for each in found] == ["adds 88", "adds 89", "adds 90"]
    done = await store.admin.apply(view, "shop", found[:2])
    assert [each["orphan"] for each in done["applied"]] == [found[0].dot, found[1].dot]
    assert [each.applied is None for each in await store.admin.orphans_of(view, kept.replica, "shop")] == [
        False,
        False,
        True,
    ]
    nodes.fails["apply"] = "lost"
    with pytest.raises(OutcomeUnknown, match="each counts once"):
        await store.admin.apply(view, "shop", found)


def test_names_of_replicas() -> None:
    members = Members.of(
        page("us") | {"removed": [{"replica": "ap-1.5555666677778888", "node": "ap-1", "region": "ap"}]}
    )
    assert members.names(IDS["eu"]) == "eu-1"
    assert members.names(IDS["ap"]) == "ap-1.99ab00cd"  # two ids had this name
    assert members.names("sa-1.0123456789abcdef") == "sa-1.01234567"
    assert members.find("ap-1").replica == IDS["ap"]
    assert members.was_removed("ap-1") is None  # the name means the member
    assert members.was_removed("ap-1.5555") == "ap-1.5555666677778888"
    with pytest.raises(UsageError, match="any more: it was removed"):
        members.find("55556666")
    assert short_replica("a.b-1.0123456789abcdef") == "a.b-1.01234567"
    assert (number_of("12.ab12cd34"), number_of("")) == (12, -1)


def test_a_group_that_has_not_heard_of_a_removal_is_not_settled() -> None:
    body = page("us")
    body["removed"] = [{"replica": IDS["ap"], "node": "ap-1", "region": "ap"}]
    body["members"] = body["members"][:2]
    body["groups"][0]["members"] = [IDS["us"], IDS["eu"]]
    assert Members.of(body).unsettled() == {IDS["ap"]: ["shop/0"]}  # it names ap-1 among its members
    body["groups"][1]["members"] = [IDS["us"], IDS["eu"]]
    assert Members.of(body).unsettled() == {}
    body["groups"][1]["waits_for"] = [IDS["ap"]]
    assert Members.of(body).unsettled() == {IDS["ap"]: ["shop/0"]}


def test_who_is_asked_first() -> None:
    views = [View(name, Members.of(page(name)), {}) for name in REGIONS]
    assert best_of(views).url == "us"
    assert best_of(views, without=[IDS["us"]]).url == "eu"
    assert best_of(views, among=[IDS["ap"]]).url == "ap"
    with pytest.raises(UsageError, match="this needs the url of one of those that go on: us is us-1"):
        best_of(views, among=["sa-1.0123456789abcdef"])
