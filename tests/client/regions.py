"""Three regions in memory behind the transport seam: the production engine and request rules, a wire that can be cut."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, problem
from crdtstore.host import Host
from crdtstore.service import PeerChanged, Received, Request, Service
from crdtstore_client import NotSent, ReplyLost, Response

REGIONS = ("us", "eu", "ap")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Regions:
    """Implements Transport for ``http://us``, ``http://eu``, ``http://ap``."""

    cut: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    lost_replies: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        members = tuple(Member(make_replica_id(f"{name}-1", at), name) for at, name in enumerate(REGIONS, 1))
        cluster = Cluster("test", bytes(16), members)
        options = Options(
            gossip_interval_ms=10, ack_delay_ms=0, ack_timeout_ms=100, relay_after_ms=30, resend_after_ms=10
        )
        self.services = {
            member.region: Service(Host(cluster, member.replica, options, random.Random(member.region)))
            for member in members
        }
        self._region = {member.replica: member.region for member in members}
        self._replica = {member.region: member.replica for member in members}
        self._tickets = 0
        self._replies: dict[int, Any] = {}
        for region in REGIONS:
            for other in REGIONS:
                if other != region:
                    self.step(region, PeerChanged(self._replica[other], True))

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"http://{region}" for region in REGIONS)

    def step(self, region: str, event: Any) -> None:
        """Let one thing happen and everything that follows from it at once."""
        todo = deque([(region, event)])
        while todo:
            at, what = todo.popleft()
            out = self.services[at].step([what], now_ms())
            assert not out.rejected, out.rejected
            self._replies |= dict(out.replies)
            for peer, data in out.send:
                other = self._region[peer]
                if not {at, other} & self.cut:
                    todo.append((other, Received(self._replica[at], data)))
            if out.persist_number:
                todo.appendleft((at, Persisted(out.persist_number)))

    def tick(self) -> None:
        for region in REGIONS:
            self.step(region, Tick())

    async def settle(self) -> None:
        """Until all vectors are equal."""
        deadline = time.monotonic() + 10
        while True:
            self.tick()
            held = [
                [(group["domain"], group["vector"]) for group in service.status(now_ms())["groups"]]
                for service in self.services.values()
            ]
            if all(one == held[0] for one in held):
                return
            assert time.monotonic() < deadline, held
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Nothing to give back."""

    async def request(
        self,
        url_base: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        region = url_base.removeprefix("http://")
        if region in self.dead:
            raise NotSent(f"{region} is dead")
        self._tickets += 1
        ticket = self._tickets
        do, fields = _request_of(method, path, body, headers)
        self.step(region, Request(ticket, do, fields))
        deadline = time.monotonic() + timeout
        while ticket not in self._replies:
            if time.monotonic() > deadline:
                raise ReplyLost(f"{region} did not answer")
            await asyncio.sleep(0.002)
            self.tick()
        reply = self._replies.pop(ticket)
        if do != "status" and self.lost_replies.get(region):
            self.lost_replies[region] -= 1
            raise ReplyLost(f"{region} closed the connection")
        if isinstance(reply, CrdtStoreError):
            return Response(reply.status, problem(reply))
        return Response(200, reply)


def _request_of(
    method: str, path: str, body: dict[str, Any] | None, headers: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    path, _, query = path.partition("?")
    parts = [unquote(part) for part in path.split("/")[1:]]
    fields: dict[str, Any] = dict(body or {})
    for name, value in parse_qsl(query):
        fields[name] = (
            int(value)
            if name.endswith("_ms") or name == "limit"
            else {"true": True}.get(value, value)  # as a node does
        )
    if "Crdtstore-Token" in headers:
        fields["token"] = headers["Crdtstore-Token"]
    if "Idempotency-Key" in headers:
        fields["id"] = headers["Idempotency-Key"]
    match (method, *parts):
        case ("GET", "v1", "status"):
            return "status", {}
        case ("PUT", "v1", "domains", domain):
            return "declare_domain", {"domain": domain, **fields}
        case ("PUT", "v1", "domains", domain, "collections", name):
            return "declare", {"domain": domain, "collection": name, **fields}
        case ("GET", "v1", "domains", domain, "collections", name):
            return "collection", {"domain": domain, "collection": name, **fields}
        case ("GET", "v1", "data", domain, name):
            return "list", {"domain": domain, "collection": name, **fields}
        case ("GET", "v1", "data", domain, name, key):
            return "read", {"domain": domain, "collection": name, "key": key, **fields}
        case ("POST", "v1", "data", domain, name, key):
            ops = [{"collection": name, "key": key, **op} for op in fields.pop("ops")]
            return "commit", {"domain": domain, "ops": ops, **fields}
    raise AssertionError(f"no route for {method} {path}")
