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
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crdtstore.errors import Unavailable, UsageError
from crdtstore.testing.processes_files import DirectoryLock, LocalFiles
from crdtstore.testing.processes_links import ClusterLinks
from crdtstore.testing.processes_node import ENDED, NodeProcess, NodeState, http_get, node_environment, readiness
from crdtstore.testing.processes_ports import hold_port
from crdtstore.testing.proxy import Link, Proxy

__all__ = ["NODE_COMMAND", "LocalCluster", "NodeProcess", "NodeState", "hold_port", "http_get"]

NODE_COMMAND = (sys.executable, "-m", "crdtstore.cli", "node")
"""How this installation starts a node; ``--config FILE --exit-with-stdin`` and perhaps ``--bootstrap`` follow."""

DEFAULT_REGIONS = ("us", "eu", "ap")
SPAWN_ATTEMPTS = 3


class LocalCluster:
    """Nodes of several regions, their data below ``directory``, the links between them in our hands.

    The first node of a region is known by its region, another of the same region by its name: ``us``, ``eu``, ``us-2``. With ``workers``
    > 1 each process is one worker, known by its name: ``us-1+0``, ``us-1+1``.
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
        workers: int | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self._workers = workers
        self._links = ClusterLinks(seed=seed)
        self._wanted_regions = regions
        self._command = list(command)
        self._tables = {"engine": dict(engine or {}), "log": dict(log or {})}
        self._env = node_environment(env or {})
        self._first_port = first_port
        self._ready_path = ready_path
        self._start_timeout_s = start_timeout_s
        self._lock = DirectoryLock(self.directory)
        self._files: LocalFiles | None = None
        self._nodes: dict[str, NodeProcess] = {}
        self._alone: list[tuple[str, bool]] = []  # who was cut off from all others, and whether one way
        self._ports: dict[str, list[socket.socket]] = {}  # held until their node is spawned

    async def __aenter__(self) -> LocalCluster:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- what there is

    @property
    def proxy(self) -> Proxy:
        return self._links.proxy

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

    def find(self, word: str) -> list[str]:
        """What a person means: a node by its name, or all nodes of a region. Raises:  UsageError when there is none."""
        nodes = self._open_files.nodes
        found = [key for key, node in nodes.items() if node.node == word]
        found = found or [key for key, node in nodes.items() if node.region == word]
        return found or [self._known(word)]

    def link(self, one: str, other: str) -> Link:
        """The link of two regions; its ``out`` runs from the one with the smaller node name, which dials."""
        return self._links.link(*sorted((self._name(one), self._name(other))))

    async def status(self) -> dict[str, Any]:
        """Nodes, cuts and counters; a node is asked at its ready path, and one that does not answer says so."""
        nodes = list(self._nodes.items())
        states = await asyncio.gather(*(self._readiness(node) for _, node in nodes))
        return {
            "directory": str(self.directory),
            "nodes": [
                {
                    "region": self._open_files.nodes[key].region,
                    "node": node.name,
                    "name": key,
                    "pid": node.pid,
                    "url": self.url(key),
                    "state": node.state,
                    "returncode": node.returncode,
                    "ready": ready,
                    "why": why,
                    "identity": identity,
                    "log": str(node.log_path),
                }
                for (key, node), (ready, why, identity) in zip(nodes, states, strict=True)
                if key in self._nodes
            ],
            "cut": [{"from": source, "to": target} for source, target in self.cuts],
            "links": self.proxy.counters(),
        }

    async def _readiness(self, node: NodeProcess) -> tuple[bool, str, str]:
        """Whether it is ready, why not, and what it is in the cluster then."""
        if node.pid is None:
            return False, node.state, ""
        try:
            return await readiness(node.address, self._ready_path, 1.0)
        except OSError as error:
            return False, str(error) or "no answer within 1 s", ""

    # -- life

    async def up(self) -> None:
        """Start all nodes and wait until they are ready.

        Raises:  UsageError when the directory is in use or holds other regions; Unavailable when a node does not become
                 ready. In both cases nothing is left running.
        """
        self._lock.acquire()
        try:
            self._files = LocalFiles.open(self.directory, self._wanted_regions, DEFAULT_REGIONS, self._workers)
            await self._lay_out(self.regions)
            await self._start(self.regions)
        except Unavailable as error:
            await self.stop()
            raise Unavailable(f"no region runs now, for one did not start: {error.detail}", code=error.code) from error
        except BaseException:
            await self.stop()
            raise

    async def start(self, region: str, *, wait: bool = True) -> None:
        """Start a node that was killed, stopped or has exited, on its data; ports move only if they were taken.

        ``wait``: until it is ready, or knows that it is no member any more; else until it answers at all.
        """
        node = self.node(region)
        if node.pid is not None:
            raise UsageError(f"region {region} is {node.state} (pid {node.pid}). Nothing changed.")
        await self._start([region], wait=wait)

    async def add(self, region: str, name: str = "", *, wait: bool = True) -> str:
        """Start a node that joins the running cluster; returns what it, or its first worker, is known by. ``wait`` as in ``start``.

        Raises:  UsageError when there cannot be one like that; Unavailable when it does not start. Nothing changed then.
        """
        keys = [each.key for each in self._open_files.add(region, name)]
        try:
            await self._lay_out(keys)
            for word, one_way in self._alone:
                self._cut_off(word, one_way=one_way)
            await self._start(keys, wait=wait)
        except BaseException:
            for key in keys:
                node = self._nodes.pop(key, None)
                if node is not None:
                    await node.stop()
                await self._links.remove(self._name(key))
            self._release_ports(keys)
            for key in keys:
                del self._open_files.nodes[key]
            self._open_files.save()
            raise
        return keys[0]

    async def stop(self, region: str | None = None) -> None:
        """Stop one node in order, or everything: nodes, proxies, and the hold on the directory."""
        if region is not None:
            await self.node(region).stop()
            return
        await asyncio.gather(*(node.stop() for node in self._nodes.values()))
        await self._links.stop()
        self._alone.clear()
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
        for region in regions:
            number = list(files.nodes).index(region)
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
            memory = files.nodes[region]
            await self._links.add(memory.node, ("127.0.0.1", memory.gossip_port), joins=memory.joins)

    async def _start(self, regions: Sequence[str], *, wait: bool = True) -> None:
        """Start nodes together; one that lost the race for a port is started again on another."""
        for attempt in range(SPAWN_ATTEMPTS):
            failed = await self._spawn(regions, wait)
            again = [region for region, error in failed.items() if self._lost_its_port(region, error)]
            if attempt == SPAWN_ATTEMPTS - 1 or len(again) < len(failed):
                again = []
            for region, error in failed.items():
                if region not in again:
                    raise error
            if not again:
                return
            regions = again

    async def _spawn(self, regions: Sequence[str], wait: bool) -> dict[str, Unavailable]:
        files = self._open_files
        for region in regions:
            self._hold_ports(region, files.nodes[region].api_port)
        files.save()
        for region in regions:
            node = self._nodes[region]
            name, links = node.name, self._links
            names = [each.name for each in self._nodes.values() if each is not node]
            peers = {peer: _text(links.address(name, peer)) for peer in names}
            crew = files.crew(region)
            advertised = [_text(links.advertised(each.node)) for each in crew] if files.nodes[region].joins else []
            files.save_node(region, peers, self._tables, advertised)
            node.command = [*self._command, "--config", str(files.config_path(region)), "--exit-with-stdin"]
            if files.nodes[region].worker is not None:
                node.command += ["--worker", str(files.nodes[region].worker)]
            if not files.nodes[region].is_founded and not files.nodes[region].joins:
                node.command.append("--bootstrap")
        self._release_ports(regions)
        for region in regions:
            self._nodes[region].spawn()
        instead = ENDED if wait else None
        waits = [self._nodes[region].wait_ready(self._start_timeout_s, instead) for region in regions]
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
        for region, other in itertools.product([self._known(region) for region in regions], self.regions):
            if region != other:
                self.partition_pair(region, other)

    def partition_pair(self, one: str, other: str) -> None:
        """Cut two regions from each other."""
        self.one_way(one, other)
        self.one_way(other, one)

    def one_way(self, source: str, target: str) -> None:
        """What ``source`` says no longer reaches ``target``; the way back stays open for connections that exist."""
        if self._known(source) == self._known(target):
            raise UsageError(f"a region cannot be cut off from itself, got {source} twice. Nothing changed.")
        self._links.cut([(self._name(source), self._name(target))])

    def isolate(self, word: str, peer: str | None = None, *, one_way: bool = False) -> None:
        """Cut a region or a node off from another, or from all: then from those too that are added until the heal."""
        self._cut_off(word, peer, one_way=one_way)
        if peer is None and (word, one_way) not in self._alone:
            self._alone.append((word, one_way))

    def _cut_off(self, word: str, peer: str | None = None, *, one_way: bool) -> None:
        inside = self.find(word)
        outside = [key for key in self.regions if key not in inside] if peer is None else self.find(peer)
        if set(inside) & set(outside):
            raise UsageError(f"{word} cannot be cut off from itself. Nothing changed.")
        for own, other in itertools.product(inside, outside):
            self.one_way(other, own)
            if not one_way:
                self.one_way(own, other)

    def heal(self, *, reset: bool = True) -> int:
        """End all cuts; returns how many connections were reset (those that saw one; none with ``reset=False``)."""
        self._alone.clear()
        return self._links.heal(reset=reset)

    @property
    def cuts(self) -> list[tuple[str, str]]:
        """Pairs (who is not heard, by whom)."""
        keys = {node.name: key for key, node in self._nodes.items()}
        return sorted((keys[source], keys[target]) for source, target in self._links.cuts)

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

    def _name(self, region: str) -> str:
        return self._open_files.nodes[self._known(region)].node

    def _hold_ports(self, region: str, preferred_api: int) -> None:
        if region in self._ports:
            return
        memory = self._open_files.nodes[region]
        held = [hold_port(preferred_api), hold_port(memory.gossip_port)]
        self._ports[region] = held
        memory.api_port, memory.gossip_port = (each.getsockname()[1] for each in held)
        if region in self._nodes:
            self._nodes[region].address = ("127.0.0.1", memory.api_port)
        self._links.move(memory.node, ("127.0.0.1", memory.gossip_port))

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


def _text(address: tuple[str, int]) -> str:
    return "{}:{}".format(*address)
