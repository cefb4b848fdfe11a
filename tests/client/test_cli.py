"""The command line: verbs, what they mean per type, what they print, and what the shell is told."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.errors import (
    AccessError,
    Compacted,
    CrdtStoreError,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicaBehind,
    UsageError,
)
from crdtstore.types import REGISTRY
from crdtstore_client import Response, cli
from tests.client.fakes import AP, EU, US, FakeCluster

URLS = f"{US},{EU},{AP}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRDTSTORE_URL", raising=False)
    monkeypatch.delenv("CRDTSTORE_AUTH", raising=False)


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    for name in REGISTRY:
        cluster.collections["shop", name] = {"type": name, "options": {}}
    return cluster


def run(cluster: FakeCluster, *args: str, urls: str = URLS) -> Result:
    return CliRunner().invoke(main, ["--url", urls, *args], obj={"transport": cluster})


def done(cluster: FakeCluster, *args: str) -> str:
    result = run(cluster, *args)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_there_is_a_verb_for_every_op_of_the_registry() -> None:
    verbs = {command.name for command in cli.commands}
    assert verbs == {name for crdt in REGISTRY.values() for name in crdt.mutators} | {
        "bench",
        "conflicts",
        "declare",
        "delete",
        "doctor",
        "explain",
        "get",
        "list",
        "member",
        "members",
        "orphan",
        "status",
    }


def test_the_readme_in_the_small() -> None:
    cluster = FakeCluster()
    assert done(cluster, "declare", "shop/orders", "counter", "--option", "grow_only=true") == (
        "shop/orders  counter  (grow_only=true)\n"
    )
    assert done(cluster, "--region", "us", "add", "shop/orders/de", "3") == "3\n"
    assert done(cluster, "add", "shop/orders/de", "4", "--region", "ap") == "7\n"
    assert [write.url for write in cluster.writes] == [US, AP]
    assert done(cluster, "get", "shop/orders/de") == "7\n"
    assert done(cluster, "get", "shop/orders/never") == "0\n"


def test_the_type_decides_what_a_verb_means(cluster: FakeCluster) -> None:
    assert done(cluster, "add", "shop/counter/de") == "1\n"
    assert done(cluster, "add", "shop/counter/de", "-3") == "-2\n"
    assert done(cluster, "add", "shop/aw_set/c", "vip", "7", "true", '"8"', '{"$bytes": "AA=="}').startswith("ok  ")
    assert cluster.values["shop", "aw_set", "c"] == {"vip", 7, "true", "8", b"\0"}
    assert done(cluster, "--region", "us", "remove", "shop/aw_set/c", "7") == "ok  us-1:4\n"
    assert json.loads(done(cluster, "get", "shop/aw_set/c")) == ["8", "true", "vip", {"$bytes": "AA=="}]


def test_registers_maps_and_logs(cluster: FakeCluster) -> None:
    assert done(cluster, "set", "shop/lww_register/tier", "gold") == "gold\n"
    assert done(cluster, "set", "shop/lww_register/tier", '{"a": [1, 2.5, null]}') == '{"a": [1, 2.5, null]}\n'
    assert done(cluster, "set", "shop/lww_register/tier", "null") == "null\n"
    assert done(cluster, "set", "shop/lww_map/c-42", '{"name": "Ada", "age": 36}').startswith("ok  ")
    assert done(cluster, "set", "shop/lww_map/c-42", "city=Graz", "age=37").startswith("ok  ")
    assert done(cluster, "unset", "shop/lww_map/c-42", "name").startswith("ok  ")
    assert json.loads(done(cluster, "get", "shop/lww_map/c-42")) == {"age": 37, "city": "Graz"}
    done(cluster, "append", "shop/event_log/x", "e1", '{"what": "made"}')
    done(cluster, "append", "shop/event_log/x", "e2")
    assert done(cluster, "get", "shop/event_log/x").splitlines() == [
        '2026-01-05T10:00:00.123Z  us-1:1  e1  {"what": "made"}',
        "2026-01-05T10:00:00.123Z  us-1:1  e2  null",
    ]
    assert done(cluster, "get", "shop/event_log/none") == "[]\n"
    assert done(cluster, "delete", "shop/lww_map/c-42").startswith("ok  ")
    assert done(cluster, "get", "shop/lww_map/c-42") == "{}\n"


def test_a_conflict_is_shown_with_the_value(cluster: FakeCluster) -> None:
    done(cluster, "set", "shop/lww_register/tier", "gold")
    cluster.conflicts = 1
    assert done(cluster, "get", "shop/lww_register/tier") == "gold       (conflicts: 1)\n"


def test_integers_of_any_size(cluster: FakeCluster) -> None:
    big = 1 << 2000
    assert done(cluster, "add", "shop/counter/big", str(big)) == f"{big}\n"
    assert done(cluster, "add", "shop/counter/big", f"-{big}", "--json").startswith('{"dot": ')
    assert done(cluster, "get", "shop/counter/big") == "0\n"


def test_keys_may_hold_slashes_and_control_characters_stay_off_the_terminal(cluster: FakeCluster) -> None:
    done(cluster, "add", "shop/counter/a/b:c")
    assert ("shop", "counter", "a/b:c") in cluster.values
    done(cluster, "set", "shop/lww_register/x", "\x1b[31mred")
    assert done(cluster, "get", "shop/lww_register/x") == '"\\u001b[31mred"\n'


def test_list(cluster: FakeCluster) -> None:
    for key in ("de", "dk", "fr"):
        done(cluster, "add", f"shop/counter/{key}", "2")
    assert done(cluster, "list", "shop/counter") == "de  2\ndk  2\nfr  2\n"
    assert done(cluster, "list", "shop/counter", "--prefix", "d", "--after", "de") == "dk  2\n"
    assert done(cluster, "list", "shop/counter", "--prefix", "x") == ""
    result = run(cluster, "list", "shop/counter", "--limit", "1")
    assert (result.stdout, result.stderr) == ("de  2\n", "there are more: --after de\n")
    page = json.loads(done(cluster, "list", "shop/counter", "--limit", "1", "--json"))
    assert page["items"] == [{"key": "de", "value": 2}]
    assert page["next"] == "de"


def test_json_is_one_document_in_the_words_of_the_api(cluster: FakeCluster) -> None:
    ack = json.loads(done(cluster, "--json", "add", "shop/counter/de", "3", "--reason", "order 981"))
    assert sorted(ack) == ["dot", "durable_in", "replayed", "token", "values"]
    assert ack["values"] == [3]
    assert cluster.writes[0].body["reason"] == "order 981"  # type: ignore[index]
    reading = json.loads(done(cluster, "get", "shop/counter/de", "--json", "--token", ack["token"]))
    assert cluster.seen[-1].headers["Crdtstore-Token"] == ack["token"]
    assert reading["value"] == 3
    assert reading["type"] == "counter"
    result = run(cluster, "--json", "remove", "shop/counter/de", "x")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["code"] == "invalid-op"
    assert result.stderr.startswith(
        "error: invalid-op: counter has no operation 'remove'; it has add, expire, delete. "
    )


def test_an_amount_that_is_no_integer(cluster: FakeCluster) -> None:
    result = run(cluster, "add", "shop/counter/de", "1.5")
    assert result.stderr == "error: invalid-value: amount must be an integer, got 1.5. Nothing changed.\n"
    assert result.stdout == ""
    assert result.exit_code == 2
    assert cluster.writes == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["add", "shop/counter"], "an address is domain/collection/key, got 'shop/counter'"),
        (["declare", "shop/a/b", "counter"], "an address is domain/collection, got 'shop/a/b'"),
        (["add", "shop/counter/de", "1", "2"], "add takes amount; what is '2'?"),
        (["delete", "shop/counter/de", "2"], "delete takes no arguments; what is '2'?"),
        (["delete", "shop/event_log/x"], "not-deletable"),
        (["set", "shop/lww_register/x"], "set needs the argument value"),
        (["set", "shop/lww_map/x", "name"], "expected name=value, got 'name'"),
        (["add", "shop/aw_set/x"], "add needs the argument elements"),
        (["add", "shop/aw_set/x", "1.5"], "each of elements must be text, an integer or bytes, got 1.5"),
        (["add", "shop/nothing/x"], "not-declared"),
        (["get", "shop/nothing/x"], "not-declared"),
        (["add", "shop/aw_set/x", "vip", "--raeson", "typo"], "No such option"),
        (["add", "shop/counter/x", "--region", "mars"], "none of the urls is in region mars, they are in: ap, eu, us"),
        (["declare", "shop/x", "set"], "'set' is not one of"),
        (["fly"], "No such command 'fly'"),
        (["--url", "localhost:1", "get", "shop/counter/x"], "a url is like http"),
        (["--url", ",", "get", "shop/counter/x"], "no url"),
    ],
)
def test_wrong_use(cluster: FakeCluster, args: list[str], message: str) -> None:
    result = run(cluster, *args)
    assert message in result.stderr
    assert (result.stdout, result.exit_code) == ("", 2)
    assert cluster.writes == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x", code="type-mismatch"), 2),
        (AccessError("x"), 3),
        (PreconditionFailed("x"), 3),
        (Compacted("x"), 3),
        (ReplicaBehind("x", regions=["eu"], retryable=False), 4),
        (OutcomeUnknown("x", retryable=False), 5),
        (CrdtStoreError("x", code="never-heard-of", retryable=False), 1),
    ],
)
def test_exit_codes(cluster: FakeCluster, error: CrdtStoreError, code: int) -> None:
    if error.effect == "unknown":  # such answers are repeated until the deadline
        cluster.fail(US, None, *[error] * 100)
        result = run(cluster, "add", "shop/counter/de", "--timeout", "0.1", urls=US)
    else:
        cluster.fail(US, None, error)
        result = run(cluster, "add", "shop/counter/de", urls=US)
    assert result.exit_code == (5 if error.code == "never-heard-of" else code)
    assert result.stderr.startswith("error: ")


def test_nobody_there(cluster: FakeCluster) -> None:
    cluster.dead |= {US, EU, AP}
    result = run(cluster, "add", "shop/counter/de", "--timeout", "0.1")
    assert result.exit_code == 4
    assert "no answer from http://us, http://eu, http://ap" in result.stderr
    for args in (["get", "shop/counter/de", "--region", "us"], ["status"]):
        result = run(cluster, *args)
        assert result.exit_code == 4
        assert "unreachable" in result.stderr


def test_a_lost_reply_names_the_id(cluster: FakeCluster) -> None:
    cluster.fail(US, None, *["lost"] * 100)
    result = run(cluster, "add", "shop/counter/de", "--timeout", "0.1", urls=US)
    assert result.exit_code == 5
    assert "repeat it with id='~" in result.stderr


def test_the_credential_is_read_from_a_file(cluster: FakeCluster, tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    done(cluster, "get", "shop/counter/de", "--auth-file", str(secret))
    assert cluster.seen[-1].headers["Authorization"] == "Bearer s3cret"


def test_a_value_that_may_be_old_says_who_was_not_heard(cluster: FakeCluster) -> None:
    done(cluster, "add", "shop/counter/de", "3")
    peers = [
        {"node": "eu-1", "region": "eu", "state": "streaming", "heard_ms": 40, "offset_ms": 0.1},
        {"node": "ap-1", "region": "ap", "state": "probing", "heard_ms": 6100, "offset_ms": 0.1},
    ]
    cluster.status[US] = {"node": "us-1", "region": "us", "ready": True, "groups": [], "peers": peers}
    assert done(cluster, "--region", "us", "get", "shop/counter/de") == "3\n"
    cluster.staleness_ms = 6100
    assert done(cluster, "--region", "us", "get", "shop/counter/de") == "3          (ap: not heard from for 6 s)\n"
    peers[1]["heard_ms"] = None
    cluster.staleness_ms = None
    assert done(cluster, "--region", "us", "get", "shop/counter/de") == "3          (ap: not heard from yet)\n"


class _Entry:
    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self._value = value

    def load(self) -> Any:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


def test_a_package_that_is_missing_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> None:
    entries = [_Entry("sim", ImportError("No module named 'numpy'")), _Entry("client", cli.commands)]
    monkeypatch.setattr("crdtstore.cli._entries", lambda: entries)
    root = type(main)(name="crdtstore", params=main.params, callback=main.callback)
    monkeypatch.setattr("tests.client.test_cli.main", root)
    assert done(cluster, "get", "shop/counter/de") == "0\n"
    result = run(cluster, "sim", "run")
    assert result.exit_code == 2
    assert "No such command 'sim'" in result.stderr
    assert "Some commands could not be loaded (sim: No module named 'numpy')" in result.stderr
    assert "append" in run(cluster, "--help").stdout


READ = {"value": 103, "exists": True, "type": "counter", "token": "t", "staleness_ms": 1, "conflicts": 0}
EXPLAINED = {"value": 103, "type": "counter", "live": [], "not_yet_in": [], "truncated": False, "token": "t"}
PAGE = {"items": [], "next": None, "token": "t"}


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (["get", "shop/counter/visits"], READ),
        (["list", "shop/counter"], PAGE),
        (["members", "shop/aw_set/tags"], PAGE),
        (["explain", "shop/counter/visits"], EXPLAINED),
        (["conflicts", "shop"], PAGE | {"declarations": []}),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
@pytest.mark.parametrize(
    ("mark", "note"),
    [
        ("removed", "note: the node that answered was removed from the cluster; what it shows may be old, or be nowhere else\n"),
        ("fenced", "note: the node that answered must not use its id any more; what it shows may be old, or be nowhere else\n"),
        ("unproven", "note: the node that answered has not proven yet that it is itself; what it shows may be old, or be nowhere else\n"),
        ("\x1b[2K", "note: the node that answered is '\\x1b[2K'; what it shows may be old, or be nowhere else\n"),
        (None, ""),
    ],
)  # fmt: skip
def test_an_answer_of_a_node_that_may_not_be_relied_on_is_noted(
    cluster: FakeCluster, args: list[str], body: dict[str, Any], mark: str | None, note: str
) -> None:
    marked = body if mark is None else body | {"identity": mark}
    described = [None] if args[0] == "members" else []
    for more in ([], ["--json"]):
        cluster.fail(US, *described, Response(200, marked))
        result = run(cluster, *args, *more, urls=US)
        assert (result.exit_code, result.stderr) == (0, note), result.exception
        assert "note:" not in result.stdout


def test_no_option_is_shown_that_no_node_takes() -> None:
    assert "stable" not in CliRunner().invoke(main, ["get", "--help"]).output


# --- receipts

DOT = "us-1.0123456789abcdef:1"


def test_a_receipt_is_told_beside_the_value(cluster: FakeCluster) -> None:
    body = {"dot": DOT, "token": "t", "values": [3], "replayed": False, "durable_in": ["us", "eu"]}
    cluster.fail(US, None, Response(200, body))
    result = run(cluster, "add", "shop/counter/de", "3", "--regions", "1", urls=US)
    assert (result.stdout, result.stderr, result.exit_code) == ("3\n", "durable in us, eu\n", 0)


def test_a_late_receipt_is_a_note_and_no_failure(cluster: FakeCluster) -> None:
    body = {"dot": DOT, "token": "t", "values": [3], "replayed": False, "durable_in": ["us"]}
    cluster.fail(US, None, Response(202, body), None, Response(202, body))
    result = run(cluster, "add", "shop/counter/de", "3", "--regions", "1", urls=US)
    assert (result.stdout, result.exit_code) == ("3\n", 0)
    assert result.stderr.startswith("note: durable in us")
    result = run(cluster, "add", "shop/counter/de", "3", "--regions", "1", "--json", urls=US)
    assert json.loads(result.stdout) == body
