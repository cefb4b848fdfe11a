"""``crdtstore member``: what is shown, what is asked before it is done, and what is never done."""

import json

import pytest

from crdtstore.errors import Unavailable, UsageError
from tests.client.fake_members import IDS, URLS, FakeMembers, member, run


def confirmed(nodes: FakeMembers) -> list[tuple[str, str]]:
    """What was sent to be done, and to whom."""
    return [
        (name, path.rpartition("/")[2])
        for name, path, body in nodes.posts
        if body.get("yes") or path.endswith("/leave")
    ]


def test_a_list_of_members_and_of_those_that_were_removed(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    nodes.entry("us", "eu")["only_there"] = {"commits": 5113}
    gone = {"replica": "sa-1.5555666677778888", "node": "sa-1", "region": "sa"}
    nodes.pages["us"]["groups"][1]["waits_for"] = [gone["replica"]]
    nodes.pages["us"]["removed"] = [gone | {"final": {"_sys": 12, "old": 5113, "shop": None}}]
    assert run(nodes, "member", "list").stdout.splitlines() == [
        "configuration 3.ab12cd34 of prod, as us-1 sees it",
        "node  region  id        state   connected  heard      installed  only there",
        "us-1  us      0f3a1122  member  -          itself     yes                 0",
        "eu-1  eu      71c0ffee  member  yes        40 ms ago  yes             5,113",
        "ap-1  ap      99ab00cd  member  no         31 s ago   yes                 ?",
        "",
        "removed  region  id        commits that count",
        "sa-1     sa      55556666  _sys 12, old 5,113, not settled yet: shop/0",
    ]


def test_states_of_members(nodes: FakeMembers) -> None:
    nodes.entry("us", "eu")["is_leaving"] = True
    nodes.entry("us", "ap")["is_installed"] = False
    lines = run(nodes, "member", "list").stdout.splitlines()
    assert [line.split()[3] for line in lines[2:]] == ["member", "leaving", "joining"]
    assert [line.split()[-2] for line in lines[2:]] == ["yes", "yes", "no"]


def test_json_is_the_body_and_nothing_else(nodes: FakeMembers) -> None:
    nodes.pages["us"]["of a newer node"] = 1
    assert json.loads(run(nodes, "member", "list", "--json").stdout) == nodes.pages["us"]
    assert json.loads(run(nodes, "--json", "member", "status", "eu-1").stdout) == nodes.pages["eu"]


def test_who_is_asked_reaches_a_quorum_and_knows_most(nodes: FakeMembers) -> None:
    nodes.pages["us"]["quorum"]["reachable"] = False
    assert "as eu-1 sees it" in run(nodes, "member", "list").stdout
    nodes.pages["ap"]["configuration"] = "4.00000000"
    assert "as ap-1 sees it" in run(nodes, "member", "list").stdout
    nodes.pages["ap"]["state"] = "removed"
    assert "as eu-1 sees it" in run(nodes, "member", "list").stdout


def test_the_whole_picture_of_a_node(nodes: FakeMembers) -> None:
    groups = nodes.pages["us"]["groups"]
    groups[0] |= {"waits_for": [IDS["ap"]], "installing": {"of": IDS["eu"], "parts": 12}}
    groups[1] |= {"waits_for": [IDS["ap"]], "held_back_bytes": 3 << 30, "held_back_by": IDS["ap"]}
    nodes.pages["us"] |= {
        "state": "fenced",
        "why": "another process speaks under it",
        "orders": ["evict ap-1 from _sys"],
        "split": [{"replica": IDS["ap"], "node": "ap-1", "configuration": "3.99ffee11"}],
        "what_now": ["let it join: crdtstore member rejoin", "then look: \x1b[31m"],
        "quorum": {"needed": "more than half of 3 members", "reachable": False, "reached": ["us-1"]},
    }
    nodes.cut_off("ap")
    assert run(nodes, "member", "status", "us-1").stdout.splitlines() == [
        "us-1 (us) is fenced in prod",
        "why            another process speaks under it",
        "id             us-1.0f3a11220f3a1122",
        "configuration  3.ab12cd34: us-1, eu-1, ap-1",
        "quorum         NOT REACHED; more than half of 3 members; reached: us-1",
        "SPLIT          ap-1 (ap-1.99ab00cd) goes by 3.99ffee11",
        "unheard        ap-1 (31 s ago)",
        "orders         evict ap-1 from _sys",
        "waiting        _sys/0, shop/0: up to where commits of ap-1 count",
        "installing     _sys/0: 12 parts from eu-1",
        "held back      shop/0: 3.0 GiB of log until ap-1 has them",
        "what now       let it join: crdtstore member rejoin",
        '"               then look: \\u001b[31m"',
    ]


def test_nothing_is_removed_without_yes(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    result = run(nodes, "member", "evict", "ap-1", code=3)
    assert result.stdout.splitlines() == [
        "To remove ap-1 from configuration 3.ab12cd34 (us-1, eu-1, ap-1):",
        "  - commits of ap-1.99ab00cd99ab00cd may be there only",
        "  - 2 of 3 remain",
    ]
    assert result.stderr.splitlines() == [
        "error: confirm-needed: this needs --yes. Nothing changed.",
        "to do it: crdtstore member evict ap-1 --configuration 3.ab12cd34 --yes",
    ]
    assert confirmed(nodes) == []
    body = json.loads(run(nodes, "--json", "--url", URLS, "member", "evict", "ap-1", code=3).stdout)
    assert (body["code"], len(body["costs"])) == ("confirm-needed", 2)
    assert body["command"] == f"crdtstore --url={URLS} member evict ap-1 --configuration 3.ab12cd34 --yes"
    assert confirmed(nodes) == []


def test_the_command_that_was_shown_does_it(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    shown = run(nodes, "member", "evict", "ap-1", code=3).stderr.splitlines()[-1]
    result = run(nodes, *shown.removeprefix("to do it: crdtstore ").split())
    assert result.stdout.splitlines()[-1] == (
        "done: configuration 4.00ff00ff, members us-1, eu-1; 1 group still to settle what counts of them"
    )
    name, path, body = nodes.posts[-1]
    assert (name, path) == ("us", "/admin/v1/members/evict")
    assert body == {"nodes": [IDS["ap"]], "configuration": "3.ab12cd34", "yes": True, "wait_ms": 10_000}


def test_an_order_goes_to_a_member_that_remains(nodes: FakeMembers) -> None:
    run(nodes, "member", "evict", "us-1", "--yes")
    assert confirmed(nodes) == [("eu", "evict")]
    result = run(nodes, "member", "evict", "eu-1", "--yes", "--url", "http://eu", code=2)
    assert "this needs the url of a member that remains: http://eu is eu-1. Nothing changed." in result.stderr


def test_who_was_removed_already_costs_nothing(nodes: FakeMembers) -> None:
    run(nodes, "member", "evict", "ap-1", "--yes")
    nodes.dead.add("ap")
    assert run(nodes, "member", "evict", "ap-1").stdout.startswith("done: configuration 4.00ff00ff, members us-1, eu-1")


def test_members_that_changed_meanwhile(nodes: FakeMembers) -> None:
    result = run(nodes, "member", "evict", "ap-1", "--configuration", "2.00000000", "--yes", code=3)
    assert result.stdout == ""
    assert result.stderr.splitlines()[1:] == [
        "the configuration is 3.ab12cd34 now, not 2.00000000; members: us-1, eu-1, ap-1",
        "look again: crdtstore member list",
    ]

    def somebody_joins() -> None:
        nodes.fails["evict"] = UsageError("the members have changed since. Nothing changed.", code="membership-changed")

    def show_it() -> None:
        nodes.pages["us"]["members"] = [*nodes.pages["us"]["members"][:2], member("sa")]
        nodes.pages["us"]["configuration"] = "5.12121212"

    nodes.script = [somebody_joins, show_it]
    result = run(nodes, "member", "evict", "ap-1", "--yes", code=3)
    assert "sa-1 joined since" in result.stderr
    assert "ap-1 left since" in result.stderr
    assert "the configuration is 5.12121212 now, not 3.ab12cd34" in result.stderr
    assert confirmed(nodes) == []


def test_too_few_are_left_to_decide(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    nodes.cut_off("eu")
    nodes.pages["us"]["quorum"]["reachable"] = False
    result = run(nodes, "member", "evict", "ap-1", "--yes", code=4)
    assert result.stderr.splitlines() == [
        "error: no-quorum: no quorum of 3 members has decided it in time.",
        "needed: more than half of 3 members; us-1 reaches us-1",
        "if the others return, do nothing and look again: crdtstore member list",
        "if they are gone for good: crdtstore member force us-1",
    ]
    result = run(nodes, "member", "force", "us-1", code=3)
    assert result.stdout.startswith("To go on with us-1 alone, of configuration 3.ab12cd34 (us-1, eu-1, ap-1):\n  - ")
    assert "to do it: crdtstore member force us-1 --configuration 3.ab12cd34 --yes" in result.stderr
    run(nodes, "member", "force", "us-1", "--yes")
    assert nodes.posts[-1][2]["survivors"] == [IDS["us"]]
    assert len(nodes.pages["us"]["members"]) == 1


def test_survivors_that_are_not_one_line(nodes: FakeMembers) -> None:
    nodes.fails["force"] = UsageError("ap-1 was not heard. Nothing changed.", code="not-one-line")
    result = run(nodes, "member", "force", "us-1", "ap-1", "--yes", code=3)
    assert result.stderr.splitlines()[-1] == "who hears whom: crdtstore doctor"


def test_an_order_whose_answer_is_lost(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    nodes.fails["evict"] = "lost"
    result = run(nodes, "member", "evict", "ap-1", "--yes", code=5)
    assert "crdtstore member list shows what became of it" in result.stderr


def test_rejoin_asks_the_node_itself(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["state"] = "removed"
    result = run(nodes, "member", "rejoin", "ap-1", code=3)
    assert "2 commits made here count nowhere" in result.stdout
    assert confirmed(nodes) == []
    assert "join --wait ap-1" in run(nodes, "member", "rejoin", "--yes", "--url", "http://ap").stdout
    assert confirmed(nodes) == [("ap", "rejoin")]
    nodes.pages["ap"]["state"] = "removed"
    run(nodes, "member", "rejoin", "--yes")  # as a node that was removed advises it
    assert confirmed(nodes)[1:] == [("ap", "rejoin")]
    nodes.pages["ap"]["state"] = nodes.pages["eu"]["state"] = "removed"
    assert "say which node: http://us is us-1, " in run(nodes, "member", "rejoin", "--yes", code=2).stderr


def test_a_node_that_no_url_leads_to(nodes: FakeMembers) -> None:
    result = run(nodes, "member", "leave", "sa-1", "--yes", code=2)
    assert "none of the urls is it: http://us is us-1, http://eu is eu-1, http://ap is ap-1." in result.stderr
    nodes.dead.add("ap")
    assert "http://ap does not answer" in run(nodes, "member", "leave", "ap-1", "--yes", code=4).stderr
    assert nodes.posts == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sa-1", "sa-1 is no member of 3.ab12cd34; the members are us-1, eu-1, ap-1, ap-1"),
        ("ap-1", "ap-1 may be any of ap-1.99ab00cd, ap-1.99abffff; say which"),
        ("99ab", "99ab may be any of"),
        ("ap-1.99", "ap-1.99 is no member"),
    ],
)
def test_names_that_mean_nobody_or_two(nodes: FakeMembers, name: str, message: str) -> None:
    second = member("ap", replica="ap-1.99abffff00000000")
    nodes.pages["us"]["members"].append(second)
    assert message in run(nodes, "member", "evict", name, "--yes", code=2).stderr
    assert nodes.posts == []
    for exact in ("ap-1.99abff", "99abff", "ap-1.99abffff00000000"):
        run(nodes, "member", "evict", exact, code=3)
        assert nodes.posts.pop()[2]["nodes"] == ["ap-1.99abffff00000000"]


def test_what_a_new_node_needs(nodes: FakeMembers) -> None:
    import tomllib  # noqa: PLC0415

    addresses = [each["gossip"] for each in nodes.pages["us"]["members"]]
    text = run(nodes, "member", "join", "sa-1", "--region", "sa").stdout
    expected = {"node": "sa-1", "region": "sa", "cluster_file": "cluster.toml", "join": addresses}
    assert tomllib.loads(text) == expected
    assert "say in which region sa-1 is: --region REGION" in run(nodes, "member", "join", "sa-1", code=2).stderr
    again = run(nodes, "member", "join", "ap-1").stdout
    assert tomllib.loads(again) == expected | {"node": "ap-1", "region": "ap", "join": addresses[:2]}
    assert "#   crdtstore member evict ap-1.99ab00cd" in again
    for each in nodes.pages["us"]["members"]:
        each["gossip"] = ""
    assert "join = []   # the founders" in run(nodes, "member", "join", "sa-1", "--region", "sa").stdout


def test_waiting_for_a_node_that_joins(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.001)
    new = member("sa", is_installed=False)
    page = nodes.pages["us"]

    def begins() -> None:
        nodes.pages["sa"] = page | {
            "node": "sa-1",
            "replica": new["replica"],
            "state": "joining",
            "why": "it reaches nobody yet",
            "configuration": "0.00000000",
            "groups": [dict(page["groups"][0])],
        }

    def admitted() -> None:
        page["members"].append(new)
        page["configuration"] = "4.44444444"
        page["groups"][0]["members"] = [*page["groups"][0]["members"], new["replica"]]

    def everywhere() -> None:
        page["groups"][1]["members"] = page["groups"][0]["members"]
        nodes.pages["sa"]["groups"][0]["installing"] = {"of": IDS["eu"], "parts": 7}

    def copied() -> None:
        nodes.pages["sa"]["groups"][0]["installing"] = None

    def done() -> None:
        new["is_installed"] = True
        nodes.pages["sa"]["state"] = "member"

    nodes.script = [lambda: None, begins, lambda: None, admitted, everywhere, copied, done]
    urls = f"{URLS},http://sa"
    lines = run(nodes, "member", "join", "--wait", "sa-1", "--url", urls).stdout.splitlines()
    assert lines[0].startswith("waiting for sa-1 to start, and to ask at one of 10.0.0.")
    assert lines[1:] == [
        "sa-1 is joining (it reaches nobody yet)",
        "sa-1 is admitted to 1 of 2 groups",
        "sa-1 gets what there is of _sys/0: 7 parts so far",
        "sa-1 is admitted to every group (2) and gets what there is",
        "sa-1 is a member of every group (2) and holds all of it: configuration 4.44444444",
    ]
    new["is_installed"] = None
    result = run(nodes, "member", "join", "--wait", "sa-1", "--timeout", "0.01", code=4)
    assert "sa-1 is admitted to every group (2) and gets what there is" in result.stderr
    result = run(nodes, "member", "join", "--wait", "mars-1", "--timeout", "0.01", code=4)
    assert "not within 0.01 s: waiting for mars-1 to start" in result.stderr


@pytest.mark.parametrize(
    "args", [["member", "list"], ["member", "status"], ["member", "evict", "ap-1", "--yes"], ["orphan", "list"]]
)
def test_nobody_there(nodes: FakeMembers, args: list[str]) -> None:
    nodes.dead |= set(nodes.pages)
    result = run(nodes, *args, code=4)
    assert result.stderr == f"error: unreachable: no answer from {URLS.replace(',', ', ')}. Nothing changed.\n"


def test_watching_goes_on_without_an_answer(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        nodes.dead |= set(nodes.pages)
        if looks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("crdtstore_client.cli_tables.asyncio.sleep", sleep)
    text = run(nodes, "member", "status", "--watch").stdout
    assert "us-1 (us) is a member of prod" in text
    assert "unreachable: no answer from http://us, http://eu, http://ap. Nothing changed." in text


def test_a_node_that_may_not_be_asked_or_is_broken(nodes: FakeMembers) -> None:
    nodes.fails["members"] = Unavailable("the log cannot be read. Nothing changed.", code="storage-failed")
    assert "storage-failed" in run(nodes, "member", "list", "--url", "http://us", code=4).stderr
