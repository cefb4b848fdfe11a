"""A cluster in a dictionary behind the transport seam: enough of the API to test the client's rules, with faults.

All nodes share one state, so a test of fail-over sees at once what the node before had done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from crdtstore.errors import CrdtStoreError, UsageError, problem
from crdtstore.types import REGISTRY
from crdtstore.values import element_order
from crdtstore_client import NotSent, ReplyLost, Response

US, EU, AP = "http://us", "http://eu", "http://ap"


@dataclass
class Seen:
    """One request as it came in."""

    url: str
    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any] | None
    headers: Mapping[str, str]

    @property
    def id(self) -> str | None:
        return self.headers.get("Idempotency-Key")


@dataclass
class FakeCluster:
    """Implements Transport. ``faults[url]`` holds what happens to the next requests there (probes are exempt)."""

    urls: tuple[str, ...] = (US, EU, AP)
    faults: dict[str, deque[Any]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    status: dict[str, dict[str, Any]] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    collections: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    values: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    staleness_ms: int | None = 41
    conflicts: int = 0
    seq: int = 0
    closed: bool = False

    def fail(self, url: str, *faults: Any) -> None:
        """A fault: ``"refused"``, ``"lost"`` (undone), ``"lost after"`` (done), error, a Response, None (works)."""
        self.faults.setdefault(url, deque()).extend(faults)

    @property
    def writes(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]

    async def close(self) -> None:
        self.closed = True

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
        path, _, query = path.partition("?")
        delay = self.delays.get(url_base, 0.0)
        await asyncio.sleep(min(delay, timeout))
        if delay >= timeout:
            raise ReplyLost(f"{url_base} did not answer")
        if url_base in self.dead:
            raise NotSent(f"{url_base} refused")
        if path == "/v1/status":
            return Response(200, self.status.get(url_base, _status(url_base)))
        seen = Seen(url_base, method, path, dict(parse_qsl(query, keep_blank_values=True)), body, dict(headers))
        self.seen.append(seen)
        fault = self.faults[url_base].popleft() if self.faults.get(url_base) else None
        if fault == "refused":
            raise NotSent(f"{url_base} refused")
        if fault == "lost":
            raise ReplyLost(f"{url_base} closed the connection")
        if isinstance(fault, Response):
            return fault
        if callable(fault):
            fault = fault(seen)
        if isinstance(fault, CrdtStoreError):
            return Response(fault.status, problem(fault))
        try:
            reply = Response(200, self._serve(seen))
        except CrdtStoreError as error:
            reply = Response(error.status, problem(error))
        if fault == "lost after":
            raise ReplyLost(f"{url_base} closed the connection")
        return reply

    def _serve(self, seen: Seen) -> dict[str, Any]:
        parts = [unquote(part) for part in seen.path.split("/")[1:]]
        match (seen.method, *parts):
            case ("PUT", "v1", "domains", domain):
                self.domains.add(domain)
                return {"domain": domain, "token": self._token(seen)}
            case ("PUT", "v1", "domains", domain, "collections", name):
                return self._declare(seen, domain, name)
            case ("GET", "v1", "domains", domain, "collections", name):
                return {"domain": domain, "collection": name, **self._collection(domain, name)}
            case ("GET", "v1", "data", domain, name):
                return self._list(seen, domain, name)
            case ("GET", "v1", "data", domain, name, key):
                return self._read(seen, domain, name, key)
            case ("POST", "v1", "data", domain, name, key):
                return self._write(seen, domain, name, key)
        raise UsageError("there is nothing here. Nothing changed.", code="no-such-route")

    def _collection(self, domain: str, name: str) -> dict[str, Any]:
        if (domain, name) not in self.collections:
            raise UsageError(f"{domain}/{name} is not declared here. Nothing changed.", code="not-declared")
        return self.collections[domain, name]

    def _token(self, seen: Seen) -> str:
        return f"t{self.seq}" if "Crdtstore-Token" not in seen.headers else f"t{self.seq}+"

    def _declare(self, seen: Seen, domain: str, name: str) -> dict[str, Any]:
        assert seen.body is not None
        if domain not in self.domains:
            raise UsageError(f"the domain {domain} is not declared. Nothing changed.", code="not-declared")
        crdt = REGISTRY.get(seen.body["type"])
        if crdt is None:
            raise UsageError(f"there is no type {seen.body['type']}. Nothing changed.", code="invalid-value")
        declared = {"type": crdt.name, "options": crdt.check_options(seen.body["options"])}
        if self.collections.setdefault((domain, name), declared) != declared:
            raise UsageError(f"{domain}/{name} is declared otherwise. Nothing changed.", code="type-mismatch")
        return {"domain": domain, "collection": name, **declared, "token": self._token(seen)}

    def _list(self, seen: Seen, domain: str, name: str) -> dict[str, Any]:
        self._collection(domain, name)
        prefix, after = seen.query.get("prefix", ""), seen.query.get("after", "")
        limit = int(seen.query.get("limit", "100"))
        found = sorted(
            key for (d, c, key) in self.values if (d, c) == (domain, name) and key > after and key.startswith(prefix)
        )
        items: list[dict[str, Any]] = [{"key": key} for key in found[:limit]]
        if seen.query.get("values") == "true":
            for item in items:
                item["value"] = self._plain(self.values[domain, name, item["key"]])
        return {"items": items, "next": found[limit - 1] if len(found) > limit else None, "token": self._token(seen)}

    @staticmethod
    def _plain(value: Any) -> Any:
        return sorted(value, key=element_order) if isinstance(value, set) else value

    def _read(self, seen: Seen, domain: str, name: str, key: str) -> dict[str, Any]:
        crdt = REGISTRY[self._collection(domain, name)["type"]]
        value = self.values.get((domain, name, key))
        return {
            "value": self._plain(value) if value is not None else _listed(crdt.empty),
            "exists": value is not None,
            "type": crdt.name,
            "etag": '"9f3a"',
            "token": self._token(seen),
            "region": seen.url.removeprefix("http://"),
            "staleness_ms": self.staleness_ms,
            "conflicts": self.conflicts,
        }

    def _write(self, seen: Seen, domain: str, name: str, key: str) -> dict[str, Any]:
        assert seen.body is not None
        assert seen.id is not None
        if seen.id in self.answers:
            return {**self.answers[seen.id], "replayed": True}
        crdt = REGISTRY[self._collection(domain, name)["type"]]
        where = (domain, name, key)
        values = []
        for op in seen.body["ops"]:
            arguments = {field: value for field, value in op.items() if field != "op"}
            if op["op"] == "delete":
                self.values.pop(where, None)
            else:
                checked = crdt.mutators[op["op"]].check(arguments)
                self.values[where] = _APPLY[crdt.name, op["op"]](self.values.get(where), checked)
            shown = f"hold-{self.seq}" if op["op"] == "reserve" else self.values.get(where)
            values.append(shown if crdt.shows_value else None)
        self.seq += 1
        region = seen.url.removeprefix("http://")
        answer = {
            "dot": f"{region}-1.0123456789abcdef:{self.seq}",
            "token": self._token(seen),
            "values": values,
            "replayed": False,
            "durable_in": [region],
        }
        self.answers[seen.id] = answer
        return answer


def _listed(empty: Any) -> Any:
    return list(empty) if isinstance(empty, tuple) else empty


_APPLY: dict[tuple[str, str], Callable[[Any, dict[str, Any]], Any]] = {
    ("counter", "add"): lambda old, new: (old or 0) + new["amount"],
    ("bounded_counter", "grant"): lambda old, new: (old or 0) + new["amount"],
    ("bounded_counter", "consume"): lambda old, new: (old or 0) - new["amount"],
    ("bounded_counter", "reserve"): lambda old, new: (old or 0) - new["amount"],
    ("bounded_counter", "confirm"): lambda old, _: old,
    ("bounded_counter", "release"): lambda old, _: old,
    ("aw_set", "add"): lambda old, new: (old or set()) | set(new["elements"]),
    ("aw_set", "remove"): lambda old, new: (old or set()) - set(new["elements"]),
    ("lww_register", "set"): lambda _, new: new["value"],
    ("lww_map", "set"): lambda old, new: {**(old or {}), **new["fields"]},
    ("lww_map", "unset"): lambda old, new: {k: v for k, v in (old or {}).items() if k not in new["fields"]},
    ("event_log", "append"): lambda old, new: [
        *(old or []),
        {"id": new["id"], "body": new["body"], "dot": "us-1.0123456789abcdef:1", "time": "2026-01-05T10:00:00.123Z"},
    ],
}


def _status(url: str) -> dict[str, Any]:
    region = url.removeprefix("http://")
    return {"node": f"{region}-1", "region": region, "cluster": "test", "ready": True, "groups": [], "peers": []}
