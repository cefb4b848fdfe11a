"""``crdtstore dev add``: a node more in a running local cluster, cut off, killed and found again like the others. The nodes are real."""

from __future__ import annotations

import json
import os
import signal
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdtstore_node.dev import control, launch
from tests.integration.stand_ins import is_alive
from tests.integration.test_command_line import Shell, up

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    yield Shell(tmp_path, has_processes=False)
    launch.down(tmp_path / ".crdtstore")


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.1)


def status(shell: Shell) -> dict[str, Any]:
    document: dict[str, Any] = shell.ask("dev", "status")
    return document


def nodes(shell: Shell) -> dict[str, dict[str, Any]]:
    return {each["node"]: each for each in status(shell)["nodes"]}


def members(shell: Shell) -> list[str]:
    return [each["node"] for each in shell.ask("member", "list")["members"]]


def environment(shell: Shell) -> list[str]:
    """Take over what ``dev env`` says."""
    line = shell.crdtstore("dev", "env").strip()
    shell.environment["CRDTSTORE_URL"] = line.removeprefix("export CRDTSTORE_URL=")
    return shell.environment["CRDTSTORE_URL"].split(",")


def cuts(shell: Shell) -> set[tuple[str, str]]:
    return {(each["from"], each["to"]) for each in status(shell)["cut"]}


def both(*pairs: tuple[str, str]) -> set[tuple[str, str]]:
    return {pair for one, other in pairs for pair in ((one, other), (other, one))}


