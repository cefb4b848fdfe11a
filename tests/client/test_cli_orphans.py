"""``crdtstore orphan``: what was cut off is shown, and made anew when somebody says so."""

import json

import pytest

from crdtstore.errors import Unavailable
from tests.client.fake_members import IDS, FakeMembers, keep_orphans, orphan, run


def test_orphans_are_listed_and_shown(nodes: FakeMembers) -> None:
    assert run(nodes, "orphan", "list").stdout == "no id was given up by these nodes, so there are no orphans\n"
    keep_orphans(nodes)
    nodes.commits[IDS["ap"], "shop"][1] |= {"applied": f"{IDS['us']}:7", "reason": "order 981"}
    nodes.commits[IDS["ap"], "shop"][2]["changes"].append(
        {"collection": "a", "key": "\x1b", "type": "", "what": "ends"}
    )
    assert run(nodes, "orphan", "list").stdout.splitlines() == [
        "replica        kept at  left (UTC)        domain  made  final  orphans  applied  why",
        "ap-1.99ab00cd  ap-1     2026-11-20 11:00  _sys      12     12        0        0  it was removed from the cluster",
        "ap-1.99ab00cd  ap-1     2026-11-20 11:00  shop      90     87        3        1  it was removed from the cluster",
        "review: crdtstore orphan show ap-1.99ab00cd",
    ]
    result = run(nodes, "orphan", "show", "ap-1.99ab00cd", "--domain", "shop")
    assert result.stdout.splitlines() == [
        "commit   time (UTC)           by   where              what",
        "ap-1:88  2026-11-20 10:00:00  web  shop/orders/de-88  adds 88",
        'ap-1:89  2026-11-20 10:00:00  web  shop/orders/de-89  adds 89  applied as us-1.0f3a1122:7  "order 981"',
        "ap-1:90  2026-11-20 10:00:00  web  shop/orders/de-90  adds 90",
        '                                   "shop/a/\\u001b"    ends',
    ]
    assert result.stderr == "2 of 3 not applied: crdtstore orphan apply ap-1.99ab00cd\n"
    body = json.loads(run(nodes, "orphan", "show", "ap-1", "--json").stdout)
    assert [each["domain"] for each in body["orphans"]] == ["shop"] * 3
    assert "made nothing in bank" in run(nodes, "orphan", "show", "ap-1", "--domain", "bank", code=2).stderr
    assert "no node that answers keeps orphans of eu" in run(nodes, "orphan", "show", "eu-1", code=2).stderr


def test_orphans_are_made_anew_with_yes_only(nodes: FakeMembers) -> None:
    keep_orphans(nodes)
    result = run(nodes, "orphan", "apply", "ap-1", "--dot", "ap-1:88", code=3)
    assert "adds 88" in result.stdout
    assert "adds 89" not in result.stdout
    assert result.stderr.splitlines() == [
        "error: confirm-needed: writing this commit anew needs --yes. Nothing changed.",
        "to do it: crdtstore orphan apply ap-1 --dot ap-1:88 --yes",
    ]
    assert nodes.posts == []
    assert (
        "applied  ap-1.99ab00cd:88  as us-1.0f3a1122:1088"
        in run(nodes, "orphan", "apply", "ap-1", "--dot", "ap-1:88", "--yes").stdout
    )
    nodes.refuses.add(orphan(90)["data"])
    nodes.pages["ap"]["state"] = "removed"  # which takes no writes: another node makes them
    result = run(nodes, "orphan", "apply", "ap-1", "--yes", code=1)
    assert [(name, body["commits"]) for name, _, body in nodes.posts] == [
        ("ap", [orphan(88)["data"]]),
        ("us", [orphan(89)["data"], orphan(90)["data"]]),
    ]
    assert result.stdout.splitlines()[-1] == "applied  ap-1.99ab00cd:89  as us-1.0f3a1122:1089"
    assert result.stderr == "refused  ap-1.99ab00cd:90  rights of a bounded counter went with the id\n"
    nodes.commits[IDS["ap"], "shop"][2]["applied"] = "x:1"
    assert (
        run(nodes, "orphan", "apply", "ap-1", "--yes").stdout == "nothing to apply: all of these were applied before\n"
    )
    assert "there is no orphan ap-1:7 here" in run(nodes, "orphan", "apply", "ap-1", "--dot", "ap-1:7", code=2).stderr


def test_many_orphans_come_in_pages(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.admin.PAGE", 2)
    monkeypatch.setattr("crdtstore_client.admin.COMMITS_PER_REQUEST", 2)
    keep_orphans(nodes, 5)
    assert len(run(nodes, "orphan", "apply", "ap-1", "--yes").stdout.splitlines()) == 1 + 5 + 5
    assert [len(body["commits"]) for _, _, body in nodes.posts] == [2, 2, 1]


def test_all_that_were_applied_are_counted(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.admin.PAGE", 2)
    monkeypatch.setattr("crdtstore_client.cli_doctor.AGAIN_SECONDS", 0.001)
    keep_orphans(nodes, 5)
    nodes.pages["ap"]["replica"] = IDS["ap"]
    commits = nodes.commits[IDS["ap"], "shop"]
    for each in commits[:4]:
        each["applied"] = "us-1.0f3a11220f3a1122:7"
    listed = run(nodes, "orphan", "list").stdout.splitlines()
    assert listed[2].split()[4:9] == ["shop", "92", "87", "5", "4"]
    assert listed[-1].startswith("review: ")
    domains = json.loads(run(nodes, "orphan", "list", "--json").stdout)["replicas"][0]["domains"]
    assert domains["shop"] == {"final": 87, "made": 92, "orphans": 5, "applied": 4}
    assert (
        "1 commit of ap-1.99ab00cd, kept at ap-1, is in no other region and not applied"
        in run(nodes, "doctor", code=1).stdout
    )
    commits[4]["applied"] = "us-1.0f3a11220f3a1122:8"
    assert "review" not in run(nodes, "orphan", "list").stdout
    assert run(nodes, "doctor").stdout.startswith("all is well")


def test_what_is_not_known_is_no_zero(nodes: FakeMembers) -> None:
    keep_orphans(nodes)
    shop = nodes.kept["ap"][0]["domains"]["shop"]
    shop |= {"final": None, "orphans": 0}
    assert run(nodes, "orphan", "list").stdout.splitlines()[2].split()[4:9] == ["shop", "90", "?", "?", "?"]


def test_a_node_that_does_not_tell_which_were_applied(nodes: FakeMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise Unavailable("the log cannot be read. Nothing changed.", code="storage-failed")

    keep_orphans(nodes)
    monkeypatch.setattr("crdtstore_client.admin.Admin.orphan_page", refuse)
    result = run(nodes, "orphan", "list").stdout.splitlines()
    assert result[2].split()[4:9] == ["shop", "90", "87", "3", "?"]
    assert result[-1].startswith("review: ")
