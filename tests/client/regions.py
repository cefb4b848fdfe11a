"""Three regions in memory behind the transport seam: the production engine and request rules, a wire that can be cut."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, UsageError, problem
from crdtstore.host import Host
from crdtstore.service import PeerChanged, Received, Request, Service
from crdtstore.values import from_json
from crdtstore_client import Domain, NotSent, ReplyLost, Response, connect

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

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Nobody hears anybody in this block."""
        self.cut = set(REGIONS)
        yield
        self.cut = set()

    @staticmethod
    def later() -> None:
        """Wait for a later millisecond, so that what follows has a later stamp."""
        before = now_ms()
        while now_ms() == before:
            pass

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
        if path.startswith("/admin/"):  # as nodes answer that nobody may ask about members
            nothing = UsageError("there is nothing here. Nothing changed.", code="no-such-route")
            return Response(nothing.status, problem(nothing))
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
    do, fields = _route(method, parts)
    fields |= dict(body or {})
    for name, value in parse_qsl(query, keep_blank_values=True):  # as a node does
        if name.endswith("_ms") or name == "limit":
            fields[name] = int(value)
        elif do == "members":
            fields[name] = from_json(value.encode())
        else:
            fields[name] = {"true": True}.get(value, value)
    if "Crdtstore-Token" in headers:
        fields["token"] = headers["Crdtstore-Token"]
    if "Idempotency-Key" in headers:
        fields["id"] = headers["Idempotency-Key"]
    if do == "commit":
        where = {name: fields.pop(name) for name in ("collection", "key")}
        fields["ops"] = [{**where, **op} for op in fields["ops"]]
    return do, fields


_ROUTES = {
    ("GET", "status"): ("status",),
    ("PUT", "domains"): ("declare_domain", "domain"),
    ("PUT", "domains", "collections"): ("declare", "domain", "collection"),
    ("GET", "domains", "collections"): ("collection", "domain", "collection"),
    ("GET", "data"): ("read", "domain", "collection", "key"),
    ("POST", "data"): ("commit", "domain", "collection", "key"),
    ("GET", "data", "members"): ("members", "domain", "collection", "key"),
    ("GET", "explain"): ("explain", "domain", "collection", "key"),
    ("GET", "conflicts"): ("conflicts", "domain"),
}


def _route(method: str, parts: list[str]) -> tuple[str, dict[str, Any]]:
    """What is asked for, and the parts of the address; ``parts`` begin with v1 and the verb."""
    verb, address = parts[1], parts[2:]
    words: tuple[str, ...] = ()
    if verb == "domains" and len(address) == 3 and address[1] == "collections":
        words, address = ("collections",), [address[0], address[2]]
    elif verb == "data" and len(address) == 4:
        words, address = (address[3],), address[:3]
    do, *names = _ROUTES[method, verb, *words]
    if (do, len(address)) == ("read", 2):
        do, names = "list", names[:2]
    return do, dict(zip(names, address, strict=True))


FIELDS = {"name": "lww_register", "tags": "aw_set", "visits": "counter", "more": "or_map"}
"""What the collection ``customers`` declares."""


def elsewhere(regions: Regions, region: str) -> Domain:
    """The same domain in a session of its own in another region."""
    return connect(f"http://{region}", transport=regions).domain("shop")
