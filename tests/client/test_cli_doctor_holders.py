"""``crdtstore doctor``: nobody is advised to let go what is nowhere else."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from tests.client.fake_members import IDS, REGIONS, URLS, FakeMembers

JOINING = "it does not hold newdom yet"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_URL", URLS)
    monkeypatch.delenv("CRDTSTORE_AUTH", raising=False)
    monkeypatch.setattr("crdtstore_client.cli_doctor.AGAIN_SECONDS", 0.001)


@pytest.fixture
def nodes() -> FakeMembers:
    """All of them know of a domain."""
    nodes = FakeMembers()
    for page in nodes.pages.values():
        page["groups"].append(page["groups"][1] | {"domain": "newdom"})
    return nodes


def split_between(nodes: FakeMembers, one: tuple[str, ...], domain: str) -> None:
    """Where lines parted, each side says so of all of the other."""
    for name in REGIONS:
        there = [each for each in REGIONS if (each in one) != (name in one)]
        nodes.pages[name]["split"] = [
            {"replica": IDS[each], "node": f"{each}-1", "configuration": "0.c1623671", "domain": domain}
            for each in there
        ]


def joins(nodes: FakeMembers, *names: str) -> None:
    for name in names:
        nodes.pages[name] |= {"state": "joining", "why": JOINING}


def mends(nodes: FakeMembers, *args: str) -> dict[str, str]:
    result = CliRunner().invoke(main, ["doctor", "--json", *args], obj={"transport": nodes})
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return {f"{each['check']} {each['what'].split()[0].rstrip(',:')}": each["mend"] for each in found}


def test_the_nodes_that_do_not_hold_the_domain_give_way(nodes: FakeMembers) -> None:
    split_between(nodes, ("us",), "newdom")
    joins(nodes, "eu", "ap")
    assert mends(nodes)["split ap-1"] == (
        "let those that do not hold it rejoin: crdtstore member rejoin ap-1; crdtstore member rejoin eu-1"
    )


def test_nobody_gives_way_where_nobody_is_known_to_hold_it(nodes: FakeMembers) -> None:
    split_between(nodes, ("us",), "newdom")
    joins(nodes, "us", "eu", "ap")
    mend = mends(nodes)
    assert "member rejoin" not in "".join(mend.values())


def test_the_side_that_holds_what_the_other_does_not_goes_on(nodes: FakeMembers) -> None:
    split_between(nodes, ("ap",), "_sys")
    nodes.pages["ap"]["configuration"] = "3.99ffee11"
    assert mends(nodes)["split ap-1"].endswith("such as: crdtstore member rejoin ap-1")
    for name in ("us", "eu"):
        nodes.pages[name]["groups"][2]["installing"] = {"of": IDS["ap"], "parts": 1}
    assert mends(nodes)["split ap-1"].endswith("such as: crdtstore member rejoin eu-1; crdtstore member rejoin us-1")
    nodes.pages["ap"]["groups"][1]["installing"] = {"of": IDS["us"], "parts": 1}
    mend = mends(nodes)["split ap-1"]
    assert "member rejoin" not in mend
    assert mend.startswith("do not let ap-1 rejoin, nor stop for good: nobody else is known to hold newdom.")


@pytest.mark.parametrize("state", ["removed", "fenced"])
def test_the_last_that_holds_a_domain_is_kept(nodes: FakeMembers, state: str) -> None:
    nodes.pages["ap"] |= {"state": state}
    assert "crdtstore member rejoin ap-1" in mends(nodes)[f"{state} ap-1"]
    joins(nodes, "us")
    assert "crdtstore member rejoin ap-1" in mends(nodes)[f"{state} ap-1"]
    nodes.pages["eu"]["groups"][2]["installing"] = {"of": IDS["ap"], "parts": 1}
    mend = mends(nodes)[f"{state} ap-1"]
    assert "member rejoin" not in mend
    assert "do not let ap-1 rejoin, nor stop for good: nobody else is known to hold newdom." in mend


def test_who_is_not_asked_is_taken_to_hold_what_it_is_a_member_of(nodes: FakeMembers) -> None:
    nodes.pages["ap"] |= {"state": "removed"}
    joins(nodes, "us")
    urls = ("--url", "http://us,http://ap")
    assert "crdtstore member rejoin ap-1" in mends(nodes, *urls)["removed ap-1"]
    for name in ("us", "ap"):
        nodes.entry(name, "eu")["is_installed"] = False
    assert "member rejoin" not in mends(nodes, *urls)["removed ap-1"]


def test_who_was_not_heard_for_long_is_not_relied_on(nodes: FakeMembers) -> None:
    nodes.pages["ap"] |= {"state": "removed"}
    joins(nodes, "us")
    nodes.cut_off("eu", 3000)
    assert "crdtstore member rejoin ap-1" in mends(nodes)["removed ap-1"]
    nodes.cut_off("eu")
    assert "member rejoin" not in mends(nodes)["removed ap-1"]


def test_what_only_a_removed_node_knows_of_goes_with_its_orphans(nodes: FakeMembers) -> None:
    nodes.pages["ap"] |= {"state": "removed"}
    for name in ("us", "eu"):
        nodes.pages[name]["groups"].pop()
    assert "crdtstore member rejoin ap-1" in mends(nodes)["removed ap-1"]
