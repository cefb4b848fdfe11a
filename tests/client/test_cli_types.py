"""The command line over the production engine: every type's verbs, explain, conflicts and members as people see them."""

import json
import re
import shlex
import time
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.types import REGISTRY
from crdtstore_client.cli_explain import _explained
from crdtstore_client.cli_show import clip, pad, plain_element, width_of
from crdtstore_client.cli_support import element_of
from tests.client.regions import REGIONS, Regions

BIG = 1 << 80
OK = re.compile(r"ok  (us|eu|ap)-1:\d+\n")


class Shell:
    """A terminal over three regions; what moves from run to run is shown as dots and times of one form."""

    def __init__(self) -> None:
        self.regions = Regions()

    def run(self, line: str) -> Result:
        words = shlex.split(line)
        if "--region" not in words:
            words = ["--region", "us", *words]
        urls = ",".join(self.regions.urls)
        return CliRunner().invoke(main, ["--url", urls, *words], obj={"transport": self.regions})

    def says(self, line: str) -> str:
        result = self.run(line)
        assert result.exit_code == 0, (line, result.stderr, result.exception)
        assert result.stderr == "", line
        return result.stdout

    def shows(self, line: str) -> list[str]:
        text = re.sub(r"\b(us|eu|ap)-1:\d+", r"\1-1:0", self.says(line))
        return re.sub(r"\b\d\d:\d\d:\d\d\.\d\d\d\b", "10:00:00.000", text).splitlines()

    def asks(self, line: str) -> Any:
        return json.loads(self.says(f"--json {line}"))

    def refused(self, line: str, code: int = 2) -> str:
        result = self.run(line)
        assert (result.exit_code, result.stdout) == (code, ""), (line, result.stdout, result.exception)
        return result.stderr

    def settle(self, *, without: str = "") -> None:
        """Until the other regions have heard of each other."""
        self.regions.cut = {without} if without else set()
        deadline = time.monotonic() + 10
        while True:
            self.regions.tick()
            statuses = [self.regions.services[name].status(0) for name in REGIONS if name != without]
            vectors = [{group["domain"]: group["vector"] for group in status["groups"]} for status in statuses]
            if all(vector == vectors[0] for vector in vectors):
                break
            assert time.monotonic() < deadline, vectors
            time.sleep(0.002)
        for _ in range(20):  # and have acknowledged it
            self.regions.tick()
            time.sleep(0.002)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("CRDTSTORE_URL", raising=False)
    shell = Shell()
    for name in REGISTRY:
        shell.says(f"declare shop/{name} {name}")
    shell.says("""declare shop/customers or_map --option 'fields={"visits": "counter", "tags": "aw_set"}'""")
    shell.settle()
    return shell


def test_registers_and_flags(shell: Shell) -> None:
    assert shell.says("set shop/mv_register/tier gold") == '["gold"]\n'
    assert shell.says("set shop/max_register/m 7") == "7\n"
    assert shell.says(f"set shop/max_register/m {BIG}") == f"{BIG}\n"
    assert shell.says("set shop/max_register/m 3") == f"{BIG}\n"
    assert shell.says("set shop/min_register/m true") == "true\n"
    assert shell.asks("get shop/min_register/m")["value"] == "true"
    assert "value must be an integer or text, got 1.5" in shell.refused("set shop/min_register/n 1.5")
    for name in ("ew_flag", "dw_flag"):
        assert shell.says(f"get shop/{name}/f") == "false\n"
        assert shell.says(f"enable shop/{name}/f") == "true\n"
        assert shell.says(f"disable shop/{name}/f") == "false\n"
        assert "enable takes no arguments; what is 'now'?" in shell.refused(f"enable shop/{name}/f now")


