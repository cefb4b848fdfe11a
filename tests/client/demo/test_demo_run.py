"""The whole run over a small store in memory that is told to do wrong: the verdict must name what it did.

The store below is no crdtstore: it is a few lines per type behind the client's transport, so that faults can be
planted which the real one should never have. The run against real nodes stands in tests/integration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner

import crdtstore_client
from crdtstore_client.demo import run as run_module
from crdtstore_client.demo.cli import demo
from crdtstore_client.demo.flights import REGIONS
from crdtstore_client.demo.writers import COLLECTIONS
from crdtstore_client.transport import Response

Dot = tuple[str, int]
DAY_SECONDS = "0.05"


@dataclass
class Commit:
    dot: Dot
    hlc: int
    collection: str
    key: str
    put: dict[Any, Any]  # part -> value: an element, a field, or None for the key itself
    drops: set[tuple[Any, Dot]]  # what the writer saw below a part


@dataclass
class Replica:
    """Live values per key and part, by dot; the amount of a counter is a value like any other."""

    name: str
    vector: dict[str, int] = field(default_factory=dict)
    live: dict[tuple[str, str], dict[Any, dict[Dot, tuple[int, Any]]]] = field(default_factory=dict)
    totals: dict[tuple[str, str], int] = field(default_factory=dict)
    digest: int = 0

    def apply(self, commit: Commit) -> None:
        replica, seq = commit.dot
        assert seq == self.vector.get(replica, 0) + 1, "in order of the origin"
        self.vector[replica] = seq
        self.digest ^= hash(commit.dot)
        address = (commit.collection, commit.key)
        if COLLECTIONS[commit.collection] == "counter":
            self.totals[address] = self.totals.get(address, 0) + commit.put[None]
            return
        parts = self.live.setdefault(address, {})
        for part, dot in commit.drops:
            parts.get(part, {}).pop(dot, None)
            if not parts.get(part, True):
                del parts[part]
        for part, value in commit.put.items():
            parts.setdefault(part, {})[commit.dot] = (commit.hlc, value)

    def read(self, collection: str, key: str) -> tuple[Any, int]:
        """Value and conflicts."""
        if COLLECTIONS[collection] == "counter":
            return self.totals.get((collection, key), 0), 0
        parts = self.live.get((collection, key), {})
        if COLLECTIONS[collection] == "aw_set":
            return sorted(parts), 0
        latest = {part: max(dots.values())[1] for part, dots in parts.items()}
        if COLLECTIONS[collection] == "lww_map":
            return latest, 0
        return latest.get(None), max(0, len(parts.get(None, ())) - 1)


@dataclass
class FakeNode:
    name: str
    pid: int | None = 1
    returncode: int | None = None

    def log_tail(self) -> str:
        return "out of memory"


class FakeCluster:
    """Three replicas that hear each other at once, or not at all; stands in for LocalCluster and for the HTTP
    transport.
    """

    def __init__(self, directory: Path, regions: Sequence[str], *, first_port: int) -> None:
        self.replicas = {region: Replica(f"{region}-1.0") for region in regions}
        self.urls = {region: f"http://{region}:{first_port}" for region in regions}
        self.alone: str | None = None
        self.kills: list[str] = []
        self.nodes = {region: FakeNode(f"{region}-1") for region in regions}
        self.is_leaking = False
        self.is_refusing = False
        self.is_healing = True
        self.loses: Callable[[Commit, str], bool] = lambda commit, region: False
        self.log: list[Commit] = []
        self.missed: dict[str, list[Commit]] = {region: [] for region in regions}
        self.answers: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> FakeCluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    def node(self, region: str) -> FakeNode:
        return self.nodes[region]

    async def kill(self, region: str) -> None:
        self.kills.append(region)
        self.nodes[region].pid = None

    async def start(self, region: str) -> None:
        assert self.kills[-1] == region
        self.nodes[region].pid = 2

    def partition(self, region: str) -> None:
        if not self.is_leaking:
            self.alone = region

    def heal(self) -> None:
        if not self.is_healing:
            return
        self.alone = None
        for region, commits in self.missed.items():
            for commit in commits:
                self._apply(commit, region)
            commits.clear()

    async def request(
        self,
        url_base: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        split = urlsplit(path)
        region = str(urlsplit(url_base).hostname)
        parts = [unquote(part) for part in split.path.split("/")[2:]]
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if parts[0] == "status":
            return Response(200, self._status(region), {})
        if parts[0] == "domains":
            return Response(200, {"type": "", "options": {}, "token": "t"}, {})
        if method == "POST":
            assert body is not None
            if self.is_refusing and self.alone == region:
                problem = {"code": "forbidden", "detail": "no. Nothing changed.", "status": 403}
                return Response(403, problem, {})
            reply = self.answers.get(headers["Idempotency-Key"]) or self._commit(
                region, parts[2], parts[3], body["ops"][0]
            )
            self.answers[headers["Idempotency-Key"]] = reply
            return Response(200, reply, {})
        if len(parts) == 3:
            return Response(200, self._page(region, parts[2], query.get("after", "")), {})
        value, conflicts = self.replicas[region].read(parts[2], parts[3])
        reading = {"value": value, "exists": value is not None, "etag": "e", "token": "t", "region": region}
        return Response(200, {**reading, "type": COLLECTIONS[parts[2]], "staleness_ms": 1, "conflicts": conflicts}, {})

    def _page(self, region: str, collection: str, after: str) -> dict[str, Any]:
        replica = self.replicas[region]
        keys = sorted(key for held, key in (*replica.live, *replica.totals) if held == collection and key > after)
        items = [{"key": key, "value": replica.read(collection, key)[0]} for key in keys[:100]]
        return {"items": items, "next": keys[99] if len(keys) > 100 else None, "token": "t"}

    def _commit(self, region: str, collection: str, key: str, op: dict[str, Any]) -> dict[str, Any]:
        replica = self.replicas[region]
        parts = replica.live.get((collection, key), {})
        put: dict[Any, Any]
        match op:
            case {"op": "add", "amount": amount}:
                put, touched = {None: amount}, []
            case {"op": "add", "elements": elements}:
                put, touched = dict.fromkeys(elements, True), list(elements)
            case {"op": "remove", "elements": elements}:
                put, touched = {}, list(elements)
            case {"op": "set", "fields": fields}:
                put, touched = fields, list(fields)
            case _:
                put, touched = {None: op["value"]}, [None]
        drops = {(part, seen) for part in touched for seen in parts.get(part, ())}
        dot = (replica.name, replica.vector.get(replica.name, 0) + 1)
        commit = Commit(dot, len(self.log), collection, key, put, drops)
        self.log.append(commit)
        for name in self.replicas:
            if name != region and self.alone in {region, name}:
                self.missed[name].append(commit)
            else:
                self._apply(commit, name)
        value = 0 if COLLECTIONS[collection] == "counter" else None
        return {"dot": f"{dot[0]}:{dot[1]}", "token": "t", "values": [value], "replayed": False, "durable_in": [region]}

    def _apply(self, commit: Commit, region: str) -> None:
        if self.loses(commit, region):
            replica, seq = commit.dot
            self.replicas[region].vector[replica] = seq  # it believes that it has it
        else:
            self.replicas[region].apply(commit)

    def _status(self, region: str) -> dict[str, Any]:
        replica = self.replicas[region]
        group = {
            "domain": "flights",
            "vector": dict(replica.vector),
            "digest": f"{replica.digest & 0xFFFFFFFFFFFF:012x}",
            "staleness_ms": 1,
            "window_ms": {"p50": 1, "p99": 2, "max": 2, "count": 10},
            "window_histogram": [[1, 9], [2, 1]],
        }
        gossip = {"bytes_sent": 10, "commits_received": 100, "commits_received_twice": 0, "commit_bytes": 9}
        return {"region": region, "ready": True, "groups": [group], "gossip": gossip}


Plant = Callable[[Callable[[FakeCluster], None]], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Runs of the demo use the store above; the given function may spoil it first."""
    spoil: list[Callable[[FakeCluster], None]] = []

    def make(directory: Path, regions: Sequence[str], *, first_port: int) -> FakeCluster:
        cluster = FakeCluster(directory, regions, first_port=first_port)
        for change in spoil:
            change(cluster)
        made.append(cluster)
        return cluster

    made: list[FakeCluster] = []
    monkeypatch.setattr(run_module, "LocalCluster", make)
    monkeypatch.setattr(run_module, "connect", lambda url, timeout: crdtstore_client.connect(url, transport=made[-1]))
    return spoil.append


