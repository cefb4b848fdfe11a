"""The judge: each promise can be broken, and a broken one is named with the region that broke it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from crdtstore_client.demo.acks import Acknowledged
from crdtstore_client.demo.verdict import Evidence, Holding, Promise, judge


def _with(evidence: Evidence, region: str, **changes: Any) -> Evidence:
    holding = replace(evidence.regions[region], **changes)
    return replace(evidence, regions={**evidence.regions, region: holding})


def _broken(evidence: Evidence) -> Mapping[str, tuple[str, ...]]:
    return {promise.name: promise.broken for promise in judge(evidence).promises if not promise.kept}


def _recounted(holding: Holding, kind: str, key: str, change: int) -> dict[str, dict[str, int]]:
    counters = {name: dict(keys) for name, keys in holding.counters.items()}
    counters[kind][key] = counters[kind].get(key, 0) + change
    return counters


def test_a_run_as_promised_is_ok(evidence: Evidence) -> None:
    verdict = judge(evidence)
    assert (verdict.word, verdict.broken, verdict.lost, verdict.refused, verdict.digests_equal) == (
        "ok",
        (),
        0,
        0,
        True,
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("master-data", lambda h: {"master_records": h.master_records - 1}),
        ("board", lambda h: {"board": frozenset({"2013-02-08 B6 1053"})}),
        (
            "positions",
            lambda h: {"positions": {**h.positions, "N557UW": {"from": "EWR", "to": "CLT", "at": "Mon 4 Feb 04:53"}}},
        ),
        ("positions", lambda h: {"positions": {k: v for k, v in h.positions.items() if k != "N557UW"}}),
        ("conflicts", lambda h: {"conflicts": frozenset(sorted(h.conflicts)[1:])}),
        ("cut", lambda h: {"early_markers": frozenset({"jfk"})}),
        ("heal", lambda h: {"late_markers": frozenset({"ewr"})}),
        ("refused", lambda h: {"refused": 1}),
        ("digest", lambda h: {"digest": "ffff00112233"}),
        ("digest", lambda h: {"vector": {**h.vector, "ewr-1.0": 8}}),
        ("acknowledged", lambda h: {"vector": {**h.vector, "jfk-1.0": 2}}),
        ("acknowledged", lambda h: {"counters": _recounted(h, "planes", "N557UW", -1)}),
        ("departures", lambda h: {"counters": _recounted(h, "destinations", "BOS", -1)}),
        ("counters", lambda h: {"counters": _recounted(h, "airlines", "B6", 1)}),
        ("counters", lambda h: {"counters": _recounted(h, "airlines", "nobody", 1)}),
        ("counted-once", lambda h: {"counters": _recounted(h, "airlines", "B6", 1)}),
    ],
)
def test_a_planted_fault_is_named_with_its_region(
    evidence: Evidence, name: str, changes: Callable[[Holding], dict[str, Any]]
) -> None:
    planted = _with(evidence, "lga", **changes(evidence.regions["lga"]))
    verdict = judge(planted)
    assert verdict.word == "broken"
    assert _broken(planted)[name] == ("lga",)


def test_every_promise_can_break(evidence: Evidence) -> None:
    """The list of plants above is complete: no promise is decoration."""
    mark = next(m for m in test_a_planted_fault_is_named_with_its_region.pytestmark if m.name == "parametrize")
    assert {name for name, _ in mark.args[1]} == {promise.name for promise in judge(evidence).promises}


def test_a_count_moved_from_one_key_to_another_keeps_the_sum_and_breaks_the_counters(evidence: Evidence) -> None:
    holding = evidence.regions["jfk"]
    moved = _recounted(
        replace(holding, counters=_recounted(holding, "destinations", "BOS", -1)), "destinations", "ATL", 1
    )
    broken = _broken(_with(evidence, "jfk", counters=moved))
    assert "departures" not in broken
    assert broken["counters"] == broken["acknowledged"] == broken["counted-once"] == ("jfk",)


def test_a_write_that_no_region_has_is_lost_everywhere(evidence: Evidence) -> None:
    acknowledged = Acknowledged(evidence.acknowledged.dots | {"jfk-1.0:4"}, evidence.acknowledged.amounts, 0)
    planted = replace(evidence, acknowledged=acknowledged)
    assert _broken(planted) == {"acknowledged": ("ewr", "lga", "jfk")}
    assert judge(planted).lost == 1


def test_further_conflicts_do_not_stand_in_for_the_expected_ones(evidence: Evidence) -> None:
    others = frozenset(f"N{number}" for number in range(11))
    assert _broken(_with(evidence, "ewr", conflicts=others)) == {"conflicts": ("ewr",)}


def test_three_different_digests_break_at_every_region(evidence: Evidence) -> None:
    planted = _with(_with(evidence, "lga", digest="aaaa"), "jfk", digest="bbbb")
    digest: Promise = next(p for p in judge(planted).promises if p.name == "digest")
    assert digest.broken == ("ewr", "lga", "jfk")
    assert not judge(planted).digests_equal
