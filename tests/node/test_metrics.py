"""``GET /metrics``: it parses, every documented name is there, and what is not known is absent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crdtstore.engine.measures import Histogram
from crdtstore_node import metrics
from crdtstore_node.metrics import DOCUMENTED
from crdtstore_node.node import Node
from tests.node.running import Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


async def scrape(node: Node) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    reply = await call(node, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(reply.raw.decode()):
        found.setdefault(family.name, {})
        for sample in family.samples:
            assert sample.name.startswith(family.name)
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(found: dict[str, dict[tuple[tuple[str, str], ...], float]], name: str, **labels: str) -> float | None:
    return found[name].get(tuple(sorted(labels.items())))


async def test_every_documented_name_is_there_and_none_else(make_nodes: Callable[..., Nodes]) -> None:
    us, eu = await make_nodes("us", "eu").start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    await asyncio.gather(*(call(us, "POST", KEY, ADD) for _ in range(10)))
    await call(us, "POST", KEY, {"ops": []})
    await until(lambda: us.status()["groups"][1]["unacked"] == 0)
    await until(lambda: us.status()["groups"][1]["staleness_ms"] is not None)
    await until(lambda: us.transport.peers()["eu-1"]["round_trip_ms"] is not None)
    await until(lambda: us.left.is_known)
    found = await scrape(us)
    ours = {name for name in found if name.startswith("crdtstore_")}
    for name in DOCUMENTED:
        assert name in ours, name
    assert {name for name in ours if not any(name.startswith(documented) for documented in DOCUMENTED)} == set()
    assert of(found, "crdtstore_ready") == 1
    assert of(found, "crdtstore_commits_own_total", domain="shop") == 10
    assert of(found, "crdtstore_commits_sent_total", domain="shop") == 10
    assert of(found, "crdtstore_requests_total", outcome="bad-request") == 1
    assert of(found, "crdtstore_divergence_window_seconds_count", domain="shop") == 10
    assert of(found, "crdtstore_link_up", peer="eu-1") == 1
    assert (of(found, "crdtstore_link_round_trip_seconds", peer="eu-1") or 0) > 0
    assert of(found, "crdtstore_unacked_commits", domain="shop") == 0
    assert of(found, "crdtstore_members", domain="shop") == 2
    assert of(found, "crdtstore_configuration_number", domain="_sys") == 0
    assert of(found, "crdtstore_split", domain="shop") == of(found, "crdtstore_orphans") == 0
    assert {dict(labels)["reason"] for labels in found["crdtstore_refused_total"]} == {
        "configuration", "hello", "install", "malformed", "members", "untrue",
    }  # fmt: skip
    syncs, commits = of(found, "crdtstore_log_syncs_total"), of(found, "crdtstore_log_commits_total")
    assert syncs
    assert commits == 12
    assert of(found, "crdtstore_log_commits_per_sync") == commits / syncs
    there = await scrape(eu)
    assert of(there, "crdtstore_commits_received_total", domain="shop") == 10
    assert of(there, "crdtstore_visibility_seconds_count", domain="shop", peer="us-1") == 10
    assert of(there, "crdtstore_visibility_seconds_bucket", domain="shop", peer="us-1", le="+Inf") == 10


async def test_staleness_is_absent_until_every_member_was_heard(make_nodes: Callable[..., Nodes]) -> None:
    us = await make_nodes("us", "eu").start("us")
    found = await scrape(us)
    assert of(found, "crdtstore_staleness_seconds", domain="_sys") is None
    assert of(found, "crdtstore_link_up", peer="eu-1") == 0
    assert found["crdtstore_link_round_trip_seconds"] == {}
    assert of(found, "crdtstore_log_commits_per_sync") is None


async def test_labels_are_bounded(shop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_DOMAINS", 1)
    found = await scrape(shop)
    assert [dict(labels)["domain"] for labels in found["crdtstore_fenced"]] == ["_sys"]
    assert of(found, "crdtstore_domains") == 1


def test_a_fine_histogram_below_coarser_bounds() -> None:
    parts = [Histogram(), Histogram()]
    for at, value in enumerate((0, 1, 1, 3, 50, 51, 10_000_000)):
        parts[at % 2].note(value)
    family = metrics.HistogramMetricFamily("x", "x", labels=())
    metrics._add(family, (), parts)
    counts = {sample.labels["le"]: sample.value for sample in family.samples if sample.name == "x_bucket"}
    assert (counts["0.001"], counts["0.002"], counts["0.005"], counts["0.05"], counts["0.1"]) == (3, 3, 4, 4, 6)
    assert (counts["3600.0"], counts["+Inf"]) == (6, 7)
    assert list(counts.values()) == sorted(counts.values())
