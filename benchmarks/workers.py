"""What a node of several workers costs and can take: CPU-seconds of each process for the same commits, by 1, 2, 4 workers.

The question: is the work divided? A machine whose cores are busy with other things says nothing by wall time, so what is counted is what
each process used (``/proc/PID/stat``): the sum says what the division costs, the busiest one how much all of them could take, each with a
core of its own. Commits come in over sessions of the client, many at a time, keys spread evenly over 16 shards; durable. What a turn costs
is shared by the commits in it, so there are so many tasks for each worker: with as many in all, the batches of several are smaller.

    python benchmarks/workers.py [--commits 20000] [--rounds 3] [--workers 1,2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from crdtstore.testing.processes import LocalCluster
from crdtstore_client import Store, connect

SHARDS, TASKS, KEYS = 16, 256, 4_000
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def commit(store: Store, count: int, tasks: int) -> None:
    """So many adds, each a commit of its own, so many tasks at a time."""
    orders, numbers = store.domain("shop").counter("orders"), iter(range(count))

    async def work() -> None:
        for number in numbers:
            await orders[f"key-{number % KEYS}"].add(1)

    await asyncio.gather(*(work() for _ in range(tasks)))


async def measure(regions: list[str], workers: int, count: int) -> dict[str, float]:
    """One run in a new cluster."""
    with tempfile.TemporaryDirectory() as directory:
        async with LocalCluster(directory, regions, workers=workers) as cluster:
            own = [name for name in cluster.regions if name.startswith(regions[0])]
            pids = [cluster.node(name).pid or 0 for name in own]
            async with connect(*(cluster.url(name) for name in own), timeout=60.0) as store:
                await store.domain("shop").declare_domain(shards=SHARDS)
                await store.domain("shop").declare("orders", "counter")
                await commit(store, KEYS, TASKS * workers)  # every key is there, every process warm
                before, begun = [cpu_seconds(pid) for pid in pids], time.monotonic()
                mine = time.process_time()
                await commit(store, count, TASKS * workers)
                wall_s, client_s = time.monotonic() - begun, time.process_time() - mine
                used = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
    return {
        "per_cpu_s": count / sum(used),
        "per_busiest_cpu_s": count / max(used),
        "client_per_cpu_s": count / client_s,
        "wall_per_s": count / wall_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--regions", default="us")
    options = parser.parse_args()
    counts = [int(each) for each in options.workers.split(",")]
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in counts}
    for _ in range(options.rounds):  # interleaved: what else the machine does changes
        for workers in counts:
            found[workers].append(asyncio.run(measure(options.regions.split(","), workers, options.commits)))
    for workers, runs in found.items():
        row = {name: round(statistics.median(run[name] for run in runs)) for name in runs[0]}
        print(json.dumps({"workers": workers, **row}))


if __name__ == "__main__":
    main()
