"""Nodes that answer requests of operators, behind the transport seam: the shapes of the API, without anything behind them.

Each node has a page of its own, so that tests say what each of them believes; what is decided is written into all pages.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.errors import CrdtStoreError, Unavailable, UsageError, problem
from crdtstore_client import NotSent, ReplyLost, Response

REGIONS = ("us", "eu", "ap")
IDS = {"us": "us-1.0f3a11220f3a1122", "eu": "eu-1.71c0ffee71c0ffee", "ap": "ap-1.99ab00cd99ab00cd"}
GROUPS = ("_sys", "shop")


def url_of(name: str) -> str:
    return f"http://{name}"


URLS = ",".join(map(url_of, REGIONS))


def member(name: str, **fields: Any) -> dict[str, Any]:
    node = IDS.get(name, f"{name}-1.0000000000000000").rpartition(".")[0]
    body = {
        "replica": IDS.get(name, f"{node}.0000000000000000"),
        "node": node,
        "region": name,
        "gossip": f"10.0.0.{len(name) + ord(name[0]) % 10}:7501",
        "is_self": False,
        "connected": True,
        "heard_ms": 40,
        "is_installed": True,
        "is_leaving": False,
        "only_there": {"commits": 0},
    }
    return body | fields


def page(name: str, **fields: Any) -> dict[str, Any]:
    """What one of three nodes says while all is well."""
    members = [member(each, is_self=each == name, heard_ms=0 if each == name else 40) for each in REGIONS]
    ids = [each["replica"] for each in members]
    body = {
        "node": f"{name}-1",
        "region": name,
        "replica": IDS[name],
        "cluster": "prod",
        "state": "member",
        "why": None,
        "configuration": "3.ab12cd34",
        "members": members,
        "removed": [],
        "quorum": {"needed": "more than half of 3 members", "reachable": True, "reached": ["us-1", "eu-1", "ap-1"]},
        "split": [],
        "orders": [],
        "groups": [
            {
                "domain": domain,
                "shard": 0,
                "configuration": "3.ab12cd34",
                "members": ids,
                "waits_for": [],
                "installing": None,
                "held_back_bytes": 0,
                "held_back_by": None,
            }
            for domain in GROUPS
        ],
        "what_now": [],
    }
    return body | fields


@dataclass
class FakeMembers:
    """Implements Transport."""

    pages: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: page(name) for name in REGIONS})
    dead: set[str] = field(default_factory=set)
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Per node what it says of ids it gave up."""
    commits: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """Per id and domain its orphans."""
    fails: dict[str, Any] = field(default_factory=dict)
    """By the end of the path: an error, or ``lost`` when the answer gets lost."""
    posts: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    """Data of commits that cannot be applied."""
    script: list[Any] = field(default_factory=list)
    """What happens before the next looks, one each."""

    def cut_off(self, name: str, ms: int | None = 31_000) -> None:
        """A node that is dead, as the others see it."""
        self.dead.add(name)
        for other, body in self.pages.items():
            if other != name:
                entry = self.entry(other, name)
                entry |= {"connected": False, "heard_ms": ms, "only_there": {"commits": None}}
                body["quorum"]["reached"] = [node for node in body["quorum"]["reached"] if node != f"{name}-1"]

    def entry(self, at: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in self.pages[at]["members"] if each["replica"] == IDS[name])
        return found

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
        name = url_base.removeprefix("http://")
        if name in self.dead or name not in self.pages:
            raise NotSent(f"{url_base}: cannot connect: Connection refused")
        path, _, query = path.partition("?")
        if path == "/v1/status":
            return Response(200, {"node": f"{name}-1", "region": name, "ready": True, "groups": [], "peers": []})
        try:
            fault = self.fails.get(path.rpartition("/")[2])
            if isinstance(fault, CrdtStoreError):
                raise fault
            status, reply = self._serve(name, method, path, dict(parse_qsl(query)), copy.deepcopy(body))
        except CrdtStoreError as error:
            return Response(error.status, problem(error))
        if fault == "lost":
            raise ReplyLost(f"{url_base} closed the connection")
        return Response(status, copy.deepcopy(reply))

    def _serve(
        self, name: str, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            self.gets.append(path)
        else:
            assert body is not None
            self.posts.append((name, path, body))
        match (method, path.removeprefix("/admin/v1/")):
            case ("GET", "members"):
                if self.script and name == REGIONS[0]:
                    self.script.pop(0)()
                return 200, self.pages[name]
            case ("POST", "members/leave"):
                return 202, self._leave(name, body or {})
            case ("POST", "members/evict" | "members/force" as what):
                return 200, self._change(name, what.partition("/")[2], body or {})
            case ("POST", "members/rejoin"):
                _confirm(
                    body or {},
                    [f"{self.pages[name]['replica']} is given up for good", "2 commits made here count nowhere"],
                )
                self.pages[name] |= {"state": "joining", "why": "it is not a member yet"}
                return 202, self.pages[name]
            case ("GET", "orphans"):
                if not query:
                    return 200, {"replicas": self.kept.get(name, [])}
                return 200, self._page(query)
            case ("POST", "orphans/apply"):
                return 200, self._apply(body or {})
        raise UsageError("there is nothing here. Nothing changed.", code="no-such-route")

    def _leave(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert set(body) <= {"node"}
        node = self.pages[name]["node"]
        if body.get("node", node) != node:
            raise UsageError(f"this is the node {node}. Nothing changed.")
        self.pages[name]["state"] = "leaving"
        return self.pages[name]

    def _change(self, name: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        assert set(body) <= {"nodes", "survivors", "configuration", "yes", "wait_ms"}
        at = self.pages[name]
        ids = [each["replica"] for each in at["members"]]
        named = body["nodes" if what == "evict" else "survivors"]
        gone = [each for each in ids if (each in named) == (what == "evict")]
        if not gone:
            return at
        if at["replica"] in gone:
            raise UsageError(f"this is the node {at['node']}: it does not evict itself. Nothing changed.")
        if body["configuration"] != at["configuration"]:
            raise UsageError(
                f"the members have changed since, the configuration is {at['configuration']} now. Nothing changed.",
                code="membership-changed",
            )
        _confirm(
            body, [f"commits of {', '.join(gone)} may be there only", f"{len(ids) - len(gone)} of {len(ids)} remain"]
        )
        if what == "evict" and not at["quorum"]["reachable"]:
            raise Unavailable("no quorum of 3 members has decided it in time.", code="no-quorum")
        number = int(at["configuration"].partition(".")[0]) + 1
        for each in self.pages.values():
            left = [entry for entry in each["members"] if entry["replica"] in gone]
            each["members"] = [entry for entry in each["members"] if entry["replica"] not in gone]
            each["removed"] += [
                {key: entry[key] for key in ("replica", "node", "region")} | {"final": {"_sys": 12, "shop": None}}
                for entry in left
            ]
            each["configuration"] = f"{number}.00ff00ff"
            each["groups"][0]["members"] = [entry["replica"] for entry in each["members"]]
            each["groups"][1] |= {"waits_for": gone, "members": each["groups"][0]["members"]}
        return at

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        found = self.commits.get((query["replica"], query["domain"]), [])
        after = int(query.get("after", "0"))
        behind = [each for each in found if int(each["dot"].rpartition(":")[2]) > after]
        some = behind[: int(query.get("limit", "100"))]
        is_whole = len(some) == len(behind)
        return {"orphans": some, "final": 87, "next": None if is_whole else int(some[-1]["dot"].rpartition(":")[2])}

    def _apply(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["yes"] is True
        done: dict[str, Any] = {"applied": [], "refused": []}
        for (_, domain), found in self.commits.items():
            for each in found if domain == body["domain"] else []:
                if each["data"] in self.refuses and each["data"] in body["commits"]:
                    done["refused"].append(
                        {"orphan": each["dot"], "why": "rights of a bounded counter went with the id"}
                    )
                elif each["data"] in body["commits"]:
                    each["applied"] = f"{IDS['us']}:{1000 + int(each['dot'].rpartition(':')[2])}"
                    done["applied"].append({"orphan": each["dot"], "dot": each["applied"]})
        return done


def _confirm(body: dict[str, Any], costs: list[str]) -> None:
    if not body.get("yes"):
        raise UsageError("this has a price. Say yes to do it. Nothing changed.", code="confirm-needed", costs=costs)


def orphan(number: int, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "dot": f"{IDS['ap']}:{number}",
        "time": "2026-11-20T10:00:00.123Z",
        "author": "web",
        "reason": None,
        "changes": [{"collection": "orders", "key": f"de-{number}", "type": "counter", "what": f"adds {number}"}],
        "applied": None,
        "data": f"ZGF0YQ{number}==",
    }
    return body | fields


def keep_orphans(nodes: FakeMembers, count: int = 3) -> None:
    """The node ap-1 was removed once, and has kept what it had made."""
    nodes.commits[IDS["ap"], "shop"] = [orphan(88 + at) for at in range(count)]
    nodes.pages["ap"]["replica"] = "ap-1.1111222233334444"
    nodes.kept["ap"] = [
        {
            "replica": IDS["ap"],
            "left": "2026-11-20T11:00:00.000Z",
            "why": "it was removed from the cluster",
            "domains": {
                "_sys": {"final": 12, "made": 12, "orphans": 0},
                "shop": {"final": 87, "made": 87 + count, "orphans": count},
            },
        }
    ]


def run(nodes: FakeMembers, *args: str, code: int = 0) -> Result:
    """A command against these nodes, and how it has to end."""
    result = CliRunner().invoke(main, list(args), obj={"transport": nodes})
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result
