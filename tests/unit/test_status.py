"""Status: the shape of API 4, and that silence is never shown as health."""

from __future__ import annotations

from typing import Any

from crdtstore.service import PeerChanged
from crdtstore.values import to_json_bytes
from tests.engine.wire import Wire, add
from tests.unit.regions import Regions, op, shop


def group_of(status: dict[str, Any], domain: str = "shop") -> dict[str, Any]:
    return next(group for group in status["groups"] if group["domain"] == domain)


def test_the_shape() -> None:
    made = shop("us", "eu", "ap")
    status = made.do("us", "status")
    assert set(status) >= {"node", "region", "cluster", "ready", "why", "groups", "peers", "gossip", "now_ms"}
    assert (status["node"], status["region"], status["cluster"], status["ready"], status["why"]) == (
        "us-1",
        "us",
        "test",
        True,
        None,
    )
    assert [group["domain"] for group in status["groups"]] == ["_sys", "shop"]
    for group in status["groups"]:
        assert set(group) >= {
            "domain", "shard", "replica", "vector", "digest", "behind", "lag_ms", "staleness_ms", "unacked", "fenced", "window_ms",
        }  # fmt: skip
        assert set(group["vector"]) == set(made.replicas.values())
    assert [(peer["node"], peer["region"], peer["state"]) for peer in status["peers"]] == [
        ("eu-1", "eu", "streaming"),
        ("ap-1", "ap", "streaming"),
    ]
    to_json_bytes(status)
    assert made.services["us"].status(made.now_ms) == status, "a pure view"


def test_equal_vectors_have_equal_digests_and_a_digest_is_only_shown_when_durable() -> None:
    made = shop("us", "eu")
    made.commit("us", op("counter", "k", "add"))
    made.settle()
    us, eu = group_of(made.do("us", "status")), group_of(made.do("eu", "status"))
    assert us["vector"] == eu["vector"]
    assert us["digest"] == eu["digest"]
    assert len(us["digest"]) == 32
    made.ask("us", "commit", domain="shop", ops=[op("counter", "k", "add")])
    pending = group_of(made.services["us"].status(made.now_ms))
    assert (pending["digest"], pending["vector"]) == (None, us["vector"])
    made.sync("us")
    assert group_of(made.do("us", "status"))["digest"] not in (None, us["digest"])


def test_a_cut_is_seen_as_one() -> None:
    made = shop("us", "eu")
    made.settle()
    for region, peer in (("us", "eu"), ("eu", "us")):
        made.step(region, PeerChanged(made.replicas[peer], False))
    made.lose()
    for _ in range(3):
        made.commit("us", op("counter", "k", "add"))
        made.now_ms += 1_000
    us, eu = made.do("us", "status"), made.do("eu", "status")
    assert us["peers"][0]["state"] == "down"
    assert us["peers"][0]["heard_ms"] >= 3_000
    assert group_of(us)["unacked"] == 3
    assert group_of(eu)["staleness_ms"] >= 3_000
    assert (group_of(eu)["behind"], group_of(eu)["lag_ms"]) == (0, 0), "it cannot know; its staleness says so"


def test_what_is_known_to_be_missing_is_behind() -> None:
    made = shop("us", "eu", "ap", relay_after_ms=60_000)
    made.settle(500)
    for region, peer in (("us", "eu"), ("eu", "us")):
        made.step(region, PeerChanged(made.replicas[peer], False))
    made.links.pop(("us", "eu"), None)
    made.commit("us", op("counter", "k", "add"))
    made.settle(1_000)
    eu = group_of(made.do("eu", "status"))
    assert eu["behind"] == 1
    assert eu["lag_ms"] > 0
    window = group_of(made.do("us", "status"))["window_ms"]
    assert window["count"] == 0, "eu does not have it"


def test_the_age_of_what_was_only_heard_of_is_unknown() -> None:
    wire = Wire("us", "eu", "ap")
    add(wire, "us")
    wire.sync()
    wire.connect(("us", "ap"), ("eu", "ap"))
    for _ in range(4):
        wire.sync()
        wire.deliver("us", "ap")
        wire.deliver("ap", "us")
        wire.tick(100)
        wire.deliver("ap", "eu")
        wire.deliver("eu", "ap")
    eu = wire.engines["eu"]
    assert eu.rows.known(eu.durability.vector) == [1, 0, 0]
    assert eu.rows.lag_ms(eu.durability.vector, wire.now_ms) is None


def test_windows_and_traffic_are_counted() -> None:
    made = shop("us", "eu")
    for _ in range(5):
        made.commit("us", op("counter", "k", "add"))
        made.settle(200)
    status = made.do("us", "status")
    window = group_of(status)["window_ms"]
    assert window["count"] == 5
    assert 0 < window["p50"] <= window["p99"] <= window["max"]
    assert sum(times for _, times in group_of(status)["window_histogram"]) == 5
    gossip, other = status["gossip"], made.do("eu", "status")["gossip"]
    assert gossip["commits_sent"] == other["commits_received"] - other["commits_received_twice"]
    assert other["commits_received_twice"] == 0
    assert gossip["rejected"] == 0
    assert min(gossip["bytes_sent"], gossip["bytes_received"], other["commit_bytes"]) > 0


def test_before_anybody_is_connected() -> None:
    made = Regions("us", "eu")
    made.step("us", PeerChanged(made.replicas["eu"], False))
    assert made.do("us", "status")["peers"][0]["state"] == "down"