def test_sets_and_their_members(shell: Shell) -> None:
    for name in ("aw_set", "g_set", "rw_set"):
        assert OK.fullmatch(shell.says(f"""add shop/{name}/s 5 '"5"' vip true '{{"$bytes": "AA=="}}' 日本"""))
        expected = ["5", '"5"', "true", "vip", "日本", '{"$bytes": "AA=="}']
        assert shell.says(f"members shop/{name}/s").splitlines() == expected
        assert shell.says(f"members shop/{name}/s --after true").splitlines() == expected[3:]
        assert [shell.says(f"members shop/{name}/s --has {one}") for one in ("5", "6", "vip")] == [
            "yes\n",
            "no\n",
            "yes\n",
        ]
        assert shell.says(f"members shop/{name}/never") == ""
    page = shell.run("members shop/aw_set/s --limit 2")
    assert (page.stdout, page.stderr) == ('5\n"5"\n', "there are more: --after '\"5\"'\n")
    body = shell.asks("members shop/aw_set/s --limit 1")
    assert (body["items"], body["next"]) == ([5], 5)
    assert shell.asks("members shop/aw_set/s --has 5")["has"] is True
    assert "have members, counter has none" in shell.refused("members shop/counter/de")
    assert "either --after or --has" in shell.refused("members shop/aw_set/s --has 5 --after 5")
    assert "not-declared" in shell.refused("members shop/nothing/s")


def test_members_of_maps_and_logs(shell: Shell) -> None:
    shell.says("set shop/lww_map/c-42 name=Ada city=Graz n=7")
    assert shell.says("members shop/lww_map/c-42") == "city  Graz\nn     7\nname  Ada\n"
    shell.says("append shop/event_log/l e-1 1")
    shell.says("append shop/event_log/l e-2")
    assert re.fullmatch(r"20\S+Z  us-1:\d+  e-2  null\n", shell.says("members shop/event_log/l --after e-1"))
    shell.says("add shop/customers/c 2 --path visits")
    shell.says("add shop/customers/c vip --path tags")
    assert shell.says("members shop/customers/c") == 'tags    ["vip"]\nvisits  2\n'
    page = shell.run("members shop/customers/c --limit 1")
    following = page.stderr.removeprefix("there are more: ").strip()
    assert shell.says(f"members shop/customers/c {following}") == "visits  2\n"


def test_fields_of_maps(shell: Shell) -> None:
    assert shell.says("add shop/customers/c 2 --path visits") == "2\n"
    assert shell.says("add shop/customers/c -1 --path visits:counter") == "1\n"
    assert shell.says("add shop/or_map/c 5 --path more:or_map --path a:b:counter") == "5\n"
    assert shell.says("set shop/or_map/c Ada --path name:lww_register") == "Ada\n"
    assert json.loads(shell.says("get shop/or_map/c")) == {"more": {"a:b": 5}, "name": "Ada"}
    assert OK.fullmatch(shell.says("delete shop/or_map/c --path more:or_map"))
    assert OK.fullmatch(shell.says("remove shop/customers/c visits"))
    assert shell.says("get shop/customers/c") == "{}\n"
    for line, message in (
        ("add shop/customers/c 2", "for one of its fields say which: --path NAME, of tags, visits"),
        ("add shop/or_map/c 2", "for one of its fields say which: --path NAME:TYPE"),
        ("add shop/customers/c 2 --path age", "names a field that was declared (tags, visits), got 'age'"),
        ("add shop/customers/c 2 --path visits:aw_set", "declares no field 'visits' of type aw_set: it is a counter"),
        ("add shop/or_map/c 2 --path visits", "--path is NAME:TYPE, such as visits:counter, got 'visits'"),
        ("add shop/or_map/c 2 --path visits:set", "there is no type 'set'"),
        ("add shop/or_map/c 2 --path visits:bounded_counter", "a bounded_counter cannot stand in a map"),
        ("add shop/counter/c 2 --path visits:counter", "leads into an or_map, and <counter shop/counter/c> is none"),
        ("fly shop/or_map/c", "No such command"),
    ):
        assert message in shell.refused(line)


def test_expire(shell: Shell) -> None:
    shell.says("add shop/aw_set/cart milk")
    assert OK.fullmatch(shell.says("expire shop/aw_set/cart 3600"))
    assert re.fullmatch(r'\["milk"\]   \(ends 20\S+Z\)\n', shell.says("get shop/aw_set/cart"))
    shell.says("expire shop/aw_set/cart never")
    assert shell.says("get shop/aw_set/cart") == '["milk"]\n'
    shell.says("set shop/lww_map/c name=Ada code=7")
    assert OK.fullmatch(shell.says("expire shop/lww_map/c 60.5 --fields code"))
    assert re.fullmatch(r'{"code": 7, "name": "Ada"} \(code ends 20\S+Z\)\n', shell.says("get shop/lww_map/c"))
    shell.says("add shop/or_map/c 1 --path visits:counter")
    assert OK.fullmatch(shell.says("expire shop/or_map/c 60 --path visits:counter"))
    assert "(visits ends 20" in shell.says("get shop/or_map/c")
    for line, message in (
        ("expire shop/aw_set/cart soon", "ttl must be seconds, such as 3600, or never, got 'soon'"),
        ("expire shop/aw_set/cart nan", "ttl must be seconds"),
        ("expire shop/aw_set/cart -1", "ttl must be above 0 and at most 3,162,240,000 seconds, got -1.0"),
        ("expire shop/aw_set/cart", "expire needs the argument ttl (seconds, such as 3600, or never)"),
        ("expire shop/event_log/l 5", "event_log has no operation 'expire'; it has append"),
        ("expire shop/counter/c 5 --fields x", "expire takes ttl_ms, not fields"),
    ):
        assert message in shell.refused(line)


