"""A rehearsed restore: an isolated node from a backup, looked at from all sides, and thrown away.

The question: when is a backup good? When it has been restored. So the node is a real one, with its API on loopback and no member within
reach: it dials nobody and listens for nobody, wherever the backup says that members are, and looks for none that could let it in. Two
figures matter to whoever waits that day: how long until it answers (RTO), and how old its data is (RPO).
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from crdtstore.causal import ReplicaId, machine_of, node_of
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.errors import CrdtStoreError, StorageError, UsageError
from crdtstore_node.backup.restore import Restored, restore
from crdtstore_node.backup.source import Backup, Check, checked, verify
from crdtstore_node.config import NodeConfig
from crdtstore_node.node import Node, Opened

__all__ = ["drill_restore"]

_SEGMENT_BYTES = 8 << 20
_PAGE = 200
_NOWHERE = "127.0.0.1:1"


def drill_restore(
    backup: Backup, cluster: Cluster | None, at: str | None, scratch: Path | None, later: Sequence[Backup] = ()
) -> tuple[list[Check], dict[str, Any]]:
    """Restore into a directory that goes away again; what was checked, and the figures.

    Raises:  UsageError when the backup does not say who the members are and no cluster file does.
    """
    founders = _alone(backup, cluster)
    age_s = time.time() - datetime.fromisoformat(backup.manifest.taken).timestamp()
    checks = verify(backup)
    rto_s = None
    if all(check.is_ok for check in checks):
        with tempfile.TemporaryDirectory(prefix="crdtstore-drill-", dir=scratch) as directory, _quiet():
            rest, rto_s = _rehearse([backup, *later], founders, at, Path(directory))
        checks += rest
    return checks, {"rto_s": round(rto_s, 3) if rto_s is not None else None, "rpo_s": round(age_s, 1)}


@contextmanager
def _quiet() -> Iterator[None]:
    """What a node says of itself is not what a drill is asked for, unless it fails."""
    logger = logging.getLogger("crdtstore_node")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _alone(backup: Backup, cluster: Cluster | None) -> Cluster:
    """The cluster as a file says it, or as far as a backup knows it, with the backup's own node in it and nobody within reach.

    Regions that no file names are named like nodes: nothing that is checked depends on them. Who joined later is named beside the
    founders, of several lives of a node the first one: the members of each group stand in the backup.
    """
    manifest = backup.manifest
    system = manifest.groups.get(SYSTEM_GROUP)
    if cluster is not None:
        known = [(member.replica, member.region) for member in cluster.members]
    elif system is not None and system.members:
        known = [(ReplicaId(name), machine_of(node_of(ReplicaId(name)))) for name in system.members]
    else:
        raise UsageError(
            f"{backup.name} is younger than the first checkpoint of its node: name the cluster file with --cluster"
        )
    source = ReplicaId(manifest.replica)
    members: dict[str, Member] = {}
    for replica, region in [*known, (source, machine_of(node_of(source)))]:
        members.setdefault(node_of(replica), Member(replica, region, _NOWHERE))
    workers = 1 + max(member.worker for member in members.values())
    return Cluster(manifest.cluster, bytes.fromhex(manifest.nonce), tuple(members.values()), workers)


class _Isolated(Node):
    """A node that looks for nobody."""

    async def _prove(self) -> None:
        pass


def _rehearse(
    line: Sequence[Backup], cluster: Cluster, at: str | None, directory: Path
) -> tuple[list[Check], float | None]:
    backup, last = line[0], line[-1]
    node = node_of(ReplicaId(backup.manifest.replica))
    data = directory / "data"
    done: list[Restored] = []

    def restore_all() -> dict[str, Any]:
        done.append(restore(backup, data, cluster, node, at, _SEGMENT_BYTES, line[1:]))
        left_out = {} if at is None else {"left_out": done[0].left_out}
        return {"rows": done[0].rows, "commits": done[0].commits, **left_out}

    checks = [checked("restored under a new id", restore_all)]
    if not done:
        return checks, None
    config = NodeConfig(
        node=node,
        cluster_file="none",
        data=str(data),
        api="127.0.0.1:0",
        gossip="127.0.0.1:0",
        workers=cluster.workers,
    )
    began = time.monotonic()
    opened: list[Opened] = []
    checks.append(
        checked("started from it", lambda: opened.append(Opened(config, is_bootstrap=False, cluster=cluster)))
    )
    if not opened:
        return checks, None
    more, answered_s = asyncio.run(_Drill(opened[0], last, is_whole=at is None).run())
    return [*checks, *more], done[0].seconds + answered_s - began


class _Drill:
    """A running node of a restored directory, and what is asked of it. Mutable: ``checks`` grows."""

    def __init__(self, opened: Opened, backup: Backup, *, is_whole: bool) -> None:
        self._opened, self._backup, self._is_whole = opened, backup, is_whole
        self._left_out = backup.manifest.arriving
        self.checks: list[Check] = []
        self._base = ""

    async def run(self) -> tuple[list[Check], float]:
        """What was checked, and when (on the steady clock) it answered."""
        node = _Isolated(self._opened)
        await node.start()
        try:
            self._base = f"http://{node.api}"
            async with aiohttp.ClientSession() as session:
                status = await self._ask(session, "/v1/status")
                answered_s = time.monotonic()
                await self._look("holds what the log ended with", self._look_at_vectors(status))
                await self._look("state digest computed anew", self._look_at_digests(node))
                await self._look("every collection is read", self._look_at_collections(session, status))
                await self._look("refuses writes", self._look_at_writes(session, status))
        finally:
            await node.stop()
        return self.checks, answered_s

    async def _look(self, what: str, look: Coroutine[Any, Any, dict[str, Any]]) -> None:
        began = time.monotonic()
        try:
            why, more = None, await look
        except (CrdtStoreError, aiohttp.ClientError, TimeoutError) as error:
            why, more = getattr(error, "detail", str(error)), {}
        self.checks.append(Check(what, why, time.monotonic() - began, more))

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        async with session.get(URL(self._base + path, encoded=True)) as reply:
            body: dict[str, Any] = await reply.json(content_type=None)
            if reply.status != HTTPStatus.OK:
                raise StorageError(f"{path} answers {reply.status}: {body.get('detail')}")
            return body

    async def _look_at_vectors(self, status: dict[str, Any]) -> dict[str, Any]:
        for group in status["groups"]:
            name = f"{group['domain']}/{group['shard']}"
            here = {replica: seq for replica, seq in group["vector"].items() if seq}
            part = self._backup.manifest.groups.get(name)
            there = part.end.vector if part is not None else {}
            if here != there and (self._is_whole or any(seq > there.get(replica, 0) for replica, seq in here.items())):
                raise StorageError(f"{name}: the node holds {here}, the backup ended with {there}")
        return {"groups": len(status["groups"])}

    async def _look_at_digests(self, node: Node) -> dict[str, Any]:
        for name, engine in node.host.groups.items():
            share = engine.keyspace.tree.share([])
            if share != engine.digest:
                raise StorageError(
                    f"{name}: the state gives the digest {share:032x}, the node says {engine.digest:032x}"
                )
            await asyncio.sleep(0)
        return {"groups": len(node.host.groups)}

    async def _look_at_collections(self, session: aiohttp.ClientSession, status: dict[str, Any]) -> dict[str, Any]:
        """A page of every collection; of bounded counters every key, for these have a bound that can be broken."""
        count = keys = 0
        left_out = {name.partition("/")[0] for name in self._left_out}
        for domain in sorted({group["domain"] for group in status["groups"]}):
            if domain.startswith("_") or domain in left_out:
                continue
            collections = (await self._ask(session, f"/v1/domains/{domain}"))["collections"]
            for name, type_name in collections.items():
                keys += await self._read(session, domain, name, is_bounded=type_name == "bounded_counter")
                count += 1
        return {"collections": count, "keys": keys}

    async def _read(self, session: aiohttp.ClientSession, domain: str, name: str, *, is_bounded: bool) -> int:
        lower, keys, after = 0, 0, ""
        if is_bounded:
            declared = await self._ask(session, f"/v1/domains/{domain}/collections/{name}")
            lower = declared["options"].get("lower", 0)
        while True:
            query = (
                f"values=true&limit={_PAGE}&shards_of={self._opened.host.workers.index}&after={quote(after, safe='')}"
            )
            page = await self._ask(session, f"/v1/data/{domain}/{name}?{query}")
            for item in page["items"]:
                if is_bounded and item["value"] < lower:
                    raise StorageError(f"{domain}/{name}/{item['key']} is {item['value']}, below its bound {lower}")
            keys += len(page["items"])
            after = page["next"]
            if not is_bounded or after is None:
                return keys

    async def _look_at_writes(self, session: aiohttp.ClientSession, status: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._base}/v1/domains/drill"
        async with session.put(url, json={}) as reply:
            body = await reply.json(content_type=None)
            if body.get("code") != "identity-unproven":
                raise StorageError(f"a write was answered {reply.status} {body.get('code')}, not identity-unproven")
        return {}
