"""One node as a process: it starts, is paused, killed, and never forgotten. It is a stand-in (``stand_in_node.py``)."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from crdtstore.errors import Unavailable, UsageError
from crdtstore.testing.processes import NodeProcess, hold_port, http_get
from tests.integration.stand_ins import (
    DEADLINE_S,
    SILENCE_S,
    STAND_IN,
    until,
)

pytestmark = pytest.mark.slow


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
