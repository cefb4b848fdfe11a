"""``crdtstore status``: what may be said about all regions from what each one says."""

import io
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from crdtstore.cli import main
from crdtstore_client.cli_status import render
from crdtstore_client.convergence import assess, span
from crdtstore_client.status import Status
from tests.client.fakes import AP, EU, US, FakeCluster

IDS = {name: f"{name}-1.{number:016x}" for number, name in enumerate(("us", "eu", "ap"), 1)}


def body(region: str, vector: dict[str, int], heard: dict[str, float | None], **more: Any) -> dict[str, Any]:
    group = {
        "domain": "shop",
        "shard": 0,
        "replica": IDS[region],
        "vector": {IDS[name]: seq for name, seq in vector.items()},
        "digest": more.pop("digest", "8c1f000000000000000000000000a7e2"),
        "behind": 0,
        "lag_ms": more.pop("lag_ms", 0),
        "staleness_ms": more.pop("staleness_ms", 120),
        "unacked": more.pop("unacked", 0),
    }
    peers = [
        {"node": f"{name}-1", "region": name, "state": "streaming", "heard_ms": ms, "offset_ms": 0.25}
        for name, ms in heard.items()
    ]
    return {"node": f"{region}-1", "region": region, "cluster": "test", "ready": True, "why": None} | {
        "groups": [group],
        "peers": peers,
        **more,
    }


def cut() -> dict[str, dict[str, Any]]:
    """The table of the design: ap cut off for 31 s."""
    old = {"staleness_ms": 31_200}
    mainland = {"us": 20_000, "eu": 17_002, "ap": 11_209}
    return {
        US: body("us", mainland, {"eu": 90, "ap": 31_200}, unacked=4300, **old),
        EU: body("eu", mainland, {"us": 90, "ap": 31_200}, unacked=2904, **old),
        AP: body(
            "ap",
            {"us": 17_000, "eu": 12_798, "ap": 16_322},
            {"us": 31_200, "eu": 31_300},
            unacked=5113,
            digest="51aa0000000000000000000000000007",
            **old,
        ),
    }


def healed() -> dict[str, dict[str, Any]]:
    vector = {"us": 3, "eu": 2, "ap": 1}
    heard = {"us": 90, "eu": 90, "ap": 90}
    return {
        url: body(region, vector, {name: ms for name, ms in heard.items() if name != region})
        for url, region in ((US, "us"), (EU, "eu"), (AP, "ap"))
    }


def status(answers: dict[str, dict[str, Any]], *args: str, dead: set[str] | None = None) -> Result:
    cluster = FakeCluster(status=answers, dead=dead or set())
    return CliRunner().invoke(main, ["--url", ",".join(answers), "status", *args], obj={"transport": cluster})


def sentence(answers: dict[str, dict[str, Any] | None]) -> tuple[str, str]:
    found = assess({url: Status.of(answer) if answer else None for url, answer in answers.items()})
    return found.verdict, found.sentence


def test_the_table_of_a_cut() -> None:
    result = status(cut())
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "region  node  ready  commits  behind  lag     staleness  unacked  clock    state digest\n"
        "us      us-1  yes      48211    5113  31.2 s     31.2 s     4300  +0.2 ms  8c1f…e2\n"
        "eu      eu-1  yes      48211    5113  31.2 s     31.2 s     2904  +0.2 ms  8c1f…e2\n"
        "ap      ap-1  yes      46120    7204  31.2 s     31.2 s     5113  +0.2 ms  51aa…07"
        "       cut off from us, eu for 31 s\n"
        "diverged: ap lacks 7,204 commits of us, eu; us, eu lack 5,113 of ap. All regions take writes.\n"
    )


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_shows_every_cell(width: int) -> None:
    found = assess({url: Status.of(answer) for url, answer in cut().items()})
    written = io.StringIO()
    console = Console(width=width, highlight=False, file=written)
    console.print(render(found, console))
    text = written.getvalue()
    for cell in ("commits", "unacked", "us-1", "48211", "31.2 s", "+0.2 ms", "51aa…07"):
        assert cell in text
    assert "ap (ap-1): cut off from us, eu for 31 s" in text.splitlines()


