"""What is left of a cluster of real nodes: nothing, neither after ``crdtstore dev down`` nor after SIGKILL of its supervisor."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.processes import NODE_COMMAND
from crdtstore_node.dev import launch
from crdtstore_node.dev.control import process_start

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0


def dev(directory: Path, *words: str) -> Any:
    """What a command answers, as a user would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "crdtstore.cli", "dev", *words, "--directory", str(directory), "--json"],
        check=False,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def status(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Of a cluster that has just come up; not at the usual ports, which somebody else may take the moment they are free."""
    yield launch.up(tmp_path, ["us", "eu"], command=NODE_COMMAND, first_port=0)
    launch.down(tmp_path)


def processes(status: dict[str, Any]) -> list[int]:
    return [status["pid"], *(node["pid"] for node in status["nodes"])]


def ports(directory: Path) -> set[int]:
    """Every port in the files of a cluster: of users, of gossip, and of the proxies between."""
    found = {
        int(port) for path in directory.glob("*.toml") for port in re.findall(r'127\.0\.0\.1:(\d+)"', path.read_text())
    }
    assert len(found) == 6, "two listeners of each node, two proxies"
    return found


def is_served(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.02)


def stands_still(pid: int) -> bool:
    """Whether a stopped process has stopped: all its threads. Only then does the kernel end it with its process group's parent."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def about(directory: Path) -> Iterator[str]:
    """Processes that were started with something below this directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if os.fsencode(directory) in path.read_bytes():
                yield path.parent.name


def assert_nothing_is_left(directory: Path, status: dict[str, Any]) -> None:
    assert [pid for pid in processes(status) if process_start(pid) is not None] == []
    assert list(about(directory)) == []
    assert [port for port in ports(directory) if is_served(port)] == []


def test_nothing_is_left_after_down(tmp_path: Path, status: dict[str, Any]) -> None:
    assert all(map(is_served, ports(tmp_path)))
    assert len(list(about(tmp_path))) == 3, "a supervisor and two nodes"
    dev(tmp_path, "partition", "us")
    dev(tmp_path, "down")
    assert_nothing_is_left(tmp_path, status)
    assert not (tmp_path / "supervisor.json").exists()
    assert not (tmp_path / "control.sock").exists()


def test_nothing_is_left_after_the_supervisor_was_killed(tmp_path: Path, status: dict[str, Any]) -> None:
    """Nobody can tidy up then: nodes leave by themselves, also one that stood still, and the next start finds their data."""
    os.kill(status["nodes"][1]["pid"], signal.SIGSTOP)
    wait_until(lambda: stands_still(status["nodes"][1]["pid"]), "it stands still")
    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: not any(process_start(pid) for pid in processes(status)), "all processes are gone")
    assert_nothing_is_left(tmp_path, status)
    again = dev(tmp_path, "up")
    assert [node["ready"] for node in again["nodes"]] == [True, True]
    assert not set(processes(again)) & set(processes(status))
    assert "stopped" in (tmp_path / "us-1.log").read_text(), "a node whose supervisor is gone leaves in order"
