"""What is shown: fits its console, names the cut, and says what broke."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from crdtstore_client.demo.display import Display, Frame, Row
from crdtstore_client.demo.flights import REGIONS
from crdtstore_client.demo.lww import Loss
from crdtstore_client.demo.measures import Measures, Windows
from crdtstore_client.demo.report import Result, document
from crdtstore_client.demo.timeline import CUT, HEAL, WEEK_END
from crdtstore_client.demo.verdict import Evidence, judge


def _frame(minute: int) -> Frame:
    rows = {region: Row(3824, 1508, 9123.0, 0, 201 if region == "jfk" else 188) for region in REGIONS}
    return Frame(minute, CUT <= minute < HEAL, 4.0, {**rows, "lga": replace(rows["lga"], departures=None, behind=None)})


def _result(evidence: Evidence) -> Result:
    measures = Measures(Windows(20, 8600, 9200, 27000), 2_100_000, 1_900_000, 1000, 2)
    return Result(judge(evidence), measures, Loss(4908, 5175), 29212, 3, 312.5, 402.0, 44.1, None, [], 0)


def _shown(width: int, *, terminal: bool, evidence: Evidence) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    with Display(console) as display:
        display.say(" ewr  http://127.0.0.1:7401")
        for minute in range(0, WEEK_END, 120):
            display.frame(_frame(minute))
        display.result(_result(evidence))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_cut_is_shown_with_who_lacks_what(evidence: Evidence, terminal: bool) -> None:
    shown = _shown(100, terminal=terminal, evidence=evidence)
    assert "jfk CUT OFF" in shown
    assert "jfk lacks 376, the others lack 201" in shown
    assert "grows, because nothing arrives" in shown
    assert re.search(r"departures counted +3,824 +- +3,824", shown)  # lga did not answer
    assert "verdict: ok" in shown
    assert "lose 267 of 5,175 departures (model); ours lost 0" in shown


def test_the_verdict_is_whole_on_80_columns(evidence: Evidence) -> None:
    shown = _shown(80, terminal=False, evidence=evidence)
    promises = [line.split() for line in shown.splitlines() if line.startswith(" departures, sum over")]
    assert [line[-5:] for line in promises] == [["5,175", "5,175", "5,175", "5,175", "ok"]]


def test_without_a_terminal_lines_are_few_and_plain(evidence: Evidence) -> None:
    shown = _shown(100, terminal=False, evidence=evidence)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) < 50
    assert max(map(len, shown.splitlines())) <= 112


def test_the_live_table_fits_100_columns() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with Display(console) as display:
        display.frame(_frame(CUT + 600))
        display.frame(_frame(CUT + 700))
    line = next(line for line in out.getvalue().splitlines() if "replaying" in line)
    assert line.rstrip().endswith("1 day = 4 s")


def test_a_broken_promise_is_shown_where_it_broke(evidence: Evidence) -> None:
    broken = replace(evidence.regions["jfk"], board=frozenset({"2013-02-08 B6 1053"}))
    shown = _shown(140, terminal=False, evidence=replace(evidence, regions={**evidence.regions, "jfk": broken}))
    line = next(line for line in shown.splitlines() if "flights still on the board" in line)
    assert line.split()[5:10] == ["0", "0", "0", "1", "BROKEN"]
    assert "verdict: broken" in shown


def test_the_document_carries_every_promise_and_the_figures(evidence: Evidence) -> None:
    found = document(_result(evidence))
    assert found["verdict"] == "ok"
    assert (found["lost"], found["refused"], found["digests_equal"], found["broken"]) == (0, 0, True, [])
    assert found["divergence_window_ms"] == {"p50": 20, "p99": 8600, "max": 9200, "count": 27000}
    assert (found["heal_ms"], found["bytes_moved"], found["received_twice"]) == (312.5, 2_100_000, 0.002)
    departures = found["promises"]["departures"]
    assert [departures[name] for name in ("expected", *REGIONS)] == [5175] * 4
    assert found["promises"]["digest"]["ewr"] == "8c1f00112233"
    assert found["last_write_wins_model"] == {"lost": 267, "departures": 5175}
