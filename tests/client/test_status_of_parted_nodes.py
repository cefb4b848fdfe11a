"""``crdtstore status`` of nodes that do not belong together any more, though each of them takes writes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore_client import Response
from tests.client.fake_members import IDS, URLS, FakeMembers

SAME = dict.fromkeys(IDS.values(), 2)
Change = Callable[["Nodes"], None]


class Nodes(FakeMembers):
    """Nodes that also say what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses = {name: self._status(name) for name in IDS}
        self.may_ask = True

    def _status(self, name: str) -> dict[str, Any]:
        groups = [
            {
                "domain": domain,
                "shard": 0,
                "replica": IDS[name],
                "configuration": "3.ab12cd34",
                "members": 3,
                "split": 0,
            }
            | {"vector": dict(SAME), "digest": "aa", "staleness_ms": 10}
            for domain in ("_sys", "shop")
        ]
        peers = [{"node": f"{other}-1", "region": other, "heard_ms": 40} for other in IDS if other != name]
        return {"node": f"{name}-1", "region": name, "ready": True, "groups": groups, "peers": peers}

    async def request(self, url_base: str, method: str, path: str, **more: Any) -> Response:
        name = url_base.removeprefix("http://")
        if path == "/v1/status" and name not in self.dead:
            return Response(200, self.statuses[name])
        if not self.may_ask:
            return Response(403, {"code": "forbidden", "title": "forbidden", "detail": "not you", "status": 403})
        reply: Response = await super().request(url_base, method, path, **more)
        return reply

    def configure(self, names: tuple[str, ...], configuration: str, members: tuple[str, ...]) -> None:
        """These go by this configuration."""
        for name in names:
            page = self.pages[name]
            gone = [each for each in page["members"] if each["region"] not in members]
            page["members"] = [each for each in page["members"] if each["region"] in members]
            page["removed"] = [{key: each[key] for key in ("replica", "node", "region")} for each in gone]
            page["configuration"] = configuration
            status = self.statuses[name]
            status["peers"] = [peer for peer in status["peers"] if peer["region"] in members]
            for group in status["groups"]:
                group |= {"configuration": configuration, "members": len(members)}


def status(nodes: Nodes) -> tuple[str, str, list[str]]:
    def run(*args: str) -> str:
        result = CliRunner().invoke(main, ["--url", URLS, "status", *args], obj={"transport": nodes})
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    body = json.loads(run("--json"))
    lines = run().splitlines()
    assert lines[-1] == body["summary"]
    return body["verdict"], body["summary"], lines[1:-1]


def evicted(nodes: Nodes) -> None:
    nodes.configure(("us", "eu"), "4.ab12cd34", ("us", "eu"))


def forced_on_both_sides(nodes: Nodes) -> None:
    nodes.configure(("us",), "4.11111111", ("us",))
    nodes.configure(("eu", "ap"), "5.22222222", ("eu", "ap"))


def parted_unseen(nodes: Nodes) -> None:
    nodes.configure(("ap",), "3.99ffee11", ("us", "eu", "ap"))


def forced_after_an_eviction(nodes: Nodes) -> None:
    """Heard again, one of them says so; by the lists of members alone it was evicted."""
    nodes.configure(("us",), "9.11111111", ("us",))
    for name in ("us", "eu"):
        nodes.statuses[name]["groups"][0]["split"] = 1
        nodes.pages[name]["split"] = [{"replica": IDS["eu"], "node": "eu-1", "configuration": "3.ab12cd34"}]
    del nodes.pages["ap"], nodes.statuses["ap"]
    nodes.dead.add("ap")


def parted_domain(nodes: Nodes) -> None:
    for name in ("us", "ap"):
        nodes.statuses[name]["groups"][1]["split"] = 1


def lacking(nodes: Nodes) -> None:
    nodes.statuses["ap"]["groups"][1]["vector"] = SAME | {IDS["us"]: 1}


EVICTED, PARTED = "evicted, and has not heard of it", "lines parted, see crdtstore doctor"
CLOSING = f"ap: {EVICTED}; what is written there does not count, see crdtstore doctor."
HOW: list[tuple[Change, dict[str, str], str]] = [
    (evicted, {"ap": EVICTED}, CLOSING),
    (forced_on_both_sides, dict.fromkeys(IDS, PARTED), f"us, eu, ap: {PARTED}."),
    (parted_unseen, dict.fromkeys(IDS, PARTED), f"us, eu, ap: {PARTED}."),
    (parted_domain, dict.fromkeys(("us", "ap"), PARTED), f"us, ap: {PARTED}."),
]


@pytest.mark.parametrize("may_ask", [True, False])
@pytest.mark.parametrize("is_behind", [True, False])
@pytest.mark.parametrize(("trouble", "notes", "closing"), HOW, ids=lambda each: getattr(each, "__name__", ""))
def test_who_does_not_belong_to_the_others(
    trouble: Change, may_ask: bool, notes: Mapping[str, str], closing: str, is_behind: bool
) -> None:
    nodes = Nodes()
    assert status(nodes)[0] == "converged"
    trouble(nodes)
    nodes.may_ask = may_ask
    if is_behind:
        lacking(nodes)
    verdict, sentence, rows = status(nodes)
    assert verdict == "diverged"
    begin = "diverged: ap lacks 1 commit of us." if is_behind else "diverged, though 12 commits are the same so far."
    assert sentence == f"{begin} {closing}"
    for name, row in zip(IDS, rows, strict=True):
        said = notes.get(name)
        assert row.endswith(said) if said else row.count("…") == 1 and not row.endswith(("it", "doctor")), row


@pytest.mark.parametrize("may_ask", [True, False])
def test_who_is_only_behind_or_joins_belongs_to_them(may_ask: bool) -> None:
    nodes = Nodes()
    nodes.may_ask = may_ask
    nodes.configure(("us", "eu"), "4.ab12cd34", ("us", "eu", "ap"))
    assert status(nodes)[0] == "converged"
    nodes.configure(("ap",), "0.77777777", ("us", "eu", "ap"))
    nodes.pages["ap"]["state"] = "joining"
    nodes.statuses["ap"] |= {"ready": False, "why": "it joins"}
    lacking(nodes)
    assert status(nodes)[1] == "diverged: ap lacks 1 commit of us. ap takes no writes: it joins."
    assert "parted" not in "".join(status(nodes)[2])


def test_who_knows_that_it_was_removed_says_so_itself() -> None:
    nodes = Nodes()
    evicted(nodes)
    nodes.pages["ap"]["state"] = "removed"
    nodes.statuses["ap"] |= {"ready": False, "why": "it was removed"}
    lacking(nodes)
    assert status(nodes)[1] == "diverged: ap lacks 1 commit of us. ap takes no writes: it was removed."


def test_a_side_that_parted_is_not_said_to_be_evicted_as_well() -> None:
    nodes = Nodes()
    forced_after_an_eviction(nodes)
    nodes.may_ask = False
    assert status(nodes)[1].endswith(f"us, eu: {PARTED}. No answer from ap.")
    assert EVICTED not in status(nodes)[1]
