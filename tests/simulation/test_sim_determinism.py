"""Same seed, same run: under any hash seed, in any process, however often."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from crdtstore_sim.fuzz import run_seed

_PROGRAM = """
import json
from crdtstore_sim.fuzz import run_seed
from crdtstore_sim.report import document
runs = [document(run_seed(seed)) for seed in (3, 14, 29)]
runs += [document(run_seed(seed, mix="all-types")) for seed in (5, 11)]
runs += [document(run_seed(1, "oversell"))]
print(json.dumps([{k: v for k, v in run.items() if k not in ("real_s", "events_per_s")} for run in runs]))
"""


def _run_with(hash_seed: str) -> list[dict[str, object]]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True)
    runs: list[dict[str, object]] = json.loads(done.stdout)
    return runs


def test_two_processes_with_different_hash_seeds_see_the_same_run() -> None:
    first, second = _run_with("1"), _run_with("2")
    assert first == second
    assert len({run["trace"] for run in first}) == 6


def test_the_trace_sees_the_seed_and_repeats() -> None:
    first, again, other = run_seed(5), run_seed(5), run_seed(6)
    assert first.trace == again.trace
    assert first.events == again.events
    assert first.trace != other.trace
