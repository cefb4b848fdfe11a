"""``crdtstore node`` of several workers, as processes: they start together, are started again, and end together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.processes import NODE_COMMAND, hold_port
from tests.node.running import NONCE, environment

pytestmark = pytest.mark.slow

WAIT_S = 30.0


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class CrewProcess:
    """A node of two workers in ``directory``, ended at the end of its test."""

    def __init__(self, directory: Path, workers: int = 2, *, of_cluster: int | None = None) -> None:
        self.directory = directory
        held = [hold_port(0) for _ in range(2 * workers)]
        ports = [each.getsockname()[1] for each in held]
        for each in held:
            each.close()
        self.apis, gossips = ports[:workers], ports[workers:]
        several = [f'"127.0.0.1:{port}"' for port in gossips]
        founding = "" if of_cluster is None else f"workers = {of_cluster}\n"
        count = workers if of_cluster is None else of_cluster
        gossip = f"[{', '.join(several)}]" if count == workers else '"127.0.0.1:7500"'
        (directory / "cluster.toml").write_text(
            f'cluster = "test"\nnonce = "{NONCE}"\n{founding or f"workers = {workers}"}\n'
            f'[[member]]\nnode = "us-1"\nregion = "us"\nreplica = "us-1.{"0" * 15}1"\ngossip = {gossip}\n'
        )
        apis = ", ".join(f'"127.0.0.1:{port}"' for port in self.apis)
        (directory / "us-1.toml").write_text(
            f'node = "us-1"\ncluster_file = "cluster.toml"\ndata = "data"\nworkers = {workers}\n'
            f"api = [{apis}]\ngossip = [{', '.join(several)}]\n"
        )
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> CrewProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*NODE_COMMAND, "--config", str(self.directory / "us-1.toml"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        return self

    @property
    def code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def events(self, name: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not name or line["event"] == name]

    def pid(self, worker: int) -> int:
        started = [each for each in self.events("worker started") if each["worker"] == f"us-1+{worker}"]
        return int(started[-1]["pid"])

    def pids(self) -> list[int]:
        return [int(each["pid"]) for each in self.events("worker started")]

    def ask(self, worker: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.apis[worker]}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as reply:
            found: dict[str, Any] = json.load(reply)
            return found

    def is_ready(self, worker: int) -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            return bool(self.ask(worker, "GET", "/v1/status")["ready"])
        return False

    def ready(self) -> CrewProcess:
        def are_ready() -> bool:
            assert self.code is None, self.log.read_text()
            return bool(self.events("all workers are ready"))

        until(are_ready, "all workers are ready")
        return self

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids() if self.log.exists() else []:
            until(lambda pid=pid: not is_alive(pid), f"worker process {pid} ends with its supervisor")  # type: ignore[misc]


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[CrewProcess]:
    made = CrewProcess(tmp_path)
    yield made
    made.end()


def test_a_worker_that_is_killed_comes_back_and_the_other_goes_on(crew: CrewProcess) -> None:
    crew.start("--bootstrap").ready()
    for worker in (0, 1):
        status = crew.ask(worker, "GET", "/v1/status")
        assert status["node"] == f"us-1+{worker}"
        assert [each["api"] for each in status["workers"]] == [f"http://127.0.0.1:{port}" for port in crew.apis]
        assert (crew.directory / "data" / f"worker-{worker}" / "identity.json").exists()
    crew.ask(0, "PUT", "/v1/domains/shop", {"shards": 2})
    crew.ask(0, "PUT", "/v1/domains/shop/collections/orders", {"type": "counter"})

    # "k" is in one of the two shards, whichever: its owner takes it, before and after
    def add(key: str) -> int:
        for worker in (0, 1):
            with contextlib.suppress(urllib.error.HTTPError):
                reply = crew.ask(worker, "POST", f"/v1/data/shop/orders/{key}", {"ops": [{"op": "add"}]})
                return worker if reply["dot"] else -1
        return -1

    until(lambda: add("warm") >= 0 or None, "the declaration is known")
    keys = [f"key-{at}" for at in range(20)]
    owners = {key: until(lambda key=key: add(key) + 1, "taken") - 1 for key in keys}
    assert set(owners.values()) == {0, 1}
    other = crew.pid(0)
    os.kill(crew.pid(1), signal.SIGKILL)
    for key in keys:
        if owners[key] == 0:
            assert add(key) == 0
    until(lambda: len(crew.events("a worker ended, and is started again; the others go on")), "it is said")
    assert crew.events("a worker ended, and is started again; the others go on")[0]["worker"] == "us-1+1"
    until(lambda: crew.is_ready(1), "it is back")
    assert is_alive(other)
    assert crew.pid(0) == other
    for key in keys:
        reply = crew.ask(owners[key], "GET", f"/v1/data/shop/orders/{key}")
        assert reply["value"] == (2 if owners[key] == 0 else 1)
    assert crew.process is not None
    crew.process.terminate()
    assert crew.process.wait(WAIT_S) == 0
    assert not any(is_alive(pid) for pid in crew.pids())
    assert len(crew.events("stopped")) == 2, "each of them in order"
    crew.start().ready()


def test_a_worker_that_cannot_start_ends_all(crew: CrewProcess) -> None:
    with hold_port(crew.apis[1]) as taken:
        taken.listen()
        crew.start("--bootstrap")
        assert crew.process is not None
        assert crew.process.wait(WAIT_S) == 1
    assert crew.events("a worker cannot start")[0]["worker"] == "us-1+1"
    assert f"cannot listen at 127.0.0.1:{crew.apis[1]}" in crew.log.read_text()
    assert not any(is_alive(pid) for pid in crew.pids())


def test_an_empty_directory_is_not_founded_unasked(crew: CrewProcess) -> None:
    crew.start()
    assert crew.process is not None
    assert crew.process.wait(WAIT_S) == 2
    assert "is empty. A node takes its founding id only once" in crew.log.read_text()


def test_workers_end_with_who_started_them(crew: CrewProcess) -> None:
    crew.start("--bootstrap").ready()
    assert crew.process is not None
    crew.process.kill()
    crew.process.wait()
    for pid in crew.pids():
        until(lambda pid=pid: not is_alive(pid), "no worker outlives the node")  # type: ignore[misc]


def refused(directory: Path, *options: str) -> str:
    result = subprocess.run(
        [*NODE_COMMAND, "--config", str(directory / "us-1.toml"), *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert result.returncode == 2, result
    return result.stderr


def test_another_number_than_the_clusters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    CrewProcess(tmp_path / "a", of_cluster=3)
    said = refused(tmp_path / "a", "--bootstrap", "--worker", "0")
    assert "workers: 2, but the cluster file" in said
    assert "says 3: the number is the same at all nodes of a cluster and never changes. Nothing changed." in said
    assert "counted from 0; there is no 2" in refused(tmp_path / "a", "--bootstrap", "--worker", "2")


def test_the_number_of_a_directory_never_changes(crew: CrewProcess) -> None:
    crew.start("--bootstrap").ready()
    crew.end()
    config = crew.directory / "us-1.toml"
    text = config.read_text()
    config.write_text(text.replace("workers = 2", "workers = 1").replace("[", "").replace("]", "").split("api")[0])
    lines = 'api = "127.0.0.1:7401"\ngossip = "127.0.0.1:7501"\n'
    config.write_text(config.read_text() + lines)
    assert "is that of a node of several workers, not of one process: the number never changes" in refused(
        crew.directory
    )
    cluster = crew.directory / "cluster.toml"
    cluster.write_text(
        cluster.read_text().replace("workers = 2", "workers = 3").split("gossip")[0] + 'gossip = "a:1"\n'
    )
    config.write_text(config.read_text().replace("workers = 1", "workers = 3"))
    said = refused(crew.directory, "--worker", "0")
    assert "belongs to this cluster with workers = 2, but here it is 3: the number is the same at all nodes" in said
