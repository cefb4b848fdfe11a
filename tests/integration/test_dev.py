"""A cluster of real processes: it starts, is cut, loses nodes, and leaves nothing behind.

The nodes are stand-ins (``stand_in_node.py``): what is tested here is the supervision, not the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.causal import parse_replica_id
from crdtstore.errors import StorageError, Unavailable, UsageError
from crdtstore.testing import processes
from crdtstore.testing.processes import LocalCluster, NodeProcess, hold_port, http_get
from crdtstore_node.dev import control, dev, launch

pytestmark = pytest.mark.slow

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_node.py")))
DEADLINE_S = 20.0
SILENCE_S = 0.2  # ten times as long as the stand-ins' pause between two words


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline passed"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return control.process_start(pid) is not None


async def heard(cluster: LocalCluster, region: str) -> dict[str, int]:
    status, body = await http_get(cluster.node(region).address, "/heard")
    assert status == 200
    counts: dict[str, int] = json.loads(body)
    return counts


async def hears(cluster: LocalCluster, region: str) -> set[str]:
    """Whom a region hears within a moment."""
    before = await heard(cluster, region)
    await asyncio.sleep(SILENCE_S)
    after = await heard(cluster, region)
    return {node.removesuffix("-1") for node in after if after[node] > before.get(node, 0)}


async def until_hears(cluster: LocalCluster, region: str, peers: set[str]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await hears(cluster, region) != peers:
            pass


# -- one process


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    with hold_port() as api, hold_port() as gossip:
        ports = [each.getsockname()[1] for each in (api, gossip)]
    config = tmp_path / "a.toml"
    config.write_text(
        f'node = "a-1"\ndata = "{tmp_path}/data"\n'
        f'api = "127.0.0.1:{ports[0]}"\ngossip = "127.0.0.1:{ports[1]}"\n[peers]\n'
    )
    command = [*STAND_IN, "--config", str(config), "--exit-with-stdin", "--bootstrap"]
    node = NodeProcess("a-1", command, address=("127.0.0.1", ports[0]), log_path=tmp_path / "a.log")
    yield node
    await node.kill()


def state_of(node: NodeProcess) -> str:
    return node.state


async def test_process_through_its_life(node: NodeProcess) -> None:
    assert (state_of(node), node.pid, node.returncode) == ("stopped", None, None)
    await node.start(DEADLINE_S)
    first = node.pid
    assert state_of(node) == "running"
    with pytest.raises(UsageError, match="runs already"):
        await node.start()
    assert node.pid == first

    await node.pause()
    assert state_of(node) == "paused"
    with pytest.raises(TimeoutError):
        await http_get(node.address, "/readyz", SILENCE_S)
    with pytest.raises(UsageError, match="is paused and cannot be paused"):
        await node.pause()
    node.resume()
    assert (await http_get(node.address, "/readyz"))[0] == 200

    await node.kill()
    assert (state_of(node), node.pid, node.returncode) == ("killed", None, -signal.SIGKILL)
    with pytest.raises(OSError, match="111"):
        await http_get(node.address, "/readyz")
    await node.start(DEADLINE_S)
    assert node.pid != first
    await node.pause()
    assert await node.stop() == 0, "a paused process leaves in order too"
    assert state_of(node) == "stopped"
    assert "a-1 serves" in node.log_tail()


async def test_process_that_exits_says_why(node: NodeProcess, tmp_path: Path) -> None:
    node.command.remove("--bootstrap")
    with pytest.raises(Unavailable, match=r"exited with 1.*does not run(.|\n)*is empty; --bootstrap founds it"):
        await node.start(DEADLINE_S)
    assert node.state == "exited"


async def test_process_that_never_becomes_ready_is_killed(tmp_path: Path) -> None:
    with hold_port() as silent:  # accepts and says nothing
        node = NodeProcess(
            "a-1",
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            address=silent.getsockname(),
            log_path=tmp_path / "log",
        )
        with pytest.raises(Unavailable, match=r"not within 0\.3 s"):
            await node.start(0.3)
    assert (node.state, node.pid) == ("killed", None)


async def test_process_whose_start_is_cancelled_does_not_stay(node: NodeProcess) -> None:
    starting = asyncio.ensure_future(node.start())
    await until(lambda: node.pid is not None)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    assert node.pid is None


STUBBORN = """
import signal, http.server, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503, "replaying")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_process_that_is_not_ready_and_does_not_leave(tmp_path: Path) -> None:
    with hold_port() as held:
        address = held.getsockname()
    node = NodeProcess(
        "a-1", [sys.executable, "-c", STUBBORN, str(address[1])], address=address, log_path=tmp_path / "a.log"
    )
    with (tmp_path / "a.log").open("wb") as log:
        log.truncate(9 << 20)
    node.spawn()
    assert (tmp_path / "a.log.1").stat().st_size == 9 << 20
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(Unavailable, match=r"within 2 s: /readyz answers 503 (.|\n)*replaying"):
            await node.wait_ready(2)
    node.spawn()
    while True:
        with suppress(OSError):
            assert (await http_get(address, "/"))[0] == 503
            break
        await asyncio.sleep(0.02)
    assert await node.stop(0.1) == -signal.SIGKILL


