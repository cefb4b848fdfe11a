"""The command ``crdtstore dev``: a cluster from up to down, whatever happens in between. Its nodes are stand-ins (``stand_in_node.py``)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.testing import processes
from crdtstore_node.dev import control, dev, launch
from tests.integration.stand_ins import (
    DEADLINE_S,
    STAND_IN,
    is_alive,
    wait_until,
)

pytestmark = pytest.mark.slow


# -- crdtstore dev


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(processes, "NODE_COMMAND", STAND_IN)
    monkeypatch.setattr("crdtstore_node.dev.cli.FIRST_API_PORT", 0)  # 7401 may be somebody's
    directory = tmp_path / "here"
    yield directory
    launch.down(directory)


def run(directory: Path, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(dev, [words[0], "--directory", str(directory), *words[1:]])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def ask(directory: Path, *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(directory, *words, "--json").stdout)
    return document


def all_pids(status: dict[str, Any]) -> list[int]:
    return [status["pid"], *(node["pid"] for node in status["nodes"])]


def test_nodes_take_settings_of_the_environment_of_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_ENGINE_CHECKPOINT_MS", "2000")
    monkeypatch.setenv("CRDTSTORE_API", "0.0.0.0:1")
    run(directory, "up", "--regions", "us")
    killed = run(directory, "kill", "us").stdout
    assert killed.endswith(f"start it with: crdtstore dev start us --directory {directory}\n")
    monkeypatch.delenv("CRDTSTORE_ENGINE_CHECKPOINT_MS")
    run(directory, "start", "us")
    environment = Path(f"/proc/{ask(directory, 'status')['nodes'][0]['pid']}/environ").read_bytes()
    assert b"CRDTSTORE_ENGINE_CHECKPOINT_MS=2000" in environment
    assert b"CRDTSTORE_API" not in environment
    assert "CRDTSTORE_ENGINE_" in CliRunner().invoke(dev, ["up", "--help"]).stdout


def test_dev_from_up_to_down(directory: Path) -> None:
    line = run(directory, "up", "--regions", "us,eu,ap").stdout
    status = ask(directory, "status")
    urls = {node["region"]: node["url"] for node in status["nodes"]}
    assert line == "{}      data in {}/, stop with: crdtstore dev down --directory {}\n".format(
        "   ".join(f"{region}  {url}" for region, url in urls.items()), directory, directory
    )
    assert [node["state"] for node in status["nodes"]] == ["running"] * 3
    assert all(is_alive(pid) for pid in all_pids(status))
    assert run(directory, "env").stdout == f"export CRDTSTORE_URL={','.join(urls.values())}\n"

    again = run(directory, "up", code=2)
    assert "is running already" in again.stderr
    assert "Nothing changed" in again.stderr
    assert urls["us"] in again.stderr
    assert all_pids(ask(directory, "status")) == all_pids(status)

    assert run(directory, "partition", "ap").stdout == "cut: ap | eu, ap | us\n"
    table = run(directory, "status").stdout.splitlines()
    assert table[0].split() == ["region", "node", "pid", "url", "state", "links", "cut"]
    assert [row.split()[-1] for row in table[2:5]] == ["ap", "ap", "us"]
    assert run(directory, "heal").stdout.startswith("healed, connections reset: ")
    assert ask(directory, "partition", "ap", "--from", "us", "--one-way") == {"cut": [{"from": "us", "to": "ap"}]}
    assert "from us" in run(directory, "status").stdout
    assert "to ap" in run(directory, "status").stdout
    assert run(directory, "partition", "eu", "--from", "us").stdout == "cut: eu | us, us -> ap (one way)\n"
    assert ask(directory, "heal")["cut"] == []
    assert "unknown region mars, there are: us, eu, ap" in run(directory, "partition", "mars", code=2).stderr
    assert "unknown region mars" in run(directory, "partition", "ap", "--from", "mars", code=2).stderr
    refused = run(directory, "partition", "mars", "--json", code=2)
    assert json.loads(refused.stdout)["code"] == "bad-request"
    assert ask(directory, "status")["cut"] == []

    killed = ask(directory, "kill", "us")
    assert killed == {"region": "us", "pid": status["nodes"][0]["pid"], "state": "killed"}
    assert not is_alive(killed["pid"])
    assert "killed" in run(directory, "status").stdout
    assert "it is killed" in run(directory, "kill", "us", code=2).stderr
    assert urls["us"] in run(directory, "start", "us").stdout
    os.kill(ask(directory, "status")["nodes"][1]["pid"], signal.SIGTERM)
    wait_until(lambda: "exited (0)" in run(directory, "status").stdout)
    run(directory, "start", "eu")

    status = ask(directory, "status")
    stopped = ask(directory, "down")
    assert set(stopped["stopped"]) >= set(all_pids(status))
    assert not any(is_alive(pid) for pid in all_pids(status))
    assert not (directory / "supervisor.json").exists()
    assert not (directory / "control.sock").exists()
    for words in (["status"], ["env"], ["heal"], ["kill", "us"]):
        assert f"start it with: crdtstore dev up --directory {directory}" in run(directory, *words, code=2).stderr
    assert run(directory, "down").stdout == f"nothing runs in {directory}/\n"

    run(directory, "up")  # continues: the stand-in refuses an empty directory without --bootstrap
    assert (directory / "us-1" / "starts").read_text() == "xxx"
    assert ask(directory, "status")["nodes"][0]["url"] == urls["us"]


def test_dev_stale_state_and_paused_node_after_the_supervisor_was_killed(directory: Path) -> None:
    run(directory, "up", "--regions", "us,eu")
    status = ask(directory, "status")
    paused = status["nodes"][1]["pid"]
    os.kill(paused, signal.SIGSTOP)
    tasks = list(Path(f"/proc/{paused}/task").iterdir())
    wait_until(lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks))
    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in all_pids(status)))
    assert (directory / "supervisor.json").exists()
    assert "nothing runs in" in run(directory, "status", code=2).stderr
    run(directory, "up")
    assert not set(all_pids(ask(directory, "status"))) & set(all_pids(status))
    status = ask(directory, "status")
    os.kill(status["pid"], signal.SIGKILL)
    assert set(ask(directory, "down")["stopped"]) >= set(all_pids(status))
    assert not (directory / "supervisor.json").exists()


def test_dev_supervisor_that_hangs_is_ended_by_down(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LEAVE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(launch, "DOWN_TIMEOUT_S", 0.5)
    run(directory, "up", "--regions", "us")
    status = ask(directory, "status")
    os.kill(status["pid"], signal.SIGSTOP)
    monkeypatch.setattr(launch, "request", lambda *args, **kwargs: control.request(args[0], args[1], timeout_s=0.2))
    assert set(ask(directory, "down")["stopped"]) == set(all_pids(status))
    assert not any(is_alive(pid) for pid in all_pids(status))


def test_dev_up_that_fails_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "NODE_COMMAND", (sys.executable, "-c", "import sys; sys.exit('no such luck')"))
    result = run(directory, "up", "--regions", "us,eu", code=4)
    assert "did not become ready" in result.stderr
    assert "no such luck" in result.stderr
    assert control.supervisor_of(directory) is None
    assert (
        "error: bad-request: a region is named like" in run(directory / "new", "up", "--regions", "US", code=2).stderr
    )


def test_dev_in_a_directory_with_a_long_name(directory: Path) -> None:
    deep = directory / ("d" * 90) / ("e" * 90)
    try:
        run(deep, "up", "--regions", "us")
        path = Path(control.read_state(deep)["socket"])
        assert path.parent.parent != deep
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert (deep / "supervisor.json").stat().st_mode & 0o777 == 0o600
        assert ask(deep, "status")["nodes"][0]["ready"]
    finally:
        run(deep, "down")
    assert not path.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_dev_in_the_foreground_leaves_nothing_after_ctrl_c(directory: Path, number: signal.Signals) -> None:
    program = (
        "import sys; from crdtstore.testing import processes; from crdtstore_node.dev import dev;"
        f"processes.NODE_COMMAND = {STAND_IN!r};"
        f"dev(['up', '--regions', 'us,eu', '--foreground', '--json', '--directory', {str(directory)!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, process_group=0) as process:
        try:
            assert process.stdout is not None
            status = json.loads(process.stdout.readline())
            assert status["pid"] == process.pid
            assert ask(directory, "status")["nodes"][0]["ready"]
            os.killpg(process.pid, number)  # as a terminal does, to the whole group
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert not any(is_alive(pid) for pid in all_pids(status))
    assert not (directory / "supervisor.json").exists()


def test_dev_supervisor_refuses_what_it_does_not_understand(directory: Path) -> None:
    run(directory, "up", "--regions", "us")
    state = control.read_state(directory)
    for line in (b"{}\n", b"[]\n", b"nonsense\n", b'{"do": "dance"}\n', b'{"do": "kill"}\n'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(state["socket"])
            connection.sendall(line)
            answer = json.loads(connection.makefile().readline())
        assert answer["problem"]["code"] == "bad-request", line
    assert ask(directory, "status")["nodes"][0]["ready"]


def test_a_reused_process_id_is_not_ours() -> None:
    start = control.process_start(os.getpid())
    assert start is not None
    assert control.is_running((os.getpid(), start))
    assert not control.is_running((os.getpid(), start + 1))