def test_text(shell: Shell) -> None:
    shell.says("insert shop/text/page 0 'Hello\nwörld'")
    assert shell.says("get shop/text/page") == "Hello\nwörld\n"
    shell.says("cut shop/text/page 0 1")
    assert shell.says("get shop/text/page") == "ello\nwörld\n"
    shell.says("expire shop/text/page 60")
    assert re.fullmatch(r"ello\nwörld\n\(ends 20\S+Z\)\n", shell.says("get shop/text/page"))
    shell.says("insert shop/text/bell 0 '\x1b[31m\nred'")
    assert shell.says("get shop/text/bell") == '"\\u001b[31m\\nred"\n'
    assert shell.says("get shop/text/never") == '""\n'
    assert "index must" in shell.refused("insert shop/text/page 100 x")


def test_stock(shell: Shell) -> None:
    sku = "shop/bounded_counter/sku-7"
    assert shell.says(f"grant {sku} 10") == "10\n"
    assert shell.says(f"consume {sku} 1") == "9\n"
    assert shell.says(f"transfer {sku} 4 eu") == "9\n"
    hold = shell.says(f"reserve {sku} 2 900").strip()
    shell.settle()
    assert shell.says(f"get {sku}") == "7          (rights: here 3, held 2, eu 4, ap 0)\n"
    assert shell.says(f"confirm {sku} {hold}") == "7\n"
    assert "hold-ended" in shell.refused(f"release {sku} {hold}", code=3)
    assert f"the hold {json.dumps(hold)} was confirmed" in shell.refused(f"confirm {sku} {hold}", code=3)
    other = shell.asks(f"reserve {sku} 1 60")["values"][0]
    assert shell.says(f"release {sku} {other}") == "7\n"
    refused = shell.run(f"--json consume {sku} 100")
    assert refused.exit_code == 3
    assert (json.loads(refused.stdout)["requested"], json.loads(refused.stdout)["code"]) == (100, "insufficient-rights")
    assert "amount must be at least 1" in shell.refused(f"consume {sku} -1")
    assert "reserve takes amount, ttl; what is 'x'" in shell.refused(f"reserve {sku} 1 60 x")


def test_an_id_of_an_earlier_attempt(shell: Shell) -> None:
    assert shell.says("add shop/counter/de 3 --id 'order 981'") == "3\n"
    again = shell.asks("add shop/counter/de 3 --id 'order 981'")
    assert (again["replayed"], again["values"]) == (True, [3])
    assert "key-reused" in shell.refused("add shop/counter/de 4 --id 'order 981'")


def test_help_says_what_stands_behind_the_address() -> None:
    def helped(verb: str) -> str:
        return CliRunner().invoke(main, [verb, "--help"]).output

    assert "reserve ADDRESS AMOUNT TTL_SECONDS" in helped("reserve")
    assert "--path" not in helped("reserve")
    assert "expire ADDRESS TTL_SECONDS [--fields NAME]..." in helped("expire")
    assert "add ADDRESS [AMOUNT=1]" in helped("add")
    assert "set ADDRESS NAME=VALUE..." in helped("set")
    assert "A VALUE is JSON, or, where it is none, the text itself" in helped("set")
    assert "An ELEMENT is a number" in helped("add")
    assert "Not for: bounded_counter, event_log, g_set." in " ".join(helped("delete").split())
    for verb in ("add", "delete", "expire", "enable"):
        assert "--path FIELD" in helped(verb)
    assert all(len(line) <= 80 for verb in ("add", "expire", "set", "remove") for line in helped(verb).splitlines())


# --- explain and conflicts