async def test_what_is_not_http_is_no_answer() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        with pytest.raises(ConnectionError, match="does not speak HTTP"):
            await http_get(server.sockets[0].getsockname(), "/")


async def test_stranger_at_the_port_is_not_taken_for_the_node(node: NodeProcess, tmp_path: Path) -> None:
    await node.start(DEADLINE_S)
    second = NodeProcess("b-1", node.command, address=node.address, log_path=tmp_path / "b.log")
    with pytest.raises(Unavailable, match=r"it exited with 1(.|\n)*in use"):
        await second.start(DEADLINE_S)
    assert node.state == "running"


def test_held_port_is_ours_and_a_taken_one_is_replaced() -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
        with hold_port(port) as other:
            assert other.getsockname()[1] != port
    with hold_port(port) as again:
        assert again.getsockname()[1] == port
    with pytest.raises(OSError, match="99"):
        hold_port(0, "192.0.2.1")


# -- a cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(
        tmp_path / "c", ["us", "eu", "ap"], command=STAND_IN, engine={"gossip_interval_ms": 50}
    ) as c:
        yield c


async def test_cluster_writes_what_nodes_read(cluster: LocalCluster) -> None:
    document = tomllib.loads((cluster.directory / "cluster.toml").read_text())
    assert len(bytes.fromhex(document["nonce"])) == 16
    assert [(member["node"], member["region"]) for member in document["member"]] == [
        ("us-1", "us"),
        ("eu-1", "eu"),
        ("ap-1", "ap"),
    ]
    assert len({parse_replica_id(member["replica"]) for member in document["member"]}) == 3
    listeners = {member["node"]: member["gossip"] for member in document["member"]}
    for region in cluster.regions:
        config = tomllib.loads(cluster.config_path(region).read_text())
        assert (config["node"], config["gossip"]) == (f"{region}-1", listeners[f"{region}-1"])
        assert config["api"] == cluster.url(region).removeprefix("http://")
        assert config["engine"] == {"gossip_interval_ms": 50}
        assert config["log"] == {}
        assert Path(config["data"]) == cluster.data_path(region) == cluster.directory / f"{region}-1"
        assert sorted(config["peers"]) == sorted(f"{peer}-1" for peer in cluster.regions if peer != region)
        assert not set(config["peers"].values()) & set(listeners.values()), "every link has its proxy"


async def test_cuts_of_a_cluster(cluster: LocalCluster) -> None:
    for region, peers in {"us": {"eu", "ap"}, "eu": {"us", "ap"}, "ap": {"us", "eu"}}.items():
        await until_hears(cluster, region, peers)

    cluster.partition("ap")
    assert await hears(cluster, "ap") <= {"us", "eu"}  # what was on the way may still arrive
    assert await hears(cluster, "ap") == set()
    await until_hears(cluster, "us", {"eu"})
    assert cluster.heal() == 2
    await until_hears(cluster, "ap", {"us", "eu"})

    cluster.one_way("us", "eu")
    await until_hears(cluster, "eu", {"ap"})
    await until_hears(cluster, "us", {"eu", "ap"})
    assert cluster.cuts == [("us", "eu")]
    cluster.partition_pair("us", "ap")
    await until_hears(cluster, "us", {"eu"})
    assert (await cluster.status())["cut"] == [
        {"from": "ap", "to": "us"},
        {"from": "us", "to": "ap"},
        {"from": "us", "to": "eu"},
    ]
    cluster.heal(reset=False)
    for region, peers in {"us": {"eu", "ap"}, "eu": {"us", "ap"}}.items():
        await until_hears(cluster, region, peers)
    assert cluster.link("us", "ap") is cluster.link("ap", "us")
    assert cluster.link("us", "ap").counters.forwarded_out > 0

    with pytest.raises(UsageError, match="unknown region mars"):
        cluster.partition("us", "mars")
    with pytest.raises(UsageError, match="cannot be cut off from itself"):
        cluster.one_way("us", "us")
    assert cluster.cuts == []


async def test_killed_paused_and_started_nodes(cluster: LocalCluster) -> None:
    with pytest.raises(UsageError, match="region us is running"):
        await cluster.start("us")
    url, pids = cluster.url("us"), {region: cluster.node(region).pid for region in cluster.regions}
    await cluster.kill("us")
    with pytest.raises(UsageError, match="it is killed"):
        await cluster.kill("us")
    await cluster.pause("eu")
    by_region = {each["region"]: each for each in (await cluster.status())["nodes"]}
    assert (by_region["us"]["state"], by_region["us"]["pid"], by_region["us"]["ready"]) == ("killed", None, False)
    assert (by_region["eu"]["state"], by_region["eu"]["ready"]) == ("paused", False)
    assert (by_region["ap"]["state"], by_region["ap"]["ready"], by_region["ap"]["pid"]) == ("running", True, pids["ap"])
    cluster.resume("eu")
    await cluster.stop("ap")
    assert cluster.node("ap").state == "stopped"
    await cluster.start("us")
    await cluster.start("ap")
    assert cluster.url("us") == url
    assert (cluster.data_path("us") / "starts").read_text() == "xx"
    await until_hears(cluster, "us", {"eu", "ap"})


