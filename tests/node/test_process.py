"""``crdtstore node`` as a process: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.processes import NODE_COMMAND
from tests.node.running import Nodes, environment

pytestmark = pytest.mark.slow


class Process:
    """A node that is ended at the end of its test, whatever happens."""

    def __init__(self, nodes: Nodes, region: str, *options: str, **more: Any) -> None:
        path = nodes.write_config(region)
        self.port = nodes.ports[region][0]
        self.process = subprocess.Popen(
            [*NODE_COMMAND, "--config", str(path), *options],
            stdin=more.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment() | more.pop("env", {}),
            text=True,
        )

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.status, json.load(reply)

    def ready(self) -> Process:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError("not ready")

    def retry(self, method: str, path: str) -> tuple[int, Any]:
        """The first answer, as soon as somebody listens."""
        for _ in range(750):
            try:
                return self.ask(method, path)
            except urllib.error.HTTPError:
                raise
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        raise AssertionError("nobody listens")

    def end(self) -> tuple[int, str, list[dict[str, Any]]]:
        """Return code, standard output, and the lines of standard error."""
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, [json.loads(line) for line in err.splitlines()]


@pytest.fixture
def run(make_nodes: Callable[..., Nodes]) -> Iterator[Callable[..., Process]]:
    nodes = make_nodes("us", "eu")
    running: list[Process] = []

    def start(region: str, *options: str, **more: Any) -> Process:
        running.append(Process(nodes, region, *options, **more))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


async def test_sigterm_ends_a_node_in_order_and_a_restart_continues(run: Callable[..., Process]) -> None:
    us = run("us", "--bootstrap").ready()
    us.ask("PUT", "/v1/domains/shop", {})
    us.ask("PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})
    us.ask("POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add", "amount": 5}]})
    us.process.send_signal(signal.SIGTERM)
    code, out, events = us.end()
    assert (code, out) == (0, "")
    assert [event["event"] for event in events if event["level"] != "warning"] == [
        "this node goes on under its id",
        "serving",
        "stopped",
    ]
    assert all({"time", "level", "node", "region", "event"} <= event.keys() for event in events)
    assert all((event["node"], event["region"]) == ("us-1", "us") for event in events)
    again = run("us").ready()
    status, body = again.ask("GET", "/v1/data/shop/counter/k")
    assert (status, body["value"]) == (200, 5)
    again.process.send_signal(signal.SIGINT)
    code, _, events = again.end()
    assert code == 0
    assert next(event for event in events if event["event"] == "serving")["recovered"] == 3


async def test_kill_loses_nothing_that_was_acknowledged(run: Callable[..., Process]) -> None:
    us = run("us", "--bootstrap").ready()
    us.ask("PUT", "/v1/domains/shop", {})
    us.ask("PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})
    for _ in range(20):
        us.ask("POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add", "amount": 1}]})
    us.process.kill()
    us.process.wait(5)
    assert run("us", "--bootstrap").ready().ask("GET", "/v1/data/shop/counter/k")[1]["value"] == 20


async def test_the_end_of_stdin_ends_a_node(run: Callable[..., Process]) -> None:
    reading, writing = os.pipe()
    us = run("us", "--bootstrap", "--exit-with-stdin", stdin=reading)
    os.close(reading)
    us.ready()
    os.write(writing, b"what is said there does not matter")
    assert us.ask("GET", "/healthz")[0] == 200
    os.close(writing)
    assert us.end()[0] == 0


def said(process: Process) -> tuple[int, str]:
    out, err = process.process.communicate(timeout=15)
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1, err
    return process.process.returncode, lines[0]


async def test_an_empty_directory_without_bootstrap_is_refused(run: Callable[..., Process], tmp_path: Path) -> None:
    code, line = said(run("us"))
    assert code == 2
    assert line.startswith("error: ")
    assert "--bootstrap" in line
    assert not (tmp_path / "data-us").exists()


async def test_two_processes_on_one_directory_are_refused(run: Callable[..., Process]) -> None:
    us = run("us", "--bootstrap").ready()
    code, line = said(run("us"))
    assert code == 1
    assert f"in use by process {us.process.pid}" in line
    assert us.ask("GET", "/readyz")[0] == 200


async def test_an_address_that_is_taken_is_named(run: Callable[..., Process]) -> None:
    us = run("us", "--bootstrap").ready()
    eu = run("eu", "--bootstrap", env={"CRDTSTORE_API": f"127.0.0.1:{us.port}"})
    _, err = eu.process.communicate(timeout=15)
    assert eu.process.returncode == 1
    assert err.splitlines()[-1] == f"error: api: cannot listen at 127.0.0.1:{us.port}: Address already in use"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"CRDTSTORE_API": "0.0.0.0:1"}, "insecure = true"),
        ({"CRDTSTORE_ENGINE_GOSSIP_INTERVAL_MS": "soon"}, "engine.gossip_interval_ms"),
        ({"CRDTSTORE_CLUSTER_FILE": "/nowhere"}, "/nowhere: No such file"),
        ({"CRDTSTORE_NODE": "ap-1"}, "there are us-1, eu-1"),
    ],
)
async def test_a_configuration_error_is_one_line(
    run: Callable[..., Process], env: dict[str, str], expected: str
) -> None:
    code, line = said(run("us", "--bootstrap", env=env))
    assert code == 2
    assert expected in line


async def test_a_second_bootstrap_is_ignored_with_a_notice(run: Callable[..., Process]) -> None:
    first = run("us", "--bootstrap").ready()
    first.process.send_signal(signal.SIGTERM)
    assert first.end()[0] == 0
    second = run("us", "--bootstrap").ready()
    second.process.send_signal(signal.SIGTERM)
    _, _, events = second.end()
    assert events[0]["event"] == "--bootstrap is ignored: the data directory has an id"


async def test_a_moved_directory_goes_on_when_the_operator_says_that_it_is_the_only_copy(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    us = run("us", "--bootstrap").ready()
    us.ask("PUT", "/v1/domains/shop", {})
    us.process.send_signal(signal.SIGTERM)
    us.end()
    moved = {"CRDTSTORE_DATA": str(tmp_path / "moved"), "CRDTSTORE_IDENTITY_WAIT_MS": "300"}
    shutil.copytree(tmp_path / "data-us", tmp_path / "moved")
    us = run("us", env=moved)
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        us.retry("GET", "/readyz")
    assert "--only-copy" in refused.value.read().decode()
    assert us.retry("GET", "/v1/domains/shop")[0] == 200
    us.process.send_signal(signal.SIGTERM)
    assert us.end()[0] == 0
    us = run("us", "--only-copy", env=moved).ready()
    assert us.ask("PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})[0] == 200
    us.process.send_signal(signal.SIGTERM)
    [proof] = [event["proof"] for event in us.end()[2] if event["event"] == "this node goes on under its id"]
    assert proof == "within 300 ms no peer contradicted, and 0 of 1 were reached"
