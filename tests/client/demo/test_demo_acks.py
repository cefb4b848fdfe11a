"""The acknowledgement files: what is written is what is read back, each dot once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from crdtstore_client.demo.acks import Ack, AckFile, read_acks, split_dot


def test_lines_are_on_file_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "ewr.jsonl"
    with AckFile(path) as acks:
        acks.append(Ack("ewr-1.0:1", "departures", "BOS", 17, amount=1))
        assert (
            path.read_bytes() == b'{"dot":"ewr-1.0:1","collection":"departures","key":"BOS","time_ms":17,"amount":1}\n'
        )


def test_amounts_are_summed_over_all_files_and_each_dot_counts_once(tmp_path: Path) -> None:
    for region, found in {"ewr": ["ewr-1.0:1", "ewr-1.0:2"], "jfk": ["jfk-1.0:1", "jfk-1.0:1"]}.items():
        with AckFile(tmp_path / region) as acks:
            for attempt, dot in enumerate(found):
                acks.append(Ack(dot, "departures", "BOS", 1, amount=1, replayed=region == "jfk" and attempt == 1))
    with AckFile(tmp_path / "lga") as acks:
        acks.append(Ack("lga-1.0:1", "boards", "JFK", 1))
    acknowledged = read_acks(sorted(tmp_path.iterdir()))
    assert acknowledged.amounts == {"departures": {"BOS": 3}}
    assert acknowledged.writes == 4
    assert acknowledged.replayed == 1


def test_what_a_vector_does_not_cover_is_missing(tmp_path: Path) -> None:
    with AckFile(tmp_path / "acks") as acks:
        for dot in ("a.0:1", "a.0:5", "b.0:2"):
            acks.append(Ack(dot, "c", "k", 1))
    acknowledged = read_acks([tmp_path / "acks"])
    assert acknowledged.uncovered({"a.0": 5, "b.0": 2}) == 0
    assert acknowledged.uncovered({"a.0": 4, "b.0": 2}) == 1
    assert acknowledged.uncovered({"a.0": 5}) == 1
    assert acknowledged.uncovered({}) == 3


def test_one_dot_for_two_commits_is_an_error(tmp_path: Path) -> None:
    with AckFile(tmp_path / "acks") as acks:
        acks.append(Ack("a.0:1", "c", "k", 1, amount=1))
        acks.append(Ack("a.0:1", "c", "other", 1, amount=1))
    with pytest.raises(ValueError, match="a dot names one commit"):
        read_acks([tmp_path / "acks"])


def test_a_torn_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "acks").write_bytes(b'{"dot":"a.0:1","coll')
    with pytest.raises(msgspec.DecodeError):
        read_acks([tmp_path / "acks"])


def test_a_dot_is_split_at_its_last_colon() -> None:
    assert split_dot("ewr-1.0123456789abcdef:42") == ("ewr-1.0123456789abcdef", 42)