def _run(*arguments: str) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(demo, ["--json", "--day-seconds", DAY_SECONDS, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}, result.stderr


def test_a_store_that_does_right_is_ok(plant: Plant) -> None:
    code, document, stderr = _run()
    assert (code, document["verdict"], document["broken"]) == (0, "ok", []), stderr
    assert (document["lost"], document["refused"], document["digests_equal"]) == (0, 0, True)
    assert [document["promises"]["conflicts"][name] for name in ("expected", *REGIONS)] == [11] * 4
    assert document["further_conflicts"] == 0
    assert document["writes"] == 4796 + 33 + 2 + 5 * 5175 + 929
    assert "healed at Sun 10 Feb 00:00" in stderr
    assert "CUT OFF" in stderr


def test_a_commit_that_a_region_drops_is_named_with_all_it_breaks(plant: Plant) -> None:
    counted = 0

    def loses(commit: Commit, region: str) -> bool:
        nonlocal counted
        counted += region == "lga" and commit.put == {None: 1}
        return counted == 100 and region == "lga" and commit.put == {None: 1}

    def spoil(cluster: FakeCluster) -> None:
        cluster.loses = loses

    plant(spoil)
    code, document, stderr = _run()
    assert code == 1
    assert {"counters", "acknowledged", "digest"} <= set(document["broken"])
    assert document["lost"] == 1
    assert not document["digests_equal"]
    assert "broken promise: acknowledged: acknowledged writes missing: expected 0, lga has 1" in stderr


def test_a_cut_that_lets_something_through_is_no_cut(plant: Plant) -> None:
    def spoil(cluster: FakeCluster) -> None:
        cluster.is_leaking = True

    plant(spoil)
    code, document, stderr = _run()
    assert code == 1
    assert document["broken"] == ["conflicts", "cut"]  # no cut, no conflicts
    assert "broken promise: cut" in stderr


def test_writes_refused_during_the_cut_break_the_promise_to_take_them(plant: Plant) -> None:
    def spoil(cluster: FakeCluster) -> None:
        cluster.is_refusing = True

    plant(spoil)
    code, document, stderr = _run()
    assert code == 1
    assert len(document["refusals"]) == 3
    assert document["refused"] == document["promises"]["refused"]["jfk"] > 279
    assert "acknowledged" not in document["broken"]  # what was refused is not lost
    assert "jfk refused op " in stderr


def test_regions_that_do_not_come_together_break_the_promise_by_name(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(cluster: FakeCluster) -> None:
        cluster.is_healing = False

    plant(spoil)
    monkeypatch.setattr(run_module, "_DEADLINE_S", 0.2)
    code, document, stderr = _run()
    assert (code, document["verdict"], document["broken"]) == (1, "broken", ["convergence"])
    assert "broken promise: convergence: equal vectors after the heal: not within 0.2 s" in stderr


def test_a_node_that_ends_by_itself_ends_the_run(plant: Plant) -> None:
    def spoil(cluster: FakeCluster) -> None:
        cluster.nodes["lga"] = FakeNode("lga-1", None, -9)

    plant(spoil)
    code, document, stderr = _run()
    assert (code, document["broken"]) == (1, ["nodes"])
    assert "node lga-1 ended with -9:\nout of memory" in stderr


def test_a_killed_region_is_started_again_and_its_figures_are_kept(plant: Plant) -> None:
    clusters: list[FakeCluster] = []
    plant(clusters.append)
    code, document, stderr = _run("--kill", "lga")
    assert (code, document["verdict"], document["killed"]) == (0, "ok", "lga"), stderr
    assert clusters[0].kills == ["lga"]
    assert document["bytes_moved"] == 40  # three processes, and the one that was killed
    assert "lga killed (SIGKILL)" in stderr


def test_a_directory_with_something_in_it_is_refused(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "acks-ewr.jsonl").touch()
    code, _, stderr = _run("--directory", str(tmp_path))
    assert code == 2
    assert "is not empty" in stderr
