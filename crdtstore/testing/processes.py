"""A cluster of real node processes on this machine, with a fault proxy on every link.

The question: how are regions cut apart without a fault switch in the node? Each node finds its peers at the addresses
in its configuration, and a local cluster writes the address of a proxy there. Only gossip goes through the proxies;
users always reach every region, as in a real partition.

    async with LocalCluster(tmp_path, ["us", "eu", "ap"]) as cluster:
        cluster.partition("ap")
        ...requests to cluster.url("us")...
        cluster.heal()
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crdtstore.errors import Unavailable, UsageError
from crdtstore.testing.processes_files import DirectoryLock, LocalFiles
from crdtstore.testing.processes_node import NodeProcess, NodeState, http_get
from crdtstore.testing.processes_ports import hold_port
from crdtstore.testing.proxy import Link, Proxy

__all__ = ["NODE_COMMAND", "LocalCluster", "NodeProcess", "NodeState", "hold_port", "http_get"]

NODE_COMMAND = (sys.executable, "-m", "crdtstore.cli", "node")
"""How this installation starts a node; ``--config FILE --exit-with-stdin`` and perhaps ``--bootstrap`` follow."""

DEFAULT_REGIONS = ("us", "eu", "ap")
SPAWN_ATTEMPTS = 3


class LocalCluster:
    """One node per region, their data below ``directory``, the links between them in our hands.

    A directory that was used before continues: same members, same data, the same ports if they are free. ``engine`` and
    ``log`` are the tables of these names in every node's configuration; ``first_port`` is preferred for the API of the
    first region.
    """

    def __init__(
        self,
        directory: Path | str,
        regions: Sequence[str] | None = None,
        *,
        command: Sequence[str] = NODE_COMMAND,
        engine: Mapping[str, Any] | None = None,
        log: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        first_port: int = 0,
        ready_path: str = "/readyz",
        start_timeout_s: float = 30.0,
        seed: int = 0,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.proxy = Proxy(seed=seed)
        self._wanted_regions = regions
        self._command = list(command)
        self._tables = {"engine": dict(engine or {}), "log": dict(log or {})}
        self._env = _node_environment(env or {})
        self._first_port = first_port
        self._ready_path = ready_path
        self._start_timeout_s = start_timeout_s
        self._lock = DirectoryLock(self.directory)
        self._files: LocalFiles | None = None
        self._nodes: dict[str, NodeProcess] = {}
        self._cut: set[tuple[str, str]] = set()  # (who is not heard, by whom)
        self._ports: dict[str, list[socket.socket]] = {}  # held until their node is spawned

    async def __aenter__(self) -> LocalCluster:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- what there is

    @property
    def regions(self) -> list[str]:
        return list(self._open_files.nodes)

    def node(self, region: str) -> NodeProcess:
        return self._nodes[self._known(region)]

    def url(self, region: str) -> str:
        """Where users reach the region."""
        return "http://{}:{}".format(*self.node(region).address)

    @property
    def urls(self) -> dict[str, str]:
        return {region: self.url(region) for region in self.regions}

    def config_path(self, region: str) -> Path:
        return self._open_files.config_path(self._known(region))

    def data_path(self, region: str) -> Path:
        return self._open_files.data_path(self._known(region))

    def link(self, one: str, other: str) -> Link:
        """The link of two regions; its ``out`` runs from the one with the smaller node name, which dials."""
        dialer, target = sorted((self._known(one), self._known(other)), key=lambda region: f"{region}-1")
        return self.proxy.links[_link_name(dialer, target)]

    async def status(self) -> dict[str, Any]:
        """Nodes, cuts and counters; a node is asked at its ready path, and one that does not answer says so."""
        readiness = await asyncio.gather(*(self._readiness(node) for node in self._nodes.values()))
        return {
            "directory": str(self.directory),
            "nodes": [
                {
                    "region": region,
                    "node": node.name,
                    "pid": node.pid,
                    "url": self.url(region),
                    "state": node.state,
                    "returncode": node.returncode,
                    "ready": ready,
                    "why": why,
                    "log": str(node.log_path),
                }
                for (region, node), (ready, why) in zip(self._nodes.items(), readiness, strict=True)
            ],
            "cut": [{"from": source, "to": target} for source, target in sorted(self._cut)],
            "links": self.proxy.counters(),
        }

    async def _readiness(self, node: NodeProcess) -> tuple[bool, str]:
        if node.pid is None:
            return False, node.state
        try:
            status, body = await http_get(node.address, self._ready_path, 1.0)
        except OSError as error:
            return False, str(error) or "no answer within 1 s"
        return status == 200, "" if status == 200 else body[:200].decode(errors="replace")

    # -- life

    async def up(self) -> None:
        """Start all nodes and wait until they are ready.

        Raises:  UsageError when the directory is in use or holds other regions; Unavailable when a node does not become
                 ready. In both cases nothing is left running.
        """
        self._lock.acquire()
        try:
            self._files = LocalFiles.open(self.directory, self._wanted_regions, DEFAULT_REGIONS)
            await self._lay_out(self.regions)
            await self._start(self.regions)
        except Unavailable as error:
            await self.stop()
            raise Unavailable(f"no region runs now, for one did not start: {error.detail}", code=error.code) from error
        except BaseException:
            await self.stop()
            raise

    async def start(self, region: str) -> None:
        """Start a node that was killed, stopped or has exited, on its data; ports move only if they were taken."""
        node = self.node(region)
        if node.pid is not None:
            raise UsageError(f"region {region} is {node.state} (pid {node.pid}). Nothing changed.")
        await self._start([region])

    async def add(self, region: str) -> None:
        """Start a node that joins the running cluster as a region of its own, and wait until it serves.

        Those who run already dial it by one proxy, which is cut as soon as it is cut from anybody.
        """
        self._open_files.add(region)
        try:
            await self._lay_out([region])
            await self._start([region])
        except BaseException:
            if region in self._nodes:
                await self._nodes[region].stop()
            raise

    async def stop(self, region: str | None = None) -> None:
        """Stop one node in order, or everything: nodes, proxies, and the hold on the directory."""
        if region is not None:
            await self.node(region).stop()
            return
        await asyncio.gather(*(node.stop() for node in self._nodes.values()))
        await self.proxy.stop()
        self._cut.clear()
        self._release_ports(list(self._ports))
        self._lock.release()

    async def kill(self, region: str) -> None:
        """SIGKILL."""
        if self.node(region).pid is None:
            state = self.node(region).state
            how = "it ended by itself" if state == "exited" else f"it is {state}"
            raise UsageError(f"region {region} does not run: {how}. Nothing changed.")
        await self.node(region).kill()

    async def pause(self, region: str) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        await self.node(region).pause()

    def resume(self, region: str) -> None:
        """SIGCONT."""
        self.node(region).resume()

    async def _lay_out(self, regions: Sequence[str]) -> None:
        files = self._open_files
        for number, region in enumerate(regions):
            preferred = files.nodes[region].api_port or (self._first_port and self._first_port + number)
            self._hold_ports(region, preferred)
            self._nodes[region] = NodeProcess(
                files.nodes[region].node,
                [],
                address=("127.0.0.1", files.nodes[region].api_port),
                log_path=files.log_path(region),
                env=self._env,
                cwd=self.directory,  # python -m looks there first, and the caller's own folders are not to shadow ours
                ready_path=self._ready_path,
            )
            if files.nodes[region].joins:
                await self.proxy.add(_link_name("*", region), ("127.0.0.1", files.nodes[region].gossip_port))
        # Two listeners per pair: only the smaller id dials, but should the other one ever do, it meets the same cut.
        for dialer, target in itertools.permutations(self._nodes, 2):
            if _link_name(dialer, target) not in self.proxy.links:
                await self.proxy.add(_link_name(dialer, target), ("127.0.0.1", files.nodes[target].gossip_port))

    async def _start(self, regions: Sequence[str]) -> None:
        """Start nodes together; one that lost the race for a port is started again on another."""
        for attempt in range(SPAWN_ATTEMPTS):
            failed = await self._spawn(regions)
            again = [region for region, error in failed.items() if self._lost_its_port(region, error)]
            if attempt == SPAWN_ATTEMPTS - 1 or len(again) < len(failed):
                again = []
            for region, error in failed.items():
                if region not in again:
                    raise error
            if not again:
                return
            regions = again

    async def _spawn(self, regions: Sequence[str]) -> dict[str, Unavailable]:
        files = self._open_files
        for region in regions:
            self._hold_ports(region, files.nodes[region].api_port)
        files.save()
        for region in regions:
            node = self._nodes[region]
            peers = {f"{peer}-1": self._proxy_address(region, peer) for peer in self.regions if peer != region}
            advertise = self._proxy_address("*", region) if files.nodes[region].joins else ""
            files.save_node(region, peers, self._tables, advertise)
            node.command = [*self._command, "--config", str(files.config_path(region)), "--exit-with-stdin"]
            if not files.nodes[region].is_founded and not files.nodes[region].joins:
                node.command.append("--bootstrap")
        self._release_ports(regions)
        for region in regions:
            self._nodes[region].spawn()
        waits = [self._nodes[region].wait_ready(self._start_timeout_s) for region in regions]
        results = await asyncio.gather(*waits, return_exceptions=True)
        failed: dict[str, Unavailable] = {}
        for region, result in zip(regions, results, strict=True):
            if isinstance(result, Unavailable):
                failed[region] = result
            elif result is not None:
                raise result
            else:
                files.nodes[region].is_founded = True
        files.save()
        return failed

    # -- faults

    def partition(self, *regions: str) -> None:
        """Cut each of these regions off from all others, in both directions."""
        for region in regions:
            self._known(region)
        for region, other in itertools.product(regions, self.regions):
            if region != other:
                self._cut |= {(region, other), (other, region)}
        self._apply_cuts()

    def partition_pair(self, one: str, other: str) -> None:
        """Cut two regions from each other."""
        self.one_way(one, other)
        self.one_way(other, one)

    def one_way(self, source: str, target: str) -> None:
        """What ``source`` says no longer reaches ``target``; the way back stays open for connections that exist."""
        if self._known(source) == self._known(target):
            raise UsageError(f"a region cannot be cut off from itself, got {source} twice. Nothing changed.")
        self._cut.add((source, target))
        self._apply_cuts()

    def heal(self, *, reset: bool = True) -> int:
        """End all cuts; returns how many connections were reset (those that saw one; none with ``reset=False``)."""
        self._cut.clear()
        return self.proxy.heal(reset=reset)

    @property
    def cuts(self) -> list[tuple[str, str]]:
        """Pairs (who is not heard, by whom)."""
        return sorted(self._cut)

    def _apply_cuts(self) -> None:
        for source, target in self._cut:
            self.proxy.links[_link_name(source, target)].cut("out")
            self.proxy.links[_link_name(target, source)].cut("in")
            for joined, way in ((target, "out"), (source, "in")):
                if (link := self.proxy.links.get(_link_name("*", joined))) is not None:
                    link.cut(way)

    # -- small things

    @property
    def _open_files(self) -> LocalFiles:
        if self._files is None:
            raise UsageError("the cluster is not up; call up() first. Nothing changed.")
        return self._files

    def _known(self, region: str) -> str:
        if region not in self._open_files.nodes:
            raise UsageError(f"unknown region {region}, there are: {', '.join(self.regions)}. Nothing changed.")
        return region

    def _proxy_address(self, dialer: str, target: str) -> str:
        return "{}:{}".format(*self.proxy.links[_link_name(dialer, target)].address)

    def _hold_ports(self, region: str, preferred_api: int) -> None:
        if region in self._ports:
            return
        memory = self._open_files.nodes[region]
        held = [hold_port(preferred_api), hold_port(memory.gossip_port)]
        self._ports[region] = held
        memory.api_port, memory.gossip_port = (each.getsockname()[1] for each in held)
        if region in self._nodes:
            self._nodes[region].address = ("127.0.0.1", memory.api_port)
        for name, link in self.proxy.links.items():
            if name.endswith(f">{memory.node}"):
                link.target = ("127.0.0.1", memory.gossip_port)

    def _release_ports(self, regions: Iterable[str]) -> None:
        for region in regions:
            for held in self._ports.pop(region, []):
                held.close()

    def _lost_its_port(self, region: str, error: Unavailable) -> bool:
        if "address already in use" in error.detail.lower():
            return True
        memory = self._open_files.nodes[region]
        for port in (memory.api_port, memory.gossip_port):
            with suppress(OSError), hold_port(port) as held:
                if held.getsockname()[1] != port:
                    return True
        return False


def _link_name(dialer: str, target: str) -> str:
    """The name of a link; those of a region that joins ``*`` has: all who knew nothing of it."""
    return f"{dialer}-1>{target}-1"


def _node_environment(more: Mapping[str, str]) -> dict[str, str]:
    # A node takes settings from CRDTSTORE_…; those of the caller's shell (CRDTSTORE_URL is a client's) are not for it.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
    return mine | dict(more)
