"""A worker for which the system has no process just now."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crdtstore_node import crew
from crdtstore_node.config import NodeConfig


async def test_it_is_tried_again_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spawn, asked, again = asyncio.create_subprocess_exec, list[str](), asyncio.Event()

    async def spawn_or_not(*command: str, **options: Any) -> asyncio.subprocess.Process:
        worker = command[command.index("--worker") + 1]
        asked.append(worker)
        if asked.count("1") == 2 and worker == "1":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        if asked.count("1") == 3:
            again.set()
        lasts_s = 0.05 if asked == ["0", "1"] else 60
        return await spawn(sys.executable, "-c", f"import time; time.sleep({lasts_s})", stdin=options["stdin"])

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn_or_not)
    monkeypatch.setattr(crew, "_FIRST_PAUSE_S", 0.01)
    http = SimpleNamespace(shutdown_ms=100)
    configs = [SimpleNamespace(node=f"us-1+{at}", api_address=("127.0.0.1", 1), http=http) for at in range(2)]
    workers = crew.Crew(tmp_path / "us-1.toml", cast(list[NodeConfig], configs), [])
    workers._has_begun = True
    stop = asyncio.Event()
    running = asyncio.create_task(workers.run(stop))
    try:
        waits = asyncio.create_task(again.wait())
        done, _ = await asyncio.wait({running, waits}, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
        assert done == {waits}
        assert asked.count("0") == 1
    finally:
        stop.set()
        code = await running
    assert code == 0