async def test_node_whose_port_was_taken_meanwhile_moves(cluster: LocalCluster) -> None:
    old = cluster.url("us")
    gossip = tomllib.loads(cluster.config_path("us").read_text())["gossip"].rsplit(":", 1)[1]
    await cluster.kill("us")
    with hold_port(cluster.node("us").address[1]), hold_port(int(gossip)):
        await cluster.start("us")
        assert cluster.url("us") != old
        await until_hears(cluster, "us", {"eu", "ap"})
        await until_hears(cluster, "eu", {"us", "ap"})


LOSES_THE_RACE = """
import os, pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= int(sys.argv[2]):
    sys.exit("OSError: [Errno 98] Address already in use")
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


@pytest.mark.parametrize("losses", [1, 3])
async def test_lost_race_for_a_port_is_run_again_but_not_for_ever(tmp_path: Path, losses: int) -> None:
    command = [sys.executable, "-c", LOSES_THE_RACE, str(tmp_path / "tries"), str(losses), STAND_IN[1]]
    cluster = LocalCluster(tmp_path / "c", ["us"], command=command)
    if losses == 1:
        async with cluster:
            assert (tmp_path / "tries").read_text() == "xx"
    else:
        with pytest.raises(Unavailable, match="Address already in use"):
            await cluster.up()
        assert (tmp_path / "tries").read_text() == "xxx"


async def test_preferred_ports_are_taken_if_free(tmp_path: Path) -> None:
    with hold_port() as held:
        taken = held.getsockname()[1]
        async with LocalCluster(tmp_path / "a", ["us"], command=STAND_IN, first_port=taken) as cluster:
            assert cluster.node("us").address[1] != taken
    async with LocalCluster(tmp_path / "b", ["us"], command=STAND_IN, first_port=taken) as cluster:
        assert cluster.url("us") == f"http://127.0.0.1:{taken}"


async def test_files_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, ["us"], command=STAND_IN, engine={"gossip_interval_ms": [1]})
    with pytest.raises(UsageError, match="is not up"):
        _ = cluster.regions
    with pytest.raises(UsageError, match=r"got \[1\]"):
        await cluster.up()
    (tmp_path / "local.json").write_text("{}")
    with pytest.raises(StorageError, match="is not what was written there"):
        await cluster.up()


async def test_directory_continues_and_is_used_once(cluster: LocalCluster) -> None:
    identity = (cluster.directory / "cluster.toml").read_text()
    urls = cluster.urls
    second = LocalCluster(cluster.directory, command=STAND_IN)
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        await second.up()
    await cluster.stop()
    other = LocalCluster(cluster.directory, ["us", "mars"], command=STAND_IN)
    with pytest.raises(UsageError, match="holds a cluster of the regions us, eu, ap, not us, mars"):
        await other.up()
    async with second:
        assert second.regions == ["us", "eu", "ap"]
        assert second.urls == urls
        assert (second.directory / "cluster.toml").read_text() == identity
        assert "--bootstrap" not in second.node("us").command


async def test_lost_data_is_not_taken_for_new_and_nothing_stays(cluster: LocalCluster) -> None:
    pids = [pid for region in cluster.regions if (pid := cluster.node(region).pid)]
    await cluster.stop()
    assert not any(is_alive(pid) for pid in pids)
    (cluster.data_path("eu") / "id").unlink()
    with pytest.raises(Unavailable, match="no region runs now, for one did not start: node eu-1 did not become ready"):
        await cluster.up()
    assert all(cluster.node(region).pid is None for region in cluster.regions)
    assert control.supervisor_of(cluster.directory) is None


@pytest.mark.parametrize("regions", [[], ["us", "us"], ["US"], ["a b"], [f"r{n}" for n in range(17)]])
async def test_impossible_regions_write_nothing(tmp_path: Path, regions: list[str]) -> None:
    with pytest.raises(UsageError, match="Nothing changed"):
        await LocalCluster(tmp_path, regions, command=STAND_IN).up()
    assert not (tmp_path / "cluster.toml").exists()


async def test_nodes_do_not_take_settings_of_the_callers_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_URL", "http://elsewhere")
    async with LocalCluster(tmp_path, ["us"], command=STAND_IN, env={"CRDTSTORE_LOG": "x"}) as cluster:
        environment = Path(f"/proc/{cluster.node('us').pid}/environ").read_bytes()  # noqa: ASYNC240
    assert b"CRDTSTORE_URL" not in environment
    assert b"CRDTSTORE_LOG=x" in environment


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
