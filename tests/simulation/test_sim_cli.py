"""What ``crdtstore sim`` prints, and what it says to the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore_sim.cli import commands, sim
from crdtstore_sim.scenario import DIRECTORY


def call(*arguments: str) -> Result:
    return CliRunner().invoke(sim, arguments)


def documents(result: Result) -> list[dict[str, Any]]:
    return [json.loads(text) for text in result.stdout.splitlines()]


def test_the_command_line_finds_one_group() -> None:
    assert commands == [sim]
    assert sorted(sim.commands) == ["fuzz", "planted", "run", "scenarios"]


def test_a_run_ends_with_the_command_that_repeats_it() -> None:
    done = call("run", "--seed", "1", "--scenario", "split-1-2")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "3 replicas" in lines[1]
    assert "trace" in lines[1]
    assert "cut a|bc 4.0 s..12.0" in lines[2]
    [checkers] = [line for line in lines if line.startswith(" checkers")]
    for name in ("convergence", "dots", "causality", "durability", "model values", "sessions", "progress"):
        assert f"{name} ok" in checkers
    assert any(line.startswith(" divergence window   p50 ") for line in lines)
    assert lines[-1] == " again               crdtstore sim run --seed 1 --scenario split-1-2"


def test_a_run_as_json_is_one_document() -> None:
    done = call("run", "--seed", "3", "--json")
    [document] = documents(done)
    assert document["verdict"] == "ok"
    assert document["again"] == "crdtstore sim run --seed 3"
    assert set(document["checkers"].values()) == {"ok"}
    assert document["divergence_window_ms"].keys() == {"p50", "p99", "max"}
    assert document["acknowledged"] > 0


def test_a_fuzz_prints_a_line_for_each_seed_and_a_summary() -> None:
    done = call("fuzz", "--seeds", "3:6", "--jobs", "1")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [" seed 3", " seed 4", " seed 5"]
    assert lines[3].startswith(" 3 seeds, all ok")
    assert lines[3].endswith("/s")


def test_a_fuzz_of_all_types_names_them_in_the_command_that_repeats_it() -> None:
    done = call("fuzz", "--workload", "all-types", "--seeds", "0:2", "--jobs", "1", "--json")
    *runs, summary = documents(done)
    assert summary["verdict"] == "ok", runs
    assert [run["again"] for run in runs] == [
        "crdtstore sim run --seed 0 --workload all-types",
        "crdtstore sim run --seed 1 --workload all-types",
    ]


def test_a_sale_prints_how_much_each_shop_sold() -> None:
    done = call("run", "--scenario", str(Path(DIRECTORY) / "oversell.toml"))
    assert done.exit_code == 0, done.stdout
    head, bounded, plain = [
        line.split() for line in done.stdout.splitlines() if line.startswith((" sale", " bounded", " counter"))
    ]
    assert head == ["sale", "stock", "sold", "turned", "away", "unanswered", "left", "oversold"]
    assert bounded[:2] == ["bounded_counter", "600"]
    assert bounded[-1] == "0"
    assert int(plain[-1]) > 0
    assert "bounds ok" in done.stdout


def test_a_fuzz_that_finds_a_plant_names_it_and_fails() -> None:
    done = call("fuzz", "--seeds", "0:2", "--jobs", "1", "--plant", "ack-before-durable", "--json")
    assert done.exit_code == 1
    *runs, summary = documents(done)
    assert [run["checkers"]["durability"] for run in runs] == ["failed", "failed"]
    assert runs[0]["violations"][0]["checker"] == "durability"
    assert runs[0]["again"] == "crdtstore sim run --seed 0 --plant ack-before-durable"
    assert summary["summary"] is True
    assert summary["failed"] == [0, 1]
    plain = call("run", "--seed", "0", "--plant", "ack-before-durable")
    assert plain.exit_code == 1
    assert "durability FAILED" in plain.stdout


def test_planted_prints_plant_checker_and_seed() -> None:
    done = call("planted", "--plant", "send-before-durable", "--plant", "drop-without-cut", "--jobs", "1", "--json")
    assert done.exit_code == 0
    [document] = documents(done)
    assert document["verdict"] == "ok"
    assert [one["plant"] for one in document["plants"]] == ["send-before-durable", "drop-without-cut"]
    assert all(one["clean"] and one["checkers"] for one in document["plants"])


def test_a_plant_that_nobody_finds_fails_the_proof() -> None:
    done = call("planted", "--plant", "grouped-per-origin", "--seeds", "0:1", "--jobs", "1")
    if done.exit_code == 0:  # the first seed may find it
        assert "progress" in done.stdout
    else:
        assert "NOT FOUND" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fuzz", "--seeds", "9:9"), "there is no seed in 9:9"),
        (("fuzz", "--seeds", "a:b"), "seeds are written 0:200"),
        (("fuzz", "--plant", "weed"), "heard-digest"),
        (("run", "--seed", "-1"), "-1"),
    ],
)
def test_wrong_use_is_refused(arguments: tuple[str, ...], says: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr


def test_scenarios_are_listed_with_what_they_ask() -> None:
    done = call("scenarios")
    assert done.exit_code == 0
    assert any(line.split()[0] == "one-way" for line in done.stdout.splitlines())
