"""``crdtstore`` as people type it: the ten minutes of an app developer, every verb, and what the shell is told.

All of it in an empty directory, against the cluster of real nodes that ``crdtstore dev up`` starts there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.types import REGISTRY
from crdtstore_node.dev import launch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
BIG = 1 << 80


class Said(NamedTuple):
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str


class Shell:
    """A directory in which commands are typed; in processes of their own, or quicker, in this one."""

    def __init__(self, directory: Path, *, has_processes: bool) -> None:
        self.directory = directory
        self.has_processes = has_processes
        own = {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
        self.environment = own | {"PATH": f"{Path(sys.executable).parent}:{own['PATH']}", "PYTHONWARNINGS": "error"}

    def run(self, *words: str) -> Said:
        """Any program in a process of its own."""
        done = subprocess.run(
            words,
            check=False,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def type(self, *words: str, code: int = 0) -> Said:
        if self.has_processes:
            said = self.run("crdtstore", *words)
        else:
            result = CliRunner().invoke(main, words, env={"CRDTSTORE_URL": self.environment.get("CRDTSTORE_URL")})
            said = Said(result.exit_code, result.stdout, result.stderr)
        assert said.code == code, (words, said)
        assert "Traceback" not in said.stderr
        return said

    def crdtstore(self, *words: str) -> str:
        """What a command says when it is done."""
        said = self.type(*words)
        assert said.stderr == ""
        return said.stdout

    def ask(self, *words: str) -> Any:
        return json.loads(self.crdtstore("--json", *words))

    def refused(self, code: int, *words: str) -> str:
        said = self.type(*words, code=code)
        assert said.stdout == ""
        return said.stderr

    def until(self, pattern: str, *words: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not re.fullmatch(pattern, said := self.crdtstore(*words), re.DOTALL):
            assert time.monotonic() < end, f"{words} says {said!r}, expected {pattern!r}"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Shell]:
    """As people have it."""
    yield Shell(tmp_path, has_processes=True)
    launch.down(tmp_path / ".crdtstore")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """The quicker one."""
    monkeypatch.chdir(tmp_path)
    yield Shell(tmp_path, has_processes=False)
    launch.down(tmp_path / ".crdtstore")


def up(shell: Shell, **collections: str) -> None:
    """A cluster of three regions with these collections in all of them."""
    status = json.loads(shell.crdtstore("dev", "up", "--regions", "us,eu,ap", "--json"))
    urls = {node["region"]: node["url"] for node in status["nodes"]}
    shell.environment["CRDTSTORE_URL"] = ",".join(urls.values())
    for name, type_name in collections.items():
        token = shell.ask("declare", f"shop/{name}", type_name)["token"]
        for region in urls:
            assert shell.ask("--region", region, "--token", token, "list", f"shop/{name}")["items"] == []


def test_ten_minutes_of_an_app_developer(terminal: Shell) -> None:
    shell, says = terminal, terminal.crdtstore
    line = says("dev", "up", "--regions", "us,eu,ap")
    assert re.fullmatch(
        r"us  (\S+)   eu  (\S+)   ap  (\S+)      data in \.crdtstore/, stop with: crdtstore dev down\n", line
    )
    exported = says("dev", "env")
    urls = re.findall(r"http://127\.0\.0\.1:\d+", line)
    assert exported == f"export CRDTSTORE_URL={','.join(urls)}\n"
    shell.environment["CRDTSTORE_URL"] = ",".join(urls)

    assert says("declare", "shop/orders", "counter") == "shop/orders  counter\n"
    assert says("dev", "partition", "ap") == "cut: ap | eu, ap | us\n"
    cut_at = time.monotonic()
    assert says("--region", "us", "add", "shop/orders/de", "3") == "3\n"
    assert says("--region", "ap", "add", "shop/orders/de", "4") == "4\n"
    time.sleep(max(0.0, cut_at + 3.0 - time.monotonic()))
    silent = re.fullmatch(
        r"3          \(ap: not heard from for (\d+) s\)\n", says("--region", "us", "get", "shop/orders/de")
    )
    assert silent
    assert 2 <= int(silent[1]) <= 10
    table = says("status").splitlines()
    assert "cut off from us, eu for" in next(row for row in table if row.startswith("ap"))
    assert re.fullmatch(r"diverged: .*ap lacks 1.* of us.*All regions take writes\.", table[-1])

    assert says("dev", "heal").startswith("healed, connections reset: ")
    shell.until(r"7\n", "--region", "us", "get", "shop/orders/de")
    assert "amount must be an integer, got 1.5. Nothing changed." in shell.refused(2, "add", "shop/orders/de", "1.5")
    shell.until(r".*\nconverged: all regions hold the same \d+ commits\.\n", "status")

    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    (shell.directory / "example.py").write_text(example[1])
    said = shell.run(sys.executable, "example.py")
    assert re.fullmatch(r"8 (us|eu|ap)-1\.[0-9a-f]{16}:\d+\n8\n", said.stdout), said

    assert says("dev", "down") == "stopped, nothing is left running; data stays in .crdtstore/\n"
    assert "unreachable" in shell.refused(4, "--timeout", "1", "get", "shop/orders/de")


def test_every_verb_of_every_type(shell: Shell) -> None:
    up(shell, **{type_name: type_name for type_name in REGISTRY})
    ok = r"ok  us-1:\d+\n"
    typed: set[tuple[str, str]] = set()

    def says(verb: str, address: str, *words: str) -> str:
        typed.add((address.partition("/")[0], verb))
        return shell.crdtstore("--region", "us", verb, f"shop/{address}", *words)

    def is_done(*words: str) -> None:
        assert re.fullmatch(ok, said := says(*words)), (words, said)

    assert says("add", "counter/de", str(BIG)) == f"{BIG}\n"
    assert says("add", "counter/de", "-1") == f"{BIG - 1}\n"
    assert says("get", "counter/de") == f"{BIG - 1}\n"
    assert shell.ask("get", "shop/counter/de")["value"] == BIG - 1
    assert says("add", "counter/a/b:c %2F ü") == "1\n"

    assert says("grant", "bounded_counter/sku", "10") == "10\n"
    assert says("consume", "bounded_counter/sku", "3") == "7\n"
    assert says("transfer", "bounded_counter/sku", "2", "eu") == "7\n"
    holds = [says("reserve", "bounded_counter/sku", "1", "600").strip() for _ in range(2)]
    assert says("get", "bounded_counter/sku") == "5          (rights: here 3, held 2, ap 0, eu 2)\n"
    assert says("confirm", "bounded_counter/sku", holds[0]) == "5\n"
    assert says("release", "bounded_counter/sku", holds[1]) == "6\n"
    assert "was released" in shell.refused(3, "--region", "us", "release", "shop/bounded_counter/sku", holds[1])
    assert "this region holds the rights to" in shell.refused(3, "consume", "shop/bounded_counter/sku", "7")

    for type_name in ("aw_set", "g_set", "rw_set"):
        is_done("add", f"{type_name}/tags", "vip", "7", '"7"', '{"$bytes": "AP8="}', str(-BIG))
        assert says("members", f"{type_name}/tags", "--has", '"7"') == "yes\n"
    for type_name in ("aw_set", "rw_set"):
        is_done("remove", f"{type_name}/tags", "vip")
    token = shell.ask("--region", "us", "add", "shop/aw_set/tags", "x")["token"]
    value = shell.ask("--region", "ap", "--token", token, "get", "shop/aw_set/tags")["value"]
    assert {json.dumps(element) for element in value} == {"7", '"7"', '{"$bytes": "AP8="}', str(-BIG), '"x"'}
    assert says("members", "rw_set/tags") == f'{-BIG}\n7\n"7"\n{{"$bytes": "AP8="}}\n'

    document = {"name": "Ada", "n": [1, None]}
    assert json.loads(says("set", "lww_register/c-42", json.dumps(document))) == document
    assert says("set", "lww_register/c-42", "plain words") == "plain words\n"
    assert says("set", "mv_register/c-42", "gold") == '["gold"]\n'
    assert says("set", "max_register/score", "50") + says("set", "max_register/score", "-7") == "50\n50\n"
    assert (
        says("set", "min_register/seen", "2026-02") + says("set", "min_register/seen", "2026-01")
        == "2026-02\n2026-01\n"
    )
    for type_name in ("ew_flag", "dw_flag"):
        said = [says(verb, f"{type_name}/on") for verb in ("enable", "disable", "enable")]
        assert said == ["true\n", "false\n", "true\n"]

    is_done("set", "lww_map/c-42", "name=Ada", f"visits={BIG}", "old=1", "code=1234")
    is_done("unset", "lww_map/c-42", "old")
    is_done("expire", "lww_map/c-42", "0.2", "--fields", "code")
    shell.until(r'\{"name": "Ada", "visits": \d+\}\n', "--region", "us", "get", "shop/lww_map/c-42")

    assert says("add", "or_map/c-42", "2", "--path", "visits:counter") == "2\n"
    is_done("insert", "or_map/c-42", "0", "hi", "--path", "more:or_map", "--path", "note:text")
    is_done("set", "or_map/c-42", "x=1", "--path", "draft:lww_map")
    is_done("remove", "or_map/c-42", "draft")
    assert says("get", "or_map/c-42") == '{"more": {"note": "hi"}, "visits": 2}\n'
    assert says("members", "or_map/c-42") == 'more    {"note": "hi"}\nvisits  2\n'

    is_done("append", "event_log/week", "e-1", '{"n": 1}')
    assert re.fullmatch(r'20\S+Z  \w+-1:\d+  e-1  \{"n": 1\}\n', says("get", "event_log/week"))
    is_done("insert", "text/note", "0", "Call Ada today")
    is_done("cut", "text/note", "8", "6")
    assert says("get", "text/note") == "Call Ada\n"

    for type_name, crdt in REGISTRY.items():
        assert shell.crdtstore("--region", "us", "list", f"shop/{type_name}").count("\n") == 1 + (
            type_name == "counter"
        )
        assert says("explain", f"{type_name}/never").endswith(f"   {type_name}, no writes\n")
        if crdt.deletable:
            key = f"{type_name}/{'de' if type_name == 'counter' else 'ends'}"
            is_done("expire", key, "600")
            assert re.search(r"\(ends 20\S+Z\)\n", says("get", key))
            is_done("expire", key, "never")
            is_done("delete", key)
            empty = json.dumps(crdt.empty if isinstance(crdt.empty, bool | int | str | dict | None) else [])
            assert says("get", key) == f"{empty}\n"
        else:
            assert "not-deletable" in shell.refused(2, "delete", f"shop/{type_name}/x")
    assert typed >= {(name, op) for name, crdt in REGISTRY.items() for op in crdt.mutators}, (
        "what is not typed here yet"
    )

    assert says("list", "counter") == "a/b:c %2F ü  1\n"
    assert says("list", "counter", "--prefix", "b") == ""
    assert shell.crdtstore("conflicts", "shop") == "no conflicts\n"
    reason = shell.ask("--region", "us", "--reason", "order 981", "add", "shop/counter/de", "2")
    assert (reason["values"], reason["replayed"]) == ([2], False)


Case = tuple[int, list[str], str]
WRONG: list[Case] = [
    (2, ["get", "shop/orders/.."], "Nothing changed"),
    (2, ["add", "shop/orders/de", "1.5"], "amount must be an integer, got 1.5"),
    (2, ["add", "shop/orders/de", "1", "2"], "add takes amount"),
    (2, ["remove", "shop/orders/de", "x"], "counter has no operation 'remove'"),
    (2, ["get", "shop/nowhere/de"], "not declared"),
    (2, ["get", "mars/orders/de"], "not declared"),
    (2, ["get", "shop/orders"], "an address is domain/collection/key"),
    (2, ["declare", "shop/orders", "aw_set"], "type-mismatch"),
    (2, ["declare", "Shop/orders", "counter"], "Nothing changed"),
    (2, ["--token", "AQbogus", "get", "shop/orders/de"], "foreign-token"),
    (2, ["--region", "mars", "get", "shop/orders/de"], "none of the urls is in region mars"),
    (2, ["--regions", "3", "add", "shop/orders/de"], "), got 3. Nothing changed."),
    (4, ["--url", "http://127.0.0.1:1", "--timeout", "1", "get", "shop/orders/de"], "unreachable"),
]


def test_exit_codes(shell: Shell) -> None:
    up(shell, orders="counter")
    for code, words, expected in WRONG:
        assert expected in shell.refused(code, *words), words
    refused = shell.type("--json", "get", "shop/orders/..", code=2)
    assert json.loads(refused.stdout)["effect"] == "none"

    shell.crdtstore("dev", "partition", "ap")
    token = shell.ask("--region", "us", "add", "shop/orders/de", "3")["token"]
    behind = shell.refused(4, "--region", "ap", "--token", token, "--timeout", "1.5", "get", "shop/orders/de")
    assert "replica-behind" in behind
    assert "regions that can serve: us" in behind
    assert shell.crdtstore("--token", token, "get", "shop/orders/de").startswith("3")

    assert shell.ask("dev", "kill", "us")["state"] == "killed"
    assert "unreachable" in shell.refused(4, "--region", "us", "--timeout", "1", "get", "shop/orders/de")
    assert "us" in shell.crdtstore("dev", "start", "us")
    assert shell.crdtstore("--region", "us", "get", "shop/orders/de").startswith("3")
