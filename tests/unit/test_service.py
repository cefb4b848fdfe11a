"""The request rules: what waits for what, how long, and what is said when it is too late."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from crdtstore.engine.events import Tick
from crdtstore.errors import ReplicaBehind
from crdtstore.host import Host
from crdtstore.service import Cancelled, Request, Service
from crdtstore.tokens import Seen
from tests.unit.regions import Regions, op, shop

ADD = op("counter", "k", "add")
READ = {"domain": "shop", "collection": "counter", "key": "k"}


@pytest.fixture
def made() -> Regions:
    return shop("us", "eu")


# --- shapes


def test_the_shape_of_a_write_and_a_read(made: Regions) -> None:
    written = made.commit("us", op("counter", "de", "add", amount=3), reason="order 981", trace_id="t-1")
    assert set(written) == {"dot", "token", "values", "replayed", "durable_in"}
    assert written["dot"] == f"{made.replicas['us']}:1"
    assert (written["values"], written["replayed"], written["durable_in"]) == ([3], False, ["us"])
    read = made.do("us", "read", domain="shop", collection="counter", key="de")
    assert set(read) == {"value", "exists", "type", "etag", "token", "region", "staleness_ms", "conflicts"}
    assert (read["value"], read["exists"], read["type"], read["region"], read["conflicts"]) == (
        3,
        True,
        "counter",
        "us",
        0,
    )
    assert re.fullmatch(r'"[0-9a-f]{32}"', read["etag"])


@pytest.mark.parametrize(
    ("collection", "empty"),
    [("counter", 0), ("aw-set", []), ("lww-map", {}), ("lww-register", None), ("event-log", [])],
)
def test_absent_is_empty(made: Regions, collection: str, empty: Any) -> None:
    read = made.do("us", "read", domain="shop", collection=collection, key="never")
    assert (read["value"], read["exists"], read["conflicts"]) == (empty, False, 0)


def test_a_write_shows_readings_where_they_are_cheap(made: Regions) -> None:
    ops = [
        op("counter", "k", "add", amount=2),
        op("aw-set", "k", "add", elements=["x"]),
        op("counter", "k", "add", amount=3),
        op("lww-register", "k", "set", value="v"),
        op("counter", "k", "delete"),
    ]
    assert made.commit("us", *ops)["values"] == [2, None, 5, "v", 0]


def test_a_commit_is_atomic(made: Regions) -> None:
    error = made.refused("us", "commit", domain="shop", ops=[ADD, op("counter", "k", "add", amount="x")])
    assert error.code == "invalid-value"
    assert made.do("us", "read", **READ)["exists"] is False


def test_conflicts_are_counted(made: Regions) -> None:
    made.commit("us", op("lww-register", "k", "set", value=1), op("event-log", "k", "append", id="e", body=1))
    made.commit("eu", op("lww-register", "k", "set", value=2), op("event-log", "k", "append", id="e", body=2))
    made.settle()
    for region in ("us", "eu"):
        register = made.do(region, "read", domain="shop", collection="lww-register", key="k")
        assert (register["value"], register["conflicts"]) == (1, 1), "the greater name wins a tie"
        log = made.do(region, "read", domain="shop", collection="event-log", key="k")
        assert ([event["body"] for event in log["value"]], log["conflicts"]) == ([2], 1), "the first counts"


# --- etags


def test_if_match_compares_with_this_region(made: Regions) -> None:
    etag = made.do("us", "read", **READ)["etag"]
    assert made.commit("us", op("counter", "k", "add", if_match=etag))["values"] == [1]
    error = made.refused("us", "commit", domain="shop", ops=[op("counter", "k", "add", if_match=etag)])
    assert (error.code, error.status) == ("precondition-failed", 412)
    now = made.do("us", "read", **READ)["etag"]
    assert now in error.detail
    made.settle()
    assert made.do("eu", "read", **READ)["etag"] == now, "equal states have equal etags in every region"


# --- lists


def test_a_refusal_that_shows_an_etag_waits_for_the_disk(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[ADD])
    refused = made.ask("us", "commit", domain="shop", ops=[op("counter", "k", "add", if_match='"0"')])
    other = made.ask("us", "commit", domain="shop", ops=[op("counter", "other", "add", if_match='"0"')])
    assert made.answer(refused) is None, "a power cut could take what it shows"
    assert made.error(other).code == "precondition-failed"
    made.sync("us")
    assert made.error(refused).code == "precondition-failed"


def test_a_list_is_in_key_order_and_paged(made: Regions) -> None:
    keys = ["a", "b", "ba", "bb", "c", "ä", "z/y", "B"]
    for key in keys:
        made.commit("us", op("counter", key, "add"))
    order = sorted(keys, key=str.encode)
    listed = made.do("us", "list", domain="shop", collection="counter")
    assert [item["key"] for item in listed["items"]] == order
    assert listed["next"] is None
    assert listed["items"][0] == {"key": "B"}
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = made.do("us", "list", domain="shop", collection="counter", limit=3, after=after, values=True)
        found += [item["key"] for item in page["items"]]
        assert all(item["value"] == 1 for item in page["items"])
        after = page["next"]
    assert found == order
    b = made.do("us", "list", domain="shop", collection="counter", prefix="b", after="b")
    assert [item["key"] for item in b["items"]] == ["ba", "bb"]
    made.commit("us", op("counter", "ba", "delete"))
    made.commit("us", op("counter", "bc", "add"))
    b = made.do("us", "list", domain="shop", collection="counter", prefix="b")
    assert [item["key"] for item in b["items"]] == ["b", "bb", "bc"]
    assert made.do("us", "list", domain="shop", collection="aw-set")["items"] == []


def test_a_list_waits_for_the_disk(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[ADD])
    ticket = made.ask("us", "list", domain="shop", collection="counter")
    assert made.answer(ticket) is None
    made.sync("us")
    assert [item["key"] for item in made.reply(ticket)["items"]] == ["k"]


# --- durable first


def test_a_read_waits_for_what_it_would_show(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[ADD])
    waiting = made.ask("us", "read", **READ)
    other = made.ask("us", "read", **{**READ, "key": "other"})
    assert made.answer(waiting) is None
    assert made.reply(other)["value"] == 0, "a read of another key does not wait"
    made.sync("us")
    assert made.reply(waiting)["value"] == 1


@pytest.mark.parametrize("name", ["fresh", "fresh@counter"])
def test_a_collection_is_read_once_its_declaration_is_durable(made: Regions, name: str) -> None:
    made.ask("us", "declare", domain="shop", collection="fresh", type="counter")
    read = made.ask("us", "read", domain="shop", collection=name, key="k")
    listed = made.ask("us", "list", domain="shop", collection=name)
    other = made.ask("us", "read", **READ)
    assert made.answer(read) is made.answer(listed) is None, "a power cut could take the declaration"
    assert made.reply(other)["value"] == 0
    made.sync("us")
    assert (made.reply(read)["value"], made.reply(listed)["items"]) == (0, [])


def test_a_read_beside_a_busy_writer_shows_what_was_there_when_it_was_asked(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[ADD])
    first = made.numbers["us"].copy()
    waiting = made.ask("us", "read", **READ)
    listing = made.ask("us", "list", domain="shop", collection="counter", values=True)
    made.ask("us", "commit", domain="shop", ops=[ADD])
    second = [number for number in made.numbers["us"] if number not in first]
    made.numbers["us"] = first
    made.sync("us")
    assert made.reply(waiting)["value"] == 1, "the second write is not durable"
    assert made.reply(listing)["items"] == [{"key": "k", "value": 1}]
    made.numbers["us"] = second
    made.sync("us")
    assert made.do("us", "read", **READ)["value"] == 2


def test_a_reading_grows_older_while_it_waits(made: Regions) -> None:
    made.settle(500)
    before = made.do("us", "read", **READ)["staleness_ms"]
    made.ask("us", "commit", domain="shop", ops=[ADD])
    waiting = made.ask("us", "read", **READ)
    made.now_ms += 700
    made.sync("us")
    assert made.reply(waiting)["staleness_ms"] == before + 700


def test_a_read_waits_for_what_peers_wrote_until_it_is_durable_here(made: Regions) -> None:
    made.commit("eu", ADD)
    made.deliver("eu", "us")
    waiting = made.ask("us", "read", **READ)
    assert made.answer(waiting) is None
    made.sync("us")
    assert made.reply(waiting)["value"] == 1


def test_a_disk_that_never_answers_ends_a_read(made: Regions) -> None:
    made.ask("us", "commit", domain="shop", ops=[ADD])
    waiting = made.ask("us", "read", **READ)
    assert made.output.wake_ms <= made.now_ms + made.services["us"].host.options.max_wait_ms
    made.tick(60_000)
    error = made.error(waiting)
    assert (error.code, error.effect, error.retryable) == ("storage-failed", "none", True)


def test_writes_of_one_step_are_one_batch(made: Regions) -> None:
    requests = [Request(1_000 + at, "commit", {"domain": "shop", "ops": [ADD]}) for at in range(3)]
    out = made.step("us", *requests)
    assert len(out.persist) == 3
    assert len(made.numbers["us"]) == 1
    made.sync("us")
    assert [made.reply(1_000 + at)["values"] for at in range(3)] == [[1], [2], [3]]


def test_events_of_one_step_happen_in_their_order(made: Regions) -> None:
    """A write is handed to its engine before the next event that is no request, so what that event says of the state is true."""
    made.settle(500)
    before = made.numbers["us"].copy()
    asked = Request(2_000, "commit", {"domain": "shop", "ops": [ADD]})
    made.step("us", asked, Tick(), Request(2_001, "read", READ), Cancelled(2_001))
    assert len(made.numbers["us"]) == len(before) + 1
    made.sync("us")
    assert made.reply(2_000)["values"] == [1]
    assert made.answer(2_001) is None, "who asked went away in the same step"


# --- tokens


def test_a_session_reads_its_writes_in_another_region(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    ticket = made.ask("eu", "read", **READ, token=token)
    assert made.answer(ticket) is None
    assert made.output.wake_ms <= made.now_ms + 1_000
    made.flush()
    reply = made.reply(ticket)
    assert reply["value"] == 1
    assert made.do("us", "read", **READ, token=reply["token"])["value"] == 1


def test_too_late_says_who_can_serve() -> None:
    made = shop("us", "eu", "ap")
    token = made.commit("us", ADD)["token"]
    ticket = made.ask("eu", "read", **READ, token=token, wait_ms=300)
    made.links["us", "eu"].clear()
    made.deliver("us", "ap")
    made.sync("ap")
    for _ in range(3):
        made.tick(99)
        made.deliver("ap", "eu")
        assert made.answer(ticket) is None
        made.links["us", "eu"].clear()
    made.tick(3)
    error = made.error(ticket)
    assert isinstance(error, ReplicaBehind)
    assert (error.status, error.effect, error.retryable, error.retry_after) == (503, "none", True, 0.1)
    assert error.regions == ["us", "ap"], "who made the write has it; ap said so"
    assert "regions that can serve: us, ap" in error.detail


def test_who_is_behind_its_own_past_sends_nobody_to_itself() -> None:
    made = shop("us", "eu")
    token = made.services["us"].sessions.token(None, "shop/0", {made.replicas["us"]: 7})
    error = made.error(made.ask("us", "read", **READ, token=token, wait_ms=0))
    assert isinstance(error, ReplicaBehind)
    assert error.regions == []


def test_nobody_may_be_known_to_have_it() -> None:
    """The session wrote in two regions that cannot hear each other: each has its own write and not the other's."""
    made = shop("us", "eu", "ap")
    both = f"{made.commit('us', ADD)['token']},{made.commit('ap', ADD)['token']}"
    made.lose()
    error = made.error(made.ask("eu", "read", **READ, token=both, wait_ms=0))
    assert isinstance(error, ReplicaBehind)
    assert error.regions == []
    assert "no region is known" in error.detail


