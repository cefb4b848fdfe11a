"""``crdtstore member``, ``orphan`` and ``doctor`` as people type them, against real nodes: one is lost, removed, and comes back."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore_node.dev import launch
from tests.integration.test_command_line import Shell, up

pytestmark = pytest.mark.slow

DEADLINE_S = 40.0


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    yield Shell(tmp_path, has_processes=False)
    launch.down(tmp_path / ".crdtstore")


def begin(shell: Shell, *words: str) -> subprocess.Popen[bytes]:
    """A command that goes on beside others."""
    return subprocess.Popen(["crdtstore", *words], cwd=shell.directory, env=shell.environment)


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.1)


def nodes(shell: Shell) -> list[str]:
    return [each["node"] for each in shell.ask("member", "list")["members"]]


def checks(shell: Shell) -> list[str]:
    """The kinds of trouble that the doctor finds."""
    result = CliRunner().invoke(main, ["--json", "doctor"], env={"CRDTSTORE_URL": shell.environment["CRDTSTORE_URL"]})
    body = json.loads(result.stdout)
    assert result.exit_code == (1 if body["findings"] else 0)
    return [each["check"] for each in body["findings"]]


def orphan_counts(shell: Shell) -> dict[str, Any]:
    return {
        domain: (counts["final"], counts["orphans"])
        for each in shell.ask("orphan", "list")["replicas"]
        for domain, counts in each["domains"].items()
    }


def test_a_lost_node_is_removed_and_comes_back(shell: Shell) -> None:
    up(shell, orders="counter")
    urls = shell.environment["CRDTSTORE_URL"].split(",")
    shell.crdtstore("--region", "us", "add", "shop/orders/de", "3")
    until(lambda: checks(shell) == [], "all is well")
    assert shell.crdtstore("doctor").startswith("all is well: 3 members (us-1, eu-1, ap-1)")

    shell.crdtstore("dev", "partition", "ap")
    shell.crdtstore("--region", "ap", "add", "shop/orders/de", "4")
    shell.crdtstore("dev", "kill", "ap")
    shell.crdtstore("dev", "heal")
    until(lambda: checks(shell) == ["url"], "the others hear each other")

    looked_at = shell.ask("member", "list")["configuration"]
    said = shell.type("member", "evict", "ap-1", code=3)
    assert "2 members of 3 will remain: us-1, eu-1" in said.stdout
    command = said.stderr.splitlines()[-1].removeprefix("to do it: crdtstore ")
    assert command == f"member evict ap-1 --configuration {looked_at} --yes"
    assert nodes(shell) == ["us-1", "eu-1", "ap-1"]
    assert "members us-1, eu-1" in shell.crdtstore(*command.split())
    assert nodes(shell) == ["us-1", "eu-1"]
    assert "membership-changed" in shell.type("member", "evict", "eu-1", *command.split()[3:], code=3).stderr
    until(lambda: checks(shell) == ["url"], "it is settled what counts")  # its url is still among them

    starting = begin(shell, "dev", "start", "ap")  # it is ready once it has joined anew
    until(lambda: orphan_counts(shell).get("shop") == (0, 1), "ap-1 has heard of it")
    assert checks(shell) == ["removed", "orphans"]
    assert "Nothing changed." in shell.type("--region", "ap", "add", "shop/orders/de", code=4).stderr
    assert shell.type("member", "rejoin", "ap-1", code=3).stdout.startswith("To give ap-1 a new id")
    shell.crdtstore("member", "rejoin", "ap-1", "--yes")
    waited = shell.crdtstore("member", "join", "--wait", "ap-1", "--timeout", str(DEADLINE_S), "--url", ",".join(urls))
    assert "ap-1 is a member of every group (2) and holds all of it" in waited.splitlines()[-1]
    assert nodes(shell) == ["us-1", "eu-1", "ap-1"]
    until(lambda: checks(shell) == ["orphans"], "ap-1 is back")
    assert starting.wait(DEADLINE_S) == 0

    [kept] = shell.ask("orphan", "list")["replicas"]
    assert "shop/orders/de" in shell.type("orphan", "show", kept["replica"]).stdout
    assert "needs --yes" in shell.type("orphan", "apply", kept["replica"], code=3).stderr
    assert "applied  ap-1." in shell.crdtstore("orphan", "apply", kept["replica"], "--yes")
    shell.until("7\n", "--region", "us", "get", "shop/orders/de")
    assert "nothing to apply" in shell.crdtstore("orphan", "apply", kept["replica"], "--yes").splitlines()[-1]
    assert checks(shell) == []


def test_a_node_leaves(shell: Shell) -> None:
    up(shell, orders="counter")
    shell.crdtstore("--region", "eu", "add", "shop/orders/de", "3")
    assert "in us-1, ap-1; nothing is lost" in shell.type("member", "leave", "eu-1", code=3).stdout
    assert nodes(shell) == ["us-1", "eu-1", "ap-1"]
    said = shell.crdtstore("member", "drain", "eu-1", "--yes", "--wait", "--timeout", str(DEADLINE_S))
    assert said.splitlines()[-1] == "eu-1 has left: nothing waits for it any more, and it can be stopped"
    assert nodes(shell) == ["us-1", "ap-1"]
    shell.until("3\n", "--region", "us", "get", "shop/orders/de")
    assert shell.crdtstore("--region", "ap", "add", "shop/orders/de") == "4\n"
    until(lambda: checks(shell) == ["removed"], "nothing waits for it")


def test_a_new_node_joins_with_the_lines_that_were_printed(shell: Shell) -> None:
    up(shell, orders="counter")
    shell.crdtstore("--region", "us", "add", "shop/orders/de", "3")
    with socket.socket() as api, socket.socket() as gossip:
        api.bind(("127.0.0.1", 0))
        gossip.bind(("127.0.0.1", 0))
        ports = (api.getsockname()[1], gossip.getsockname()[1])
    lines = shell.crdtstore("member", "join", "sa-1", "--region", "sa")
    lines += f'data = "sa-1"\napi = "127.0.0.1:{ports[0]}"\ngossip = "127.0.0.1:{ports[1]}"\n'
    (shell.directory / "sa.toml").write_text(lines.replace('"cluster.toml"', '".crdtstore/cluster.toml"'))
    process = begin(shell, "node", "--config", "sa.toml")
    try:
        said = shell.crdtstore("member", "join", "--wait", "sa-1", "--timeout", str(DEADLINE_S))
        assert said.splitlines()[-1].startswith("sa-1 is a member of every group (2) and holds all of it")
        assert nodes(shell) == ["us-1", "eu-1", "ap-1", "sa-1"]
        shell.environment["CRDTSTORE_URL"] += f",http://127.0.0.1:{ports[0]}"
        until(lambda: checks(shell) == [], "all is well with four")
        shell.until("3\n", "--region", "sa", "get", "shop/orders/de")
        assert shell.crdtstore("--region", "sa", "add", "shop/orders/de") == "4\n"
        shell.until("4\n", "--region", "us", "get", "shop/orders/de")
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
