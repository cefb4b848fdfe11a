"""``crdtstore doctor``: each kind of trouble is found once, with the command that mends it, and nothing is found when all is well."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.errors import AccessError, Unavailable, UsageError
from crdtstore_client import findings
from crdtstore_client.looking import Finding
from tests.client.fake_members import IDS, URLS, FakeMembers, keep_orphans, member


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_URL", URLS)
    monkeypatch.delenv("CRDTSTORE_AUTH", raising=False)
    monkeypatch.setattr("crdtstore_client.cli_doctor.AGAIN_SECONDS", 0.001)


def run(nodes: FakeMembers, *args: str, code: int = 1) -> Result:
    result = CliRunner().invoke(main, ["doctor", *args], obj={"transport": nodes})
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert result.stderr == ""
    return result


def test_one_line_when_all_is_well() -> None:
    result = run(FakeMembers(), code=0)
    assert result.stdout == "all is well: 3 members (us-1, eu-1, ap-1), configuration 3.ab12cd34\n"
    assert run(FakeMembers(), "--url", "http://us", code=0).stdout.endswith(
        "; not asked, for no url is theirs: eu-1, ap-1\n"
    )


def unheard(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    for group in nodes.pages["us"]["groups"]:
        group |= {"held_back_by": IDS["ap"], "held_back_bytes": 1 << 29}


def never_heard(nodes: FakeMembers) -> None:
    nodes.cut_off("ap", None)


def just_now(nodes: FakeMembers) -> None:
    nodes.cut_off("ap", 3000)


def unheard_but_answering(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    nodes.dead.clear()


def no_quorum(nodes: FakeMembers) -> None:
    nodes.cut_off("ap")
    nodes.cut_off("eu")
    nodes.pages["us"]["quorum"]["reachable"] = False


def one_without_quorum(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["quorum"] |= {"reachable": False, "reached": ["ap-1"]}


def split(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["configuration"] = "3.99ffee11"
    for name in ("us", "eu"):
        nodes.pages[name]["split"] = [{"replica": IDS["ap"], "node": "ap-1", "configuration": "3.99ffee11"}]


def split_seen_by_nobody(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["configuration"] = "3.99ffee11"


def forced_on_both_sides(nodes: FakeMembers) -> None:
    for name, gone, configuration in (
        ("us", ("eu", "ap"), "3.4879c4e3"),
        ("eu", ("us",), "2.ab12cd34"),
        ("ap", ("us",), "2.ab12cd34"),
    ):
        body = nodes.pages[name]
        out = [each for each in body["members"] if each["region"] in gone]
        body["members"] = [each for each in body["members"] if each["region"] not in gone]
        body["removed"] = [{key: each[key] for key in ("replica", "node", "region")} for each in out]
        body["configuration"] = configuration
        for group in body["groups"]:
            group["members"] = [each["replica"] for each in body["members"]]


def removed_and_deaf(nodes: FakeMembers) -> None:
    ids = [IDS["us"], IDS["eu"]]
    for name in ("us", "eu"):
        body = nodes.pages[name]
        body["removed"] = [{"replica": IDS["ap"], "node": "ap-1", "region": "ap"}]
        body |= {"members": body["members"][:2], "configuration": "4.ab12cd34"}
        for group in body["groups"]:
            group["members"] = ids


def behind(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["configuration"] = "2.00000000"


def waiting(nodes: FakeMembers) -> None:
    for name in ("us", "eu"):
        for group in nodes.pages[name]["groups"]:
            group["waits_for"] = ["sa-1.5555666677778888"]


def waiting_for_one_who_is_gone(nodes: FakeMembers) -> None:
    waiting(nodes)
    just_now(nodes)


def orphans(nodes: FakeMembers) -> None:
    keep_orphans(nodes)
    nodes.commits[IDS["ap"], "shop"][0]["applied"] = "us-1.0f3a11220f3a1122:7"
    nodes.pages["ap"]["replica"] = IDS["ap"]


def in_state(state: str, why: str | None) -> Callable[[FakeMembers], None]:
    def change(nodes: FakeMembers) -> None:
        nodes.pages["ap"] |= {"state": state, "why": why}
        nodes.pages["ap"]["groups"][0]["installing"] = {"of": IDS["us"], "parts": 12}

    return change


def joiner_elsewhere(nodes: FakeMembers) -> None:
    for name in ("us", "eu", "ap"):
        nodes.pages[name]["members"].append(member("sa", is_installed=False))


def leaver_elsewhere(nodes: FakeMembers) -> None:
    for name in ("us", "eu", "ap"):
        nodes.pages[name]["members"].append(member("sa", is_leaving=True))


def forbidden(nodes: FakeMembers) -> None:
    nodes.fails["members"] = AccessError("this credential may not look. Nothing changed.")


def older(nodes: FakeMembers) -> None:
    nodes.fails["members"] = UsageError("there is nothing at this path. Nothing changed.", code="no-such-route")


FOUND: list[tuple[Callable[[FakeMembers], None], list[tuple[str, str, str]]]] = [
    (
        unheard,
        [
            (
                "unheard",
                "ap-1 was heard last 31 s ago; no answer from http://ap; 1.0 GiB of log are kept",
                "member evict ap-1",
            )
        ],
    ),
    (never_heard, [("unheard", "ap-1 was not heard by the others since they started", "member evict ap-1")]),
    (
        just_now,
        [
            (
                "url",
                "no answer from http://ap (ap-1, by all that is known): cannot connect: Connection",
                "start the node",
            )
        ],
    ),
    (unheard_but_answering, [("unheard", "ap-1 answers here, but was heard last 31 s ago", "mend the network")]),
    (
        no_quorum,
        [
            (
                "quorum",
                "no node reaches enough members to change them (more than half of 3 members)",
                "member force us-1",
            ),
            ("unheard", "eu-1 was heard last", "start it"),
            ("unheard", "ap-1 was heard last", "start it"),
        ],
    ),
    (one_without_quorum, [("quorum", "ap-1 reaches ap-1 only", "mend the network between ap-1 and the others")]),
    (split, [("split", "ap-1 (3.99ffee11) and eu-1, us-1 (3.ab12cd34) go by lines", "crdtstore member rejoin ap-1")]),
    (
        split_seen_by_nobody,
        [("split", "ap-1 (3.99ffee11) and eu-1, us-1 (3.ab12cd34) go by lines", "crdtstore member rejoin ap-1")],
    ),
    (
        forced_on_both_sides,
        [
            (
                "split",
                "ap-1, eu-1 (2.ab12cd34) and us-1 (3.4879c4e3) go by lines",
                "such as: crdtstore member rejoin us-1",
            )
        ],
    ),
    (
        removed_and_deaf,
        [
            (
                "configuration",
                "ap-1 was removed by configuration 4.ab12cd34 of us-1, and has not heard of it",
                "mend the network",
            )
        ],
    ),
    (behind, [("configuration", "ap-1 goes by configuration 2.00000000, us-1 by 3.ab12cd34", "member status ap-1")]),
    (waiting, [("final", "how many commits of sa-1.55556666 count is not settled in 2 groups", "wait")]),
    (
        waiting_for_one_who_is_gone,
        [
            ("url", "no answer from http://ap", "start"),
            ("final", "not settled in 2 groups: ap-1 must be heard first", "see"),
        ],
    ),
    (
        orphans,
        [("orphans", "2 commits of ap-1.99ab00cd, kept at ap-1, are in no other region", "orphan show ap-1.99ab00cd")],
    ),
    (in_state("removed", None), [("removed", "ap-1 takes no writes: it was removed", "crdtstore member rejoin ap-1")]),
    (
        in_state("fenced", "twice"),
        [("fenced", "must not use its id ap-1.99ab00cd any more", "member join --wait ap-1")],
    ),
    (
        in_state("unproven", "a reboot"),
        [("unproven", "has not proven yet that it is itself, and takes no writes: a reboot", "")],
    ),
    (
        in_state("joining", None),
        [("joining", "ap-1 is joining, 12 parts of what there is have come", "join --wait ap-1")],
    ),
    (in_state("leaving", "it waits"), [("leaving", "ap-1 is leaving: it waits", "crdtstore member status ap-1")]),
    (joiner_elsewhere, [("joining", "sa-1 was admitted and does not hold all yet", "member join --wait sa-1")]),
    (leaver_elsewhere, [("leaving", "sa-1 is leaving", "member list")]),
    (
        forbidden,
        [("url", "http://us does not let you ask", "--auth-file"), ("url", "http://eu", ""), ("url", "http://ap", "")],
    ),
    (
        older,
        [
            ("url", "http://us answers, but not about members", "newer"),
            ("url", "http://eu", ""),
            ("url", "http://ap", ""),
        ],
    ),
]


@pytest.mark.parametrize(("trouble", "expected"), FOUND, ids=lambda each: getattr(each, "__name__", ""))
def test_each_kind_of_trouble(trouble: Callable[[FakeMembers], None], expected: list[tuple[str, str, str]]) -> None:
    nodes = FakeMembers()
    trouble(nodes)
    found = json.loads(run(nodes, "--json").stdout)["findings"]
    assert [each["check"] for each in found] == [check for check, _, _ in expected], found
    for each, (_, what, mend) in zip(found, expected, strict=True):
        assert what in each["what"]
        assert mend in each["mend"]


def test_every_check_finds_something_somewhere() -> None:
    assert {check for _, expected in FOUND for check, _, _ in expected} == {
        "configuration",
        "final",
        "fenced",
        "joining",
        "leaving",
        "orphans",
        "quorum",
        "removed",
        "split",
        "unheard",
        "unproven",
        "url",
    }


def test_another_kind_of_trouble_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding("disk", "the disk of us-1 is full", "make room")
    monkeypatch.setattr(findings, "CHECKS", (*findings.CHECKS, lambda _: iter([found])))
    assert run(FakeMembers()).stdout == "- the disk of us-1 is full\n    make room\n1 finding\n"


def test_commands_can_be_typed_as_they_stand() -> None:
    nodes = FakeMembers()
    nodes.cut_off("ap")
    assert run(nodes, "--url", URLS).stdout.splitlines()[1] == (
        f"    start it; if it is gone for good: crdtstore --url={URLS} member evict ap-1"
    )


def test_nobody_is_to_be_evicted_where_nothing_can_be_decided() -> None:
    nodes = FakeMembers()
    no_quorum(nodes)
    assert "evict" not in run(nodes).stdout


def test_a_url_that_is_no_members() -> None:
    assert (
        "take the url out: all members answer at the others" in run(FakeMembers(), "--url", f"{URLS},http://old").stdout
    )


def test_nobody_answers() -> None:
    nodes = FakeMembers(dead={"us", "eu", "ap"})
    body = json.loads(run(nodes, "--json").stdout)
    assert body["nodes"] == {"http://us": None, "http://eu": None, "http://ap": None}
    assert [each["check"] for each in body["findings"]] == ["url"] * 3
    assert body["summary"] == "3 findings"


def test_orphans_that_cannot_be_asked_for_hide_nothing_else() -> None:
    nodes = FakeMembers()
    behind(nodes)
    nodes.fails["orphans"] = Unavailable("the log cannot be read. Nothing changed.", code="storage-failed")
    text = run(nodes).stdout
    assert "ap-1 goes by configuration 2.00000000" in text
    assert "us-1 does not say what it keeps of ids it gave up: the log cannot be read." in text


def test_what_passes_by_itself_is_no_finding() -> None:
    nodes = FakeMembers()
    behind(nodes)
    nodes.script = [lambda: None, lambda: nodes.pages["ap"].update(configuration="3.ab12cd34")]
    assert run(nodes, code=0).stdout.startswith("all is well")
    nodes.script = [lambda: nodes.pages["ap"].update(configuration="2.00000000"), lambda: None]
    assert "ap-1 goes by configuration 2" in run(nodes).stdout


def test_nothing_is_changed_by_looking() -> None:
    nodes = FakeMembers()
    keep_orphans(nodes)
    run(nodes)
    assert nodes.posts == []
