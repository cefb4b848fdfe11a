"""``crdtstore bench`` as people type it, against three regions of the production engine in memory."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.errors import AccessError
from crdtstore_client import NotSent, Response
from tests.client.fakes import US, FakeCluster
from tests.client.regions import Regions

QUICK = ("--duration", "0.2", "--warm-up", "0", "--tasks", "4", "--keys", "20")
"""However slow the machine, each task asks once at least."""


def run(transport: Any, *args: str, width: int = 160, urls: str = "http://us,http://eu,http://ap") -> Result:
    runner = CliRunner(env={"COLUMNS": str(width), "CRDTSTORE_URL": None})
    return runner.invoke(main, ["--url", urls, "bench", *QUICK, *args], obj={"transport": transport})


def keys_of(regions: Regions) -> list[str]:
    """What is left in the domain bench."""
    engine = regions.services["us"].host.groups["bench/0"]
    return [
        key for collection in list(engine.keyspace.tree.collections) for key in engine.keyspace.tree.keys(collection)
    ]


def test_a_run_shows_a_table_adds_up_and_leaves_nothing(regions: Regions) -> None:
    result = run(regions, "--mix", "add=3,aw_set.add=3,set=2,read=4")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "latency",
        "in",
        "ms",
        "done",
        "per",
        "s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "failed",
    ]
    assert [line.split()[0] for line in lines[1:5]] == ["add", "aw_set.add", "set", "read"]
    total = sum(int(line.split()[1].replace(",", "")) for line in lines[1:5])
    assert int(lines[6].split()[1].replace(",", "")) == total > 0
    assert all(line.split()[-1] == "0" for line in lines[1:5])
    assert "closed loop: each task asks again when it is answered" in result.stdout
    assert re.search(r"verified: counters hold ([\d,]+), acknowledged \1 · sets hold all", result.stdout)
    assert re.search(r"removed the \d+ keys of this run from the domain bench\n$", result.stdout)
    assert "declaring bench-aw-set, bench-counter, bench-lww-register in the domain bench" in result.stderr
    assert "reading back what was acknowledged" in result.stderr


def test_the_document_of_an_open_loop(regions: Regions) -> None:
    result = run(regions, "--json", "--rate", "100", "--warm-up", "0.05", "--zipf", "0.99", "--mix", "add")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["loop"], found["rate"], found["zipf"], found["seed"]) == ("open", 100.0, 0.99, 1)
    assert found["total"]["done"] == found["kinds"][0]["done"]
    assert 18 <= found["total"]["done"] + found["not_sent"] <= 21
    assert set(found["total"]["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max", "mean"}
    assert found["verified"]["ok"] is True
    assert found["verified"]["acknowledged"] == found["verified"]["found"] == 26, "and one to try it out"
    assert found["cleaned"]["left"] == 0
    assert found["errors"] == []


def test_connections_may_be_spread_over_regions(regions: Regions) -> None:
    result = run(regions, "--spread", "--connections", "3", "--json", "--mix", "add=1,read=1")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert sorted(found["regions"]) == ["ap", "eu", "us"]
    assert [row["name"] for row in found["by_region"]] == ["in ap", "in eu", "in us"]
    assert sum(row["done"] for row in found["by_region"]) == found["total"]["done"]
    assert found["verified"]["ok"], "what was written in one region is read back in another"


def test_writes_may_wait_for_other_regions(regions: Regions) -> None:
    found = json.loads(run(regions, "--regions", "2", "--json", "--mix", "add").stdout)
    assert found["waits_for_regions"] == 2
    assert (found["total"]["failed"], found["verified"]["ok"]) == (0, True)
    with regions.apart():
        result = run(regions, "--regions", "1", "--timeout", "1", "--mix", "add", "--keep")
    assert result.exit_code == 4
    assert "not-replicated" in result.stdout
    assert "verified: counters hold" in result.stdout, "they are durable here all the same"
    assert result.stderr.endswith("no request succeeded; most failed with not-replicated\n")


def test_keys_are_its_own_and_may_be_kept(regions: Regions) -> None:
    result = run(regions, "--keep", "--domain", "mine", "--mix", "add", "--shards", "2")
    left = re.search(r"left (\d+) keys that begin with (r[0-9a-f]{8})- in the domain mine: --keep", result.stdout)
    assert left is not None, result.stdout
    listed = CliRunner().invoke(
        main,
        ["--url", "http://us", "list", "mine/bench-counter", "--limit", "1000", "--json"],
        obj={"transport": regions},
    )
    keys = [item["key"] for item in json.loads(listed.stdout)["items"]]
    assert len(keys) == int(left[1])
    assert all(key.startswith(f"{left[2]}-") for key in keys)
    again = run(regions, "--domain", "mine", "--mix", "add")
    assert "removed the" in again.stdout
    listed = CliRunner().invoke(
        main,
        ["--url", "http://us", "list", "mine/bench-counter", "--limit", "1000", "--json"],
        obj={"transport": regions},
    )
    assert [item["key"] for item in json.loads(listed.stdout)["items"]] == keys, "what another run left is not touched"


def test_what_cannot_be_deleted_is_said(regions: Regions) -> None:
    result = run(regions, "--mix", "event_log.append,set=1")
    assert re.search(r"removed the \d+ keys .*; left \d+ keys .*: keys of event_log cannot be deleted", result.stdout)
    assert "nothing to verify" in result.stdout


def test_a_cluster_that_lost_what_it_acknowledged_is_found_out(regions: Regions) -> None:
    class Forgetful:
        """Answers every tenth write and does nothing."""

        def __init__(self) -> None:
            self.count = 0

        async def request(self, url: str, method: str, path: str, **given: Any) -> Response:
            if method == "POST" and "/v1/data/bench/" in path and "delete" not in str(given["body"]):
                self.count += 1
                if self.count % 10 == 0:
                    body = {"dot": "us-1.0000000000000001:1", "token": "", "values": [1], "replayed": False}
                    return Response(200, body | {"durable_in": ["us"]})
            return await regions.request(url, method, path, **given)

        async def close(self) -> None:
            pass

    result = run(Forgetful(), "--mix", "add")
    assert result.exit_code == 1
    assert "BROKEN:" in result.stdout
    assert "acknowledged are" in result.stdout


def test_what_cannot_be_read_back_is_not_called_verified() -> None:
    class Silent(FakeCluster):
        async def request(self, url_base: str, method: str, path: str, **given: Any) -> Response:
            if method == "GET" and path.partition("?")[0].endswith("/bench-counter"):
                raise NotSent("nobody lists here")
            return await super().request(url_base, method, path, **given)

    result = run(Silent(), "--mix", "add", "--timeout", "0.5", urls=US)
    assert result.exit_code == 4
    assert "not verified: bench-counter could not be read back: unreachable" in result.stdout
    assert re.search(r"removed the \d+ keys", result.stdout)


def test_failures_stand_in_a_table_of_their_own() -> None:
    cluster = FakeCluster()
    cluster.fail(US, *[None] * 20, *[AccessError("x")] * 3)
    result = run(cluster, "--mix", "add", "--duration", "1", urls=US)
    assert result.exit_code == 0, result.output
    assert re.search(r"forbidden +add +3 ", result.stdout)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal_but_what_cannot_be_narrower(regions: Regions, width: int) -> None:
    from rich.console import Console  # noqa: PLC0415

    from crdtstore_client.bench.display import _table  # noqa: PLC0415
    from crdtstore_client.bench.generator import Generator, Plan, Series  # noqa: PLC0415
    from crdtstore_client.bench.mix import parse_mix  # noqa: PLC0415
    from crdtstore_client.bench.results import Cleaned, Result  # noqa: PLC0415

    mix = parse_mix("lww_register.set,read")
    plan = Plan(mix, 10, 0, 1, 1, 1.0, 0.0, None, 16, 1)
    generator: Any = Generator.__new__(Generator)
    series = Series()
    for at in range(2_000):
        series.done.add(at * 1_000_000)
    generator.series, generator.elapsed_s = {(0, name): series for name in mix.names}, 0.001
    found = Result(plan, "r1", "bench", ["us"], generator, 0.1, None, "", Cleaned())
    console = Console(width=width)
    table = _table(found, console)
    wide = console.measure(table, options=console.options.update(max_width=400)).maximum
    assert wide <= max(width, 74)
    assert ("p90" in [column.header for column in table.columns]) == (width > 60)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--mix", "fly"), "there is no 'fly'"),
        (("--mix", "add=-1"), "from 0 on"),
        (("--keys", "0"), "'--keys'"),
        (("--zipf", "-1"), "'--zipf'"),
        (("--zipf", "nan"), "--zipf is a number, got nan"),
        (("--rate", "0"), "'--rate'"),
        (("--rate", "inf"), "--rate"),
        (("--duration", "0"), "'--duration'"),
        (("--connections", "5"), "--connections 5 are shared by --tasks 4"),
        (("--tasks", "0"), "'--tasks'"),
        (("--domain", "No Such"), "domain"),
        (("--regions", "3"), "and there are 2 ("),
        (("--shards", "0"), "'--shards'"),
        (("more",), "unexpected extra argument"),
    ],
)
def test_wrong_use(regions: Regions, args: tuple[str, ...], message: str) -> None:
    result = run(regions, *args)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""


def test_nobody_there(regions: Regions) -> None:
    cluster = FakeCluster()
    cluster.dead |= {US}
    result = run(cluster, "--timeout", "0.2", urls=US)
    assert result.exit_code == 4
    assert f"no answer from {US}" in result.stderr
    assert result.stdout == ""