def test_explain_as_the_api_shows_it(shell: Shell) -> None:
    with shell.regions.apart():
        shell.says("set shop/lww_register/c-42 silver")
        shell.regions.later()
        shell.says("--region eu set shop/lww_register/c-42 gold --reason upgrade")
    shell.settle(without="ap")
    assert shell.shows("explain shop/lww_register/c-42") == [
        "gold     lww_register, 2 concurrent writes, not yet in: ap",
        '  wins   gold     eu-1:0   10:00:00.000  by anonymous   "upgrade"',
        "  lost   silver   us-1:0   10:00:00.000  by anonymous   concurrent and earlier",
    ]
    assert shell.shows("get shop/lww_register/c-42") == ["gold       (conflicts: 1)"]
    assert shell.shows("conflicts shop") == ["shop/lww_register/c-42   lww_register   1"]
    assert [write["value"] for write in shell.asks("explain shop/lww_register/c-42")["live"]] == ["gold", "silver"]
    page = shell.run("explain shop/lww_register/c-42 --limit 1")
    assert "lww_register, more than 1 write, not yet in: ap" in page.stdout
    assert page.stderr == "there are more: --limit 10\n"


def test_explain_of_what_lies_below_a_key(shell: Shell) -> None:
    shell.says("set shop/lww_map/c name=name city=Graz")
    shell.says("add shop/g_set/s 5 '\"5\"'")
    shell.settle()
    assert shell.shows("explain shop/lww_map/c") == [
        '{"city": "Graz", "name": "name"}   lww_map, 2 writes',
        "  wins   city   Graz   us-1:0   10:00:00.000  by anonymous   the latest write",
        "  wins   name   name   us-1:0   10:00:00.000  by anonymous   the latest write",
    ]
    assert [line.split()[1] for line in shell.shows("explain shop/g_set/s")[1:]] == ["5", '"5"']
    with shell.regions.apart():
        shell.says("add shop/rw_set/s a 日本")
        shell.says("--region eu remove shop/rw_set/s a")
        shell.says("add shop/or_map/c vip --path tags:aw_set")
        shell.says("add shop/or_map/c 2 --path visits:counter")
    shell.settle(without="ap")
    assert shell.shows("explain shop/rw_set/s") == [
        '["日本"]   rw_set, 3 writes, 1 lost, not yet in: ap',
        "  wins   a      eu-1:0   10:00:00.000  by anonymous   a remove wins over concurrent adds",
        "  lost   a      us-1:0   10:00:00.000  by anonymous   concurrent to a remove",
        "  wins   日本   us-1:0   10:00:00.000  by anonymous   an add without a concurrent remove",
    ]
    assert shell.shows("explain shop/or_map/c") == [
        '{"tags": ["vip"], "visits": 2}   or_map, 2 writes, not yet in: ap',
        "  wins   tags:aw_set      vip   us-1:0   10:00:00.000  by anonymous   an add that no remove has seen",
        "  wins   visits:counter   2     us-1:0   10:00:00.000  by anonymous   sum of its region",
    ]


def test_explain_of_long_values_and_of_nothing(shell: Shell) -> None:
    shell.says(f"set shop/lww_register/long '{'x' * 200}' --reason '{'y' * 200}'")
    shell.settle()
    assert shell.shows("explain shop/lww_register/long") == [
        f"{'x' * 59}…   lww_register, 1 write",
        f'  wins   {"x" * 39}…   us-1:0   10:00:00.000  by anonymous   "{"y" * 39}…"',
    ]
    for name, crdt in REGISTRY.items():
        empty = json.dumps(list(crdt.empty) if isinstance(crdt.empty, tuple) else crdt.empty)
        assert shell.says(f"explain shop/{name}/never") == f"{empty}   {name}, no writes\n"
    assert "not-declared" in shell.refused("explain shop/nothing/c")


def test_explain_of_amounts(shell: Shell) -> None:
    shell.says("add shop/counter/c 3")
    shell.says("grant shop/bounded_counter/c 10")
    shell.says(f"release shop/bounded_counter/c {shell.says('reserve shop/bounded_counter/c 2 60').strip()}")
    shell.settle()
    assert shell.shows("explain shop/counter/c") == [
        "3   counter, 1 sum",
        "  counts   3   us-1:0   10:00:00.000  by anonymous   sum of its region",
    ]
    headline, granted, ended = shell.shows("explain shop/bounded_counter/c")
    assert headline == "10   bounded_counter, 2 sums and holds, 1 ended"
    assert re.fullmatch(r"  counts   granted +10 +us-1:0   10:00:00.000  by anonymous   sum of its region", granted)
    assert re.fullmatch(r"  ended    hold/\S+   released   us-1:0 .* hold released", ended)


