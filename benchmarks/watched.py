"""A node as ``crdtstore node`` runs it, whose steps are timed: ``python -m benchmarks.watched FILE node --config …``.

FILE gets a line for each step of its service that took a while: when it began (Unix ms), how long it took, and how long on a processor
(ms).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from crdtstore.cli import main
from crdtstore_node.driver import Driver

__all__ = ["read_steps"]

_LEAST_MS = 0.5


def read_steps(path: Path) -> list[tuple[float, float, float]]:
    """What was written there."""
    return [(float(at), float(wall), float(cpu)) for at, wall, cpu in map(str.split, path.read_text().splitlines())]


def _watch(path: Path) -> None:
    file = path.open("w", buffering=1)
    step = Driver._turn

    def timed(driver: Driver) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        step(driver)
        cpu_ms, wall_ms = (time.thread_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
        if cpu_ms >= _LEAST_MS:
            file.write(f"{time.time() * 1e3 - wall_ms:.2f} {wall_ms:.2f} {cpu_ms:.2f}\n")

    Driver._turn = timed  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    _watch(Path(sys.argv.pop(1)))
    main()
