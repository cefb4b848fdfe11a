"""The demo against real nodes, as a user runs it: ``crdtstore demo --json``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

REGIONS = ("ewr", "lga", "jfk")
DEADLINE_S = 170.0

pytestmark = pytest.mark.slow


async def _demo(*arguments: str) -> tuple[int | None, dict[str, Any], str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crdtstore.cli", "demo", "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, json.loads(stdout) if stdout.strip() else {}, stderr.decode()


def _assert_ok(code: int | None, document: dict[str, Any], stderr: str) -> None:
    assert (code, document.get("verdict"), document.get("broken")) == (0, "ok", []), stderr
    assert (document["lost"], document["refused"], document["digests_equal"]) == (0, 0, True)
    promises = document["promises"]
    for name, number in {
        "departures": 5175,
        "counters": 1973,
        "board": 0,
        "conflicts": 11,
        "master-data": 4796,
    }.items():
        assert [promises[name][column] for column in ("expected", *REGIONS)] == [number] * 4, name
    assert len({promises["digest"][region] for region in REGIONS}) == 1
    window_ms = document["divergence_window_ms"]
    assert 0 < window_ms["p50"] <= window_ms["p99"] <= window_ms["max"]
    assert document["writes"] == 4796 + 33 + 2 + 5 * 5175 + 929
    assert document["received_twice"] < 0.01
    assert 0 < document["bytes_moved"] < 2 * document["commit_bytes"]  # compressed, and little besides commits
    assert document["last_write_wins_model"] == {"lost": 267, "departures": 5175}


async def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    _assert_ok(*await _demo("--day-seconds", "1", "--directory", str(tmp_path / "demo")))
    acks = sorted((tmp_path / "demo").glob("acks-*.jsonl"))
    assert [path.name for path in acks] == ["acks-ewr.jsonl", "acks-jfk.jsonl", "acks-lga.jsonl"]


@pytest.mark.parametrize("region", ["lga", "jfk"])
async def test_a_kill_in_the_middle_changes_nothing_in_the_verdict(region: str) -> None:
    code, document, stderr = await _demo("--day-seconds", "1", "--kill", region)
    _assert_ok(code, document, stderr)
    assert document["killed"] == region
    assert f"{region} killed (SIGKILL)" in stderr