def get(shell: Shell, node: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{nodes(shell)[node]['url']}{path}", timeout=5.0) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def value_at(shell: Shell, node: str) -> int:
    value: int = get(shell, node, "/v1/data/shop/orders/de")["value"]
    return value


def forwarded(shell: Shell, *links: str) -> list[int]:
    """How many bytes went over links."""
    counters = status(shell)["links"]
    return [counters[link]["forwarded_in"] + counters[link]["forwarded_out"] for link in links]


def test_a_node_is_added_and_known_to_all_commands(shell: Shell) -> None:
    up(shell, orders="counter")
    shell.crdtstore("--region", "us", "add", "shop/orders/de", "3")
    said = shell.type("dev", "add", "sa")
    sa = nodes(shell)["sa-1"]
    assert said.stdout == f"sa  {sa['url']}  (process {sa['pid']})\n"
    assert (sa["region"], sa["state"], sa["ready"]) == ("sa", "running", True)
    assert value_at(shell, "sa-1") == 3, "it serves what there is when the command returns"
    assert members(shell) == ["us-1", "eu-1", "ap-1", "sa-1"]
    assert environment(shell)[3:] == [sa["url"]]

    # One pair is cut, and no third node, although ap and eu find sa at one address.
    assert shell.crdtstore("dev", "kill", "sa").endswith("start it with: crdtstore dev start sa\n")
    assert shell.crdtstore("dev", "start", "sa").startswith(f"sa  {sa['url']}  (process ")
    until(lambda: all(forwarded(shell, "eu-1>sa-1", "ap-1>sa-1", "sa-1>us-1")), "they dial each other")
    assert shell.crdtstore("dev", "partition", "eu", "--from", "sa") == "cut: eu | sa\n"
    cut, *others = forwarded(shell, "eu-1>sa-1", "ap-1>sa-1", "sa-1>us-1")
    until(
        lambda: all(now > then for now, then in zip(forwarded(shell, "ap-1>sa-1", "sa-1>us-1"), others, strict=True)),
        "the others hear each other",
    )
    assert forwarded(shell, "eu-1>sa-1", "*>sa-1") == [cut, 0]
    shell.crdtstore("dev", "heal")

    # Another one in the same region, which is cut off with it.
    assert shell.ask("dev", "add", "sa")["node"] == "sa-2"
    assert nodes(shell)["sa-2"]["ready"]
    assert "sa has several nodes, name one of them: sa-1, sa-2. Nothing changed." in shell.refused(
        2, "dev", "kill", "sa"
    )
    shell.crdtstore("dev", "partition", "sa")
    assert cuts(shell) == both(*((one, other) for one in ("sa", "sa-2") for other in ("us", "eu", "ap")))
    shell.crdtstore("dev", "heal")

    before = nodes(shell)
    pids = [status(shell)["pid"], *(node["pid"] for node in before.values())]
    os.kill(pids[0], signal.SIGKILL)  # the supervisor
    until(lambda: not any(is_alive(pid) for pid in pids), "its nodes left with it")
    shell.crdtstore("dev", "up", "--regions", "us,eu,ap")
    assert {name: node["url"] for name, node in nodes(shell).items()} == {
        name: node["url"] for name, node in before.items()
    }
    shell.crdtstore("--region", "eu", "add", "shop/orders/de", "4")
    until(lambda: value_at(shell, "sa-2") == 7, "what is written elsewhere arrives")
    pids = [status(shell)["pid"], *(node["pid"] for node in nodes(shell).values())]
    shell.crdtstore("dev", "down")
    assert not any(is_alive(pid) for pid in pids)
    assert control.read_state(shell.directory / ".crdtstore") == {}


def test_a_node_that_cannot_join_goes_on_trying(shell: Shell) -> None:
    up(shell, orders="counter")
    shell.crdtstore("dev", "partition", "ap")
    shell.crdtstore("dev", "partition", "us")
    # Everybody is alone now, and so is who comes later: nobody may relay what was cut.
    said = shell.type("dev", "add", "sa", "--timeout", "1", code=4)
    assert "error: not-ready: node sa-1 was not ready within 1 s: " in said.stderr
    assert "It runs, and goes on by itself: see crdtstore dev status" in said.stderr
    assert both(("sa", "ap"), ("sa", "us")) <= cuts(shell)
    assert ("sa", "eu") not in cuts(shell)
    lines = shell.crdtstore("dev", "status").splitlines()
    assert lines[5].split()[4] == "joining"
    assert lines[6].startswith("sa-1: it is not a member yet")
    shell.crdtstore("dev", "heal")
    until(lambda: nodes(shell)["sa-1"]["ready"], "it joins after the heal")
    assert members(shell) == ["us-1", "eu-1", "ap-1", "sa-1"]


def test_a_node_that_was_removed_is_started_and_rejoins(shell: Shell) -> None:
    up(shell, orders="counter")
    answer = shell.ask("dev", "add", "sa", "--node", "sa-west", "--no-wait")
    assert (answer["region"], answer["node"], answer["ready"]) == ("sa-west", "sa-west", False)
    until(lambda: nodes(shell)["sa-west"]["ready"], "it joins though nobody waits")
    shell.crdtstore("dev", "kill", "sa")  # the only node of its region
    shell.type("member", "evict", "sa-west", "--yes")
    shell.crdtstore("dev", "start", "sa-west")
    until(lambda: nodes(shell)["sa-west"]["identity"] == "removed", "it hears that it was removed")
    shell.crdtstore("dev", "down")
    said = shell.crdtstore("dev", "up")  # the others are not kept waiting for one that will not be ready
    assert "sa-west is not ready: it was removed from the cluster" in said
    until(lambda: nodes(shell)["sa-west"]["identity"] == "removed", "it knows")
    url = nodes(shell)["sa-west"]["url"]
    shell.crdtstore("member", "rejoin", "sa-west", "--yes", "--url", ",".join(environment(shell)))
    until(lambda: nodes(shell)["sa-west"]["ready"], "it is a member under a new id")
    assert nodes(shell)["sa-west"]["url"] == url
    assert shell.crdtstore("dev", "partition", "sa-west").count(" | ") == 3


def test_what_cannot_be_added_changes_nothing(shell: Shell) -> None:
    shell.crdtstore("dev", "up", "--regions", "us")
    directory = shell.directory / ".crdtstore"
    before = (directory / "local.json").read_text()
    for words, why in {
        ("SA",): "a region is named like us or eu-west",
        ("sa", "--node", "S A"): "a node has a name of its own like sa-2",
        ("sa", "--node", "us-1"): "a node has a name of its own like sa-2, got 'us-1'; there are: us-1",
        ("us-1",): "a node is named us-1, choose another name for the region",
    }.items():
        said = shell.refused(2, "dev", "add", *words)
        assert why in said
        assert said.endswith("Nothing changed.\n")
    (directory / "sa-1").write_text("in the way of its data")
    assert "sa-1 did not become ready: it exited with" in shell.refused(4, "dev", "add", "sa")
    assert (directory / "local.json").read_text() == before
    assert list(nodes(shell)) == ["us-1"]

    (directory / "sa-1").unlink()
    shell.crdtstore("dev", "add", "sa", "--no-wait")
    config = tomllib.loads((directory / "sa-1.toml").read_text())
    assert config["join"] == list(config["peers"].values())
    assert config["gossip_advertise"] not in (config["gossip"], *config["join"])