def test_local_is_whatever_is_here(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    made.lose()
    assert made.do("eu", "read", **READ, token=token, consistency="local")["value"] == 0


def test_a_write_with_a_token_follows_what_was_read(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    ticket = made.ask("eu", "commit", domain="shop", ops=[op("lww-register", "k", "set", value=1)], token=token)
    assert made.answer(ticket) is None
    made.flush()
    made.sync("eu")
    assert made.reply(ticket)["dot"] == f"{made.replicas['eu']}:1"
    assert made.services["eu"].host.groups["shop/0"].causality.deps[1][0] == 1


def test_tokens_of_other_domains_make_nobody_wait(made: Regions) -> None:
    made.do("us", "declare_domain", domain="crm")
    made.flush()
    token = made.commit("us", ADD)["token"]
    made.lose()
    ticket = made.ask("eu", "domain", domain="crm", token=token)
    assert made.reply(ticket)["domain"] == "crm"
    assert made.services["eu"].sessions.seen(made.reply(ticket)["token"])["shop/0"] == {made.replicas["us"]: 1}, (
        "but it is not forgotten"
    )


def test_a_token_of_a_group_that_is_not_here_yet_waits(made: Regions) -> None:
    token = made.do("us", "declare_domain", domain="crm")["token"]
    made.do("us", "declare", domain="crm", collection="c", type="counter")
    written = made.do("us", "commit", domain="crm", ops=[op("c", "k", "add")], token=token)["token"]
    ticket = made.ask("eu", "read", domain="crm", collection="c", key="k", token=written)
    assert made.answer(ticket) is None
    made.settle(500)
    assert made.reply(ticket)["value"] == 1


def test_a_token_keeps_what_it_names_of_groups_that_are_not_here(made: Regions) -> None:
    tokens = made.services["us"].sessions.tokens
    token = tokens.encode({"crm/0": {made.replicas["eu"]: 7}})
    reply = made.do("us", "read", **READ, token=token)
    assert tokens.decode(reply["token"])["crm/0"] == {made.replicas["eu"]: 7}


def test_a_token_leaves_out_what_all_members_have(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    assert made.services["us"].sessions.seen(token) == {"shop/0": {made.replicas["us"]: 1}}
    made.settle()
    token = made.do("us", "read", **READ, token=token)["token"]
    assert made.services["us"].sessions.seen(token) == {}


def test_a_token_that_names_a_stranger_is_never_seen(made: Regions) -> None:
    token = made.services["us"].sessions.tokens.encode({"shop/0": {"ap-1.00000000000000ff": 1}})  # type: ignore[dict-item]
    error = made.refused("us", "read", **READ, token=token, wait_ms=0)
    assert error.code == "replica-behind"


# --- staleness


def test_a_read_may_refuse_to_be_stale(made: Regions) -> None:
    made.settle(1_000)
    assert made.do("us", "read", **READ, max_staleness_ms=10_000)["staleness_ms"] <= 1_000
    made.now_ms += 20_000
    error = made.refused("us", "read", **READ, max_staleness_ms=10_000)
    assert error.code == "replica-behind"
    assert "at most 10000 ms" in error.detail
    assert made.do("us", "read", **READ)["staleness_ms"] >= 20_000, "it grows when nothing arrives"


def test_staleness_is_unknown_until_every_member_was_heard() -> None:
    made = Regions("us", "eu")
    heard = made.services["us"].host
    made.services["us"] = Service(Host(made.cluster, made.replicas["us"], heard.options, Random(1)))
    made.do("us", "declare_domain", domain="shop")
    made.do("us", "declare", domain="shop", collection="counter", type="counter")
    assert made.do("us", "read", **READ)["staleness_ms"] is None
    assert "is unknown" in made.refused("us", "read", **READ, max_staleness_ms=1).detail
    group = made.do("us", "status")["groups"][0]
    assert (group["staleness_ms"], group["window_ms"]["p50"]) == (None, None)


# --- bounds


def test_requests_that_wait_are_bounded() -> None:
    made = shop("us", "eu", max_waiting=3)
    token = made.commit("us", ADD)["token"]
    waiting = [made.ask("eu", "read", **READ, token=token) for _ in range(3)]
    error = made.refused("eu", "read", **READ, token=token)
    assert (error.code, error.status, error.retry_after) == ("overloaded", 503, 1.0)
    made.flush()
    assert [made.reply(ticket)["value"] for ticket in waiting] == [1, 1, 1]


def test_who_waits_costs_nothing_until_something_became_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop("us", "eu")
    token = made.commit("us", ADD)["token"]
    made.lose()
    waiting = [made.ask("eu", "read", **READ, token=token, wait_ms=wait_ms) for wait_ms in (500, 900)]
    sessions = made.services["eu"].sessions
    looked: list[Seen] = []
    has_seen = sessions.has_seen
    monkeypatch.setattr(sessions, "has_seen", lambda seen: looked.append(seen) or has_seen(seen))
    for _ in range(10):
        made.tick(40)
        made.lose()
    assert looked == []
    made.tick(100)
    assert made.error(waiting[0]).code == "replica-behind"
    assert made.output.wake_ms <= made.now_ms + 400
    made.lose()
    made.tick(400)
    assert made.error(waiting[1]).code == "replica-behind"


def test_writes_that_wait_for_the_disk_are_bounded() -> None:
    made = shop("us", "eu", max_waiting=2)
    tickets = [made.ask("us", "commit", domain="shop", ops=[ADD]) for _ in range(3)]
    assert made.error(tickets[2]).code == "overloaded"
    made.sync("us")
    assert made.reply(tickets[1])["values"] == [2]


def test_who_waits_waits_no_longer_than_the_node_allows() -> None:
    made = shop("us", "eu", max_wait_ms=500)
    token = made.commit("us", ADD)["token"]
    made.lose()
    ticket = made.ask("eu", "read", **READ, token=token, wait_ms=1 << 40)
    made.tick(499)
    made.lose()
    assert made.answer(ticket) is None
    made.tick(1)
    assert made.error(ticket).code == "replica-behind"


def test_a_read_whose_client_went_away_is_forgotten(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    ticket = made.ask("eu", "read", **READ, token=token)
    made.step("eu", Cancelled(ticket))
    made.flush()
    assert made.answer(ticket) is None
    made.step("eu", Cancelled(ticket))


def test_a_wait_that_ends_in_a_refusal_is_answered(made: Regions) -> None:
    token = made.commit("us", ADD)["token"]
    ticket = made.ask(
        "eu", "commit", domain="shop", ops=[op("counter", "k", "add", amount=1, if_match='"0"')], token=token
    )
    wrong = made.ask("eu", "read", **{**READ, "collection": "no-such"}, token=token)
    made.flush()
    assert made.error(ticket).code == "precondition-failed"
    assert made.error(wrong).code == "not-declared"