def test_after_the_heal() -> None:
    result = status(healed())
    assert result.stdout.splitlines()[-1] == "converged: all regions hold the same 6 commits."
    document = json.loads(status(healed(), "--json").stdout)
    assert document["verdict"] == "converged"
    assert [node["region"] for node in document["nodes"]] == ["us", "eu", "ap"]


def test_a_region_that_does_not_answer_is_named_and_nothing_is_said_of_it() -> None:
    answers = healed()
    for url in (US, EU):
        answers[url]["peers"][-1]["heard_ms"] = 8000
    result = status(answers, dead={AP})
    lines = result.stdout.splitlines()
    assert lines[3].split() == [
        *["ap", "ap-1", "?", "-", "-", "-", "-", "-", "-", "-"],
        *["no", "answer;", "others", "heard", "it", "8", "s", "ago"],
    ]
    assert lines[4] == "unknown: us, eu hold the same 6 commits. No answer from ap."
    assert sentence({US: healed()[US]})[1] == "unknown: us holds 6 commits. No answer from eu, ap."
    alone = body("us", {"us": 1}, {})
    assert sentence({US: alone, EU: None}) == ("unknown", "unknown: us holds 1 commit. No answer from http://eu.")
    assert sentence({US: alone}) == ("converged", "converged: all regions hold the same 1 commit.")


def test_false_convergence_is_the_worst_alarm() -> None:
    answers = healed()
    answers[EU]["groups"][0]["digest"] = "00"
    result = status(answers)
    assert result.exit_code == 1
    assert "false convergence: us and eu have seen the same commits of shop/0 and hold other data" in result.stdout


def test_a_group_that_one_node_does_not_have_yet_counts_as_lacking() -> None:
    answers = healed()
    answers[AP]["groups"] = []
    assert sentence(dict(answers)) == (
        "diverged",
        "diverged: ap lacks 6 commits of us, eu, ap. All regions take writes.",
    )


def test_who_takes_no_writes_and_who_does_not_hear_whom() -> None:
    answers = cut()
    answers[EU] |= {"ready": False, "why": "storage-full."}
    verdict, text = sentence(dict(answers))
    assert verdict == "diverged"
    assert text.endswith("5,113 of ap. eu takes no writes: storage-full.")
    partial = healed()
    partial[US]["peers"][1]["heard_ms"] = partial[AP]["peers"][0]["heard_ms"] = 5000
    rows = assess({url: Status.of(answer) for url, answer in partial.items()}).rows
    assert [row.note for row in rows] == ["does not hear ap for 5 s", "", "does not hear us for 5 s"]


def test_two_nodes_in_one_region_are_called_by_their_names() -> None:
    answers = healed()
    answers[EU]["region"] = "us"
    for url in (US, AP):
        for peer in answers[url]["peers"]:
            if peer["node"] == "eu-1":
                peer["region"] = "us"
    answers[EU]["groups"][0]["vector"][IDS["us"]] = 1
    assert "eu-1 lacks 2 commits of us-1" in sentence(dict(answers))[1]


def test_watching_ends_with_ctrl_c() -> None:
    cluster = FakeCluster(status=healed())
    looks = 0
    inner = cluster.request

    async def request(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks > 9:  # each node says which workers there are, how it is, and who the members are
            raise KeyboardInterrupt
        return await inner(*args, **kwargs)

    cluster.request = request  # type: ignore[method-assign]
    result = CliRunner().invoke(
        main, ["--url", ",".join((US, EU, AP)), "status", "--watch"], obj={"transport": cluster}
    )
    assert "converged: all regions hold the same 6 commits." in result.stdout
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("ms", "text"), [(400, "0 s"), (6100, "6 s"), (99_000, "99 s"), (180_000, "3 min"), (7_200_000, "2 h")]
)
def test_spans(ms: float, text: str) -> None:
    assert span(ms) == text
