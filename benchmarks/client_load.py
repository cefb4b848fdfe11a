"""A program that writes through the Python client: so many tasks, each adds to one key after the other and waits for each answer.

Run as its own process, ``python -m benchmarks.client_load URL TASKS SECONDS TRANSPORT``; TRANSPORT is ``session`` (the default one) or
``http``. Prints one JSON line: how many adds were acknowledged, in how many seconds, and the CPU microseconds that one took here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from crdtstore_client import connect
from crdtstore_client.http import HttpTransport

KEYS = 1_000


async def _main(url: str, tasks: int, seconds: float, transport: str) -> None:
    acknowledged = 0
    async with connect(url, transport=HttpTransport() if transport == "http" else None) as store:
        orders = store.domain("bench").counter("orders")
        await orders["key-0"].get()
        start, cpu = time.perf_counter(), time.process_time()

        async def add(number: int) -> None:
            nonlocal acknowledged
            while time.perf_counter() - start < seconds:
                await orders[f"key-{number % KEYS}"].add(1)
                acknowledged += 1
                number += tasks

        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(add(number))
        took, spent = time.perf_counter() - start, time.process_time() - cpu
    told = {"acknowledged": acknowledged, "seconds": took, "cpu_us": spent / acknowledged * 1e6, "failed": 0}
    print(json.dumps(told))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
