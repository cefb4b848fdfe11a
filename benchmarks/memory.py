"""Memory of a key: 1 M counters in a process of their own, written by one origin or by three.

``python -m benchmarks.memory ORIGINS`` prints one JSON line; a process whose memory nothing else has filled says more than one that has
been measured in before.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure
from crdtstore.leaves import ADD, SEQ_BITS

__all__ = ["figures"]

KEYS = 1_000_000
_TARGETS = {1: 250, 3: 500}


def _resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def _measure(origins: int) -> dict[str, float]:
    from benchmarks.core import NOW_MS  # noqa: PLC0415 (what is imported here is not the keys')
    from crdtstore.causal import make_replica_id  # noqa: PLC0415
    from crdtstore.clock import COUNTER_BITS  # noqa: PLC0415
    from crdtstore.commit import FORMAT, Commit  # noqa: PLC0415
    from crdtstore.engine.keyspace import Keyspace  # noqa: PLC0415

    keyspace = Keyspace([make_replica_id(f"r{at}-1", at + 1) for at in range(origins)])
    cut = [0] * origins
    gc.collect()
    gc.freeze()
    before = _resident()
    for number in range(KEYS * origins):
        origin, seq = number // KEYS, number % KEYS + 1
        effects = [ADD, ["orders:counter", f"key-{number % KEYS}"], 1]
        commit = Commit(FORMAT, 0, seq, NOW_MS + seq << COUNTER_BITS, [], "anonymous", [], effects)
        keyspace.apply(origin << SEQ_BITS | seq, commit, cut)
    gc.collect()
    return {"bytes": (_resident() - before) / KEYS}


def figures(runs: int) -> list[Figure]:
    """Resident bytes a key, its name included."""
    found = []
    for origins, target in _TARGETS.items():
        values = []
        for _ in range(runs):
            command = [sys.executable, "-m", "benchmarks.memory", str(origins)]
            told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
            values.append(json.loads(told)["bytes"])
        name = f"memory of a key, 1 M counters, each written by {origins} origin{'s' * (origins > 1)}"
        found.append(Figure(name, "bytes", values, target, is_at_least=False))
    return found


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
