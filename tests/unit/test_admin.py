"""What operators may get wrong, what a node is, and what it serves while it is not simply a member."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.admin.asked import ADMIN, MAX_APPLIED, MAX_NAMED, parse_admin
from crdtstore.admin.costs import what_now
from crdtstore.admin.heard import only_there
from crdtstore.admin.identity import State, mark_of, state_of
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.events import Persisted
from crdtstore.errors import UsageError
from crdtstore.service import PeerChanged
from crdtstore.values import to_json_bytes
from tests.unit.regions import Regions, op, shop

READ = {"domain": "shop", "collection": "counter", "key": "k"}
AT = "0.00000000"


@pytest.fixture
def made() -> Regions:
    made = shop("us", "eu", "ap")
    made.commit("us", op("counter", "k", "add"))
    made.settle()
    return made


# --- requests


@pytest.mark.parametrize(
    ("do", "fields", "said"),
    [
        ("member_evict", {}, "nodes"),
        ("member_evict", {"nodes": []}, "nodes are 1 to"),
        ("member_evict", {"nodes": ["x"] * 2}, "different names"),
        ("member_evict", {"nodes": [str(each) for each in range(MAX_NAMED + 1)]}, "nodes are 1 to"),
        ("member_evict", {"nodes": [1]}, "nodes"),
        ("member_evict", {"nodes": ["x"], "yes": True}, "configuration is the one that you looked at"),
        ("member_evict", {"nodes": ["x"], "yes": "yes", "configuration": AT}, "yes must be true or false"),
        ("member_evict", {"nodes": ["x"], "force": True}, "force"),
        ("member_force", {"survivors": []}, "survivors are 1 to"),
        ("member_force", {"survivors": ["x"], "yes": True}, "configuration is the one"),
        ("member_leave", {"node": 1}, "node must be text"),
        ("orphans", {"replica": "x"}, "given together"),
        ("orphans", {"domain": "x"}, "given together"),
        ("orphans", {"limit": 0}, "limit is 1 to"),
        ("orphans", {"limit": 1_001}, "limit is 1 to"),
        ("orphan_apply", {"domain": "Shop", "commits": ["x"]}, "named like"),
        ("orphan_apply", {"domain": "shop", "commits": []}, "commits are 1 to"),
        ("orphan_apply", {"domain": "shop", "commits": ["x"] * (MAX_APPLIED + 1)}, "commits are 1 to"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(do: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_admin(do, fields)
    assert caught.value.detail.endswith("Nothing changed.")


def test_every_request_of_operators_is_taken_by_the_service(made: Regions) -> None:
    for do in ADMIN:
        ticket = made.ask("us", do)
        made.sync("us")
        answer = made.answer(ticket)
        assert answer is not None, do
        assert not isinstance(answer, UsageError) or "there is no request" not in answer.detail


# --- what a node is


def test_the_page_changes_nothing_and_can_be_written(made: Regions) -> None:
    body = made.do("us", "members_status")
    assert made.do("us", "members_status") == body
    to_json_bytes(body)
    assert [each["heard_ms"] is not None for each in body["members"]] == [True, True, True]


def _be(made: Regions, state: State) -> None:
    host = made.services["us"].host
    if state == "unproven":
        host.unproven = "a copy may run elsewhere"
    elif state == "fenced":
        host.groups[SYSTEM_GROUP].fence("somebody else writes under its id")
    elif state == "leaving":
        made.do("us", "member_leave")
    elif state == "joining":
        host.groups["shop/0"].membership.is_installed = False


@pytest.mark.parametrize(
    ("state", "code", "mark"),
    [
        ("member", None, None),
        ("unproven", "identity-unproven", "unproven"),
        ("fenced", "fenced", "fenced"),
        ("leaving", "leaving", None),
        ("joining", "not-ready", None),
    ],
)
def test_what_a_node_is_and_what_it_takes(made: Regions, state: State, code: str | None, mark: str | None) -> None:
    _be(made, state)
    host = made.services["us"].host
    assert state_of(host)[0] == state
    assert (state_of(host)[1] is None) == (state == "member")
    status = made.do("us", "status")
    assert (status["identity"], status["ready"]) == (state, state == "member")
    asked: list[tuple[str, dict[str, Any]]] = [("commit", {"domain": "shop", "ops": [op("counter", "k", "add")]})]
    if state != "joining":
        asked.append(("declare_domain", {"domain": "crm"}))
    for do, fields in asked:
        ticket = made.ask("us", do, **fields)
        made.sync("us")
        answer = made.answer(ticket)
        assert (answer.code if not isinstance(answer, dict) and answer is not None else None) == code, do
    if state == "joining":
        assert made.refused("us", "read", **READ).code == "not-ready"
        return
    assert mark_of(host, host.groups["shop/0"]) == mark
    for do, fields in (
        ("read", READ),
        ("list", {"domain": "shop", "collection": "counter"}),
        ("explain", READ),
        ("domain", {"domain": "shop"}),
    ):
        assert made.do("us", do, **fields).get("identity") == mark, do


def test_an_answer_waits_for_its_own_record(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[op("counter", "k", "add")])
    ticket = made.ask("us", "member_leave")
    first, second = made.numbers["us"]
    made.step("us", Persisted(first))
    assert made.answer(ticket) is None
    made.step("us", Persisted(second))
    assert made.reply(ticket)["state"] == "leaving"


def test_a_domain_that_is_declared_and_not_here_is_not_ready(made: Regions) -> None:
    host = made.services["us"].host
    engine = host.groups.pop("shop/0")
    for do in ("read", "explain"):
        error = made.refused("us", do, **READ)
        assert (error.code, error.status, error.retryable, error.retry_after) == ("not-ready", 503, True, 1.0)
    assert made.refused("us", "commit", domain="shop", ops=[op("counter", "k", "add")]).code == "not-ready"
    assert made.refused("us", "read", **{**READ, "domain": "none"}).code == "not-declared"
    host.groups["shop/0"] = engine
    host.groups[SYSTEM_GROUP].membership.is_installed = False
    engine.membership.is_installed = False
    for do, fields in (
        ("read", {**READ, "domain": "none"}),
        ("declare_domain", {"domain": "none"}),
        ("declare", {"domain": "none", "collection": "c", "type": "counter"}),
    ):
        assert made.refused("us", do, **fields).code == "not-ready", "nobody here knows what is declared"


def test_commits_that_only_one_has_are_counted_where_it_is_heard(made: Regions) -> None:
    us, eu = made.services["us"].host, made.services["eu"].host
    me, other = made.replicas["us"], made.replicas["ap"]
    assert (only_there(us, [me], made.now_ms), only_there(us, [other], made.now_ms)) == (0, 0)
    for region in ("eu", "ap"):
        made.step("us", PeerChanged(made.replicas[region], False))
    for _ in range(3):
        made.commit("us", op("counter", "k", "add"))
    made.lose()
    assert only_there(us, [me], made.now_ms) == 3
    assert only_there(us, [other], made.now_ms) is None, "it is not connected"
    made.now_ms += 6_000
    assert only_there(eu, [me], made.now_ms) is None, "connected, and silent for long"


def test_a_node_that_is_alone_says_how_to_go_on(made: Regions) -> None:
    for region in ("eu", "ap"):
        made.step("us", PeerChanged(made.replicas[region], False))
    body = made.do("us", "members_status")
    assert body["quorum"]["reachable"] is False
    assert body["quorum"]["reached"] == ["us-1"]
    (said,) = body["what_now"]
    assert "crdtstore member force us-1" in said
    body["members"][1]["node"] = "ap-1"
    body["quorum"]["reachable"] = True
    (said,) = what_now(made.services["us"].host, body)
    assert f"evict {made.replicas['eu']} {made.replicas['ap']}" in said, (
        "two lives of one node are told apart by their ids"
    )
    made.step("us", PeerChanged(made.replicas["eu"], True))
    (said,) = made.do("us", "members_status")["what_now"]
    assert "crdtstore member evict ap-1" in said