def test_long_values_give_way_on_a_narrow_terminal() -> None:
    write = {
        "value": "x" * 100,
        "dot": "us-1.0123456789abcdef:7",
        "time": "2026-01-05T10:00:00.123Z",
        "region": "us",
        "author": "web",
        "reason": None,
        "counts": True,
        "why": "the latest write",
    }
    body = {"value": "x" * 100, "type": "lww_register", "live": [write], "not_yet_in": [], "truncated": False}
    for columns, width in ((120, 40), (100, 29), (60, 12)):
        row = list(_explained(body, columns))[1]
        assert len(row) <= max(columns, 83)
        assert row == f"  wins   {'x' * (width - 1)}…   us-1:7   2026-01-05 10:00:00.123  by web   the latest write"


def test_names_of_holds_give_way_after_values() -> None:
    write = {
        "value": 2,
        "dot": "us-1.0123456789abcdef:7",
        "time": "2026-01-05T10:00:00.123Z",
        "region": "us",
        "author": "web",
        "reason": "cart 7",
        "counts": True,
        "why": "held until noon",
        "at": ["hold", "0123456789abcdef0123456789abcdef.0"],
    }
    body = {"value": 8, "type": "bounded_counter", "live": [write], "not_yet_in": [], "truncated": False}
    time = "2026-01-05 10:00:00.123  by web   held until noon"
    assert list(_explained(body)) == [
        "8   bounded_counter, 1 sum or hold",
        f'  counts   hold/0123456789abcdef0123456789abcdef.0   2   us-1:7   {time}   "cart 7"',
    ]
    assert list(_explained(body, 80))[1] == f'  counts   hold/0123456789…   2   us-1:7   {time}   "cart 7"'


def test_a_blank_at_an_end_is_seen() -> None:
    write = {
        "value": " world",
        "dot": "us-1.0123456789abcdef:7",
        "time": "2026-01-05T10:00:00.123Z",
        "region": "us",
        "author": "web",
        "reason": None,
        "counts": True,
        "why": "inserted, and not cut",
        "at": [0],
    }
    body = {"value": " world", "type": "text", "live": [write], "not_yet_in": [], "truncated": False}
    assert list(_explained(body))[1].startswith('  wins   0   " world"   us-1:7')


def test_conflicts(shell: Shell) -> None:
    assert shell.says("conflicts shop") == "no conflicts\n"
    with shell.regions.apart():
        shell.says("declare shop/clash counter")
        shell.says("--region eu declare shop/clash aw_set")
        for key in ("a/b", "c", "日本"):
            for region in ("us", "eu"):
                shell.says(f"--region {region} set shop/lww_register/{key} {region}")
    shell.settle()
    assert shell.shows("conflicts shop") == [
        "shop/clash   serves as counter, was declared also as aw_set",
        "shop/lww_register/a/b    lww_register   1",
        "shop/lww_register/c      lww_register   1",
        "shop/lww_register/日本   lww_register   1",
    ]
    page = shell.run("conflicts shop --limit 2")
    following = page.stderr.removeprefix("there are more: ").strip()
    assert shell.shows(f"conflicts shop {following}") == ["shop/lww_register/日本   lww_register   1"]
    assert [item["key"] for item in shell.asks("conflicts shop")["items"]] == ["a/b", "c", "日本"]
    assert "not-declared" in shell.refused("conflicts nowhere")


# --- columns


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("ü", 1), ("u\u0308", 1), ("日本", 4), ("a…", 2)])
def test_widths_of_a_terminal(text: str, width: int) -> None:
    assert width_of(text) == width
    assert width_of(pad(text, 9)) == 9
    assert clip(text, 9) == text
    assert width_of(clip(text * 9, 4)) <= 4


@pytest.mark.parametrize(
    "element", [5, -BIG, "5", "-5", "vip", "true", "null", '"', "{}", "", " ", b"\x00", "\x1b", "ü"]
)
def test_an_element_is_shown_as_it_is_typed(element: Any) -> None:
    shown = plain_element(element)
    assert shown.isprintable()
    assert element_of(shown) == element
    assert type(element_of(shown)) is type(element)
