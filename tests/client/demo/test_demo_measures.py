"""Figures of several nodes combined."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore_client.demo.measures import merge_windows, percentile_ms, total_measures


def _group(histogram: list[tuple[float | None, int]], max_ms: float | None) -> dict[str, Any]:
    return {
        "domain": "flights",
        "window_histogram": histogram,
        "window_ms": {"p50": 0, "p99": 0, "max": max_ms, "count": 0},
    }


def test_percentiles_come_from_the_sum_and_not_from_the_average() -> None:
    windows = merge_windows([_group([(10, 98), (20, 1)], 17.0), _group([(10, 0), (9000, 1)], 8612.0)])
    assert (windows.p50_ms, windows.p99_ms, windows.max_ms, windows.count) == (10, 20, 8612.0, 100)


def test_a_percentile_is_never_beyond_the_maximum() -> None:
    assert merge_windows([_group([(10, 1), (None, 1)], 12.5)]).p99_ms == 12.5


def test_no_windows_at_all() -> None:
    windows = merge_windows([_group([], None)])
    assert (windows.p50_ms, windows.p99_ms, windows.max_ms, windows.count) == (0, 0, 0, 0)


@pytest.mark.parametrize(("share", "edge"), [(0.0, 1), (0.5, 1), (0.51, 5), (1.0, 9)])
def test_a_percentile_is_the_edge_below_which_the_share_lies(share: float, edge: float) -> None:
    assert percentile_ms([(0, 0), (1, 5), (5, 4), (9, 1)], share) == edge


def test_statuses_of_a_killed_process_are_added() -> None:
    gossip = {
        "bytes_sent": 100,
        "bytes_received": 90,
        "commits_received": 10,
        "commits_received_twice": 1,
        "commit_bytes": 80,
    }
    other = {"domain": "_sys", "window_histogram": [(1, 1000)], "window_ms": {"max": 99999.0}}
    status = {"groups": [_group([(10, 5)], 9.0), other], "gossip": gossip}
    measures = total_measures([status, status], "flights")
    assert (measures.bytes_moved, measures.commit_bytes, measures.windows.count) == (200, 160, 10)
    assert measures.received_twice == pytest.approx(0.1)
    assert total_measures([], "flights").received_twice == 0.0
