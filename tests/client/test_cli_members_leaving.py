"""``crdtstore member leave`` and ``rejoin``: the node that is meant and no other, and how far it is."""

import pytest

from tests.client.fake_members import IDS, URLS, FakeMembers, member, run


@pytest.mark.parametrize("word", ["leave", "drain", "rejoin", "status"])
@pytest.mark.parametrize("has_url", [True, False])
def test_a_name_of_two_nodes_is_never_guessed(nodes: FakeMembers, word: str, has_url: bool) -> None:
    copy = "ap-1.86e0361c00000000"
    nodes.pages["us"]["members"].append(member("ap", replica=copy))
    urls = URLS
    if has_url:
        nodes.pages["copy"] = nodes.pages["ap"] | {"replica": copy}
        urls = f"{URLS},http://copy"
    yes = [] if word == "status" else ["--yes"]
    second = "at http://copy" if has_url else "at none of the urls"
    said = run(nodes, "member", word, "ap-1", *yes, "--url", urls, code=2).stderr
    assert f"ap-1 may be any of ap-1.99ab00cd at http://ap, ap-1.86e0361c {second}; say which. Nothing changed." in said
    assert nodes.posts == []
    if word == "status":
        return
    for name in (IDS["ap"], "ap-1.99ab", "99ab00cd"):
        run(nodes, "member", word, name, *yes, "--url", urls)
        assert {post[0] for post in nodes.posts} == {"ap"}
    nodes.posts.clear()
    run(nodes, "member", word, "ap-1.86e0", *yes, "--url", urls, code=0 if has_url else 2)
    assert {post[0] for post in nodes.posts} == ({"copy"} if has_url else set())


def test_the_price_of_leaving_tells_nodes_of_one_name_apart(nodes: FakeMembers) -> None:
    nodes.pages["ap"]["members"].append(member("ap", replica="ap-1.86e0361c00000000", connected=False))
    lines = run(nodes, "member", "leave", "ap-1.99ab", code=3).stdout.splitlines()
    assert lines[0].startswith(
        "To let ap-1.99ab00cd leave configuration 3.ab12cd34 (us-1, eu-1, ap-1.99ab00cd, ap-1.86e0361c)"
    )
    assert lines[3] == "  - ap-1.86e0361c is not connected: until it returns, or is evicted, ap-1.99ab00cd cannot go."


@pytest.mark.parametrize("word", ["leave", "drain"])
def test_a_node_leaves_by_itself(nodes: FakeMembers, word: str) -> None:
    nodes.entry("eu", "ap")["connected"] = False
    result = run(nodes, "member", word, "eu-1", code=3)
    assert result.stdout.splitlines() == [
        "To let eu-1 leave configuration 3.ab12cd34 (us-1, eu-1, ap-1):",
        "  - eu-1 takes no more writes from now on, for good; reads go on until it is stopped.",
        "  - It is removed once all that it has is in us-1, ap-1; nothing is lost. 2 of 3 remain.",
        "  - ap-1 is not connected: until it returns, or is evicted, eu-1 cannot go.",
    ]
    assert nodes.posts == []
    assert "crdtstore member list" in run(nodes, "member", word, "eu-1", "--yes").stdout.splitlines()[-1]
    assert nodes.posts == [("eu", "/admin/v1/members/leave", {"node": "eu-1"})]


def test_waiting_for_a_node_that_leaves(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.001)
    nodes.entry("us", "eu")["only_there"] = {"commits": 3}

    def copied() -> None:
        nodes.entry("us", "eu")["only_there"] = {"commits": 0}

    def removed() -> None:
        page = nodes.pages["us"]
        page["members"] = [each for each in page["members"] if each["node"] != "eu-1"]
        page["configuration"] = "4.44444444"
        page["groups"][1]["waits_for"] = [IDS["eu"]]
        for group in page["groups"]:
            group["members"] = [each["replica"] for each in page["members"]]

    def settled() -> None:
        nodes.pages["us"]["groups"][1]["waits_for"] = []

    nodes.script = [lambda: None, lambda: None, copied, removed, settled]
    lines = run(nodes, "member", "leave", "eu-1", "--yes", "--wait").stdout.splitlines()
    assert lines[3:] == [
        "eu-1 is leaving, 3 commits still there only",
        "eu-1 is leaving",
        "eu-1 is removed, and the others settle what counts of it",
        "eu-1 has left: nothing waits for it any more, and it can be stopped",
    ]


def test_waiting_with_the_url_of_the_node_only(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.001)
    page = nodes.pages["us"]
    nodes.cut_off("ap")

    def returns() -> None:
        nodes.entry("us", "ap")["connected"] = True

    def left() -> None:
        page["state"] = "removed"

    nodes.script = [lambda: None, lambda: None, returns, left]
    lines = run(nodes, "member", "leave", "--yes", "--wait", "--url", "http://us").stdout.splitlines()
    assert lines[4:] == [
        "us-1 is leaving; ap-1 is not heard, and may have to return, or to be evicted, before it can go",
        "us-1 is leaving",
        "us-1 has left, as it says itself: all it had is elsewhere, and it can be stopped",
    ]
    page["state"] = "leaving"
    page["members"] = page["members"][1:]
    assert "us-1 has left" in run(nodes, "member", "leave", "us-1", "--yes", "--wait", "--url", "http://us").stdout


def test_who_is_waited_for_is_not_said_to_come_by_itself(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.001)
    nodes.cut_off("ap")
    for urls in ("http://us,http://eu", "http://us"):
        result = run(nodes, "member", "leave", "us-1", "--yes", "--wait", "--timeout", "0.05", "--url", urls, code=4)
        assert result.stderr == (
            "error: not-ready: not within 0.05 s: us-1 is leaving; "
            "ap-1 is not heard, and may have to return, or to be evicted, before it can go.\n"
        )


def test_what_the_others_have_to_settle_is_waited_for(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.001)
    for page in nodes.pages.values():
        page["members"] = page["members"][1:]
        page["configuration"] = "4.44444444"
        page["groups"][1]["waits_for"] = [IDS["us"]]
    result = run(nodes, "member", "leave", "us-1", "--yes", "--wait", "--timeout", "0.05", code=4)
    assert "us-1 is removed, and the others settle what counts of it. It goes on by itself." in result.stderr
