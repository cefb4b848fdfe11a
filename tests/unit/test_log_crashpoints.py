"""A process that writes and cuts the log dies at each named place, and the next one finds all that was acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage import crashpoints
from crdtstore.storage.log import SegmentedLog
from crdtstore.testing import powercut

WRITER = """
import os, sys
from crdtstore.causal import ReplicaId
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry

directory, count, position, first = sys.argv[1], *map(int, sys.argv[2:])
log = SegmentedLog.open(directory, 8192)
number, positions = first - 1, {}
for at, entries in log.replay(position):
    for entry in entries:
        found = int(entry.data.split()[0])
        positions[found] = at
        number = max(number, found)
me = ReplicaId("us-1.0123456789abcdef")
for _ in range(count):
    number += 1
    os.write(1, b"try %d\\n" % number)
    PLANT
    positions[number] = log.write([log.encode([Entry("shop/0", me, b"%d " % number * (number % 40 * 30 + 1))])])
    os.write(1, b"got %d\\n" % number)
    if number % 25 == 0:
        os.write(1, b"needed %d %d\\n" % (positions[number - 5], number - 5))
        log.cut(positions[number - 5])
print("end")
"""
LOG_POINTS = [name for name in crashpoints.NAMES if name.startswith("log-")]


def needed(directory: Path) -> tuple[int, int]:
    """From which position and number on the log is needed: the last thing that a child said before it cut."""
    said = directory.with_name("needed")
    if not said.exists():
        return 0, 1
    position, number = said.read_text().split()[1:]
    return int(position), int(number)


def run(
    directory: Path, setting: str | None, plant: str = "pass", shim: Mapping[str, str] | None = None
) -> tuple[int, int, bool]:
    """Let a child write; the last number it tried, the last one it acknowledged, and whether it came to its end."""
    variables = os.environ | (shim or {})
    variables.pop(crashpoints.VARIABLE, None)
    if setting:
        variables[crashpoints.VARIABLE] = setting
    command = [sys.executable, "-c", WRITER.replace("PLANT", plant), str(directory), "90", *map(str, needed(directory))]
    child = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    lines = child.stdout.splitlines()
    for line in lines:
        if line.startswith("needed"):
            directory.with_name("needed").write_text(line)
    is_ended = "end" in lines
    assert child.returncode == (0 if is_ended else -signal.SIGKILL), child.stderr
    tried, got = (
        max((int(line.split()[1]) for line in lines if line.startswith(word)), default=0) for word in ("try", "got")
    )
    return tried, got, is_ended


def check(directory: Path, tried: int, got: int) -> None:
    """The log holds all from what is needed on, without a gap, up to what was acknowledged, and nothing nobody tried."""
    position, first = needed(directory)
    with SegmentedLog.open(directory, 8192) as log:
        held = [
            int(entry.data.split()[0]) for at, entries in log.replay(position) for entry in entries if at >= position
        ]
    assert held == list(range(first, held[-1] + 1 if held else first))
    assert got <= (held[-1] if held else first - 1) <= tried


@pytest.mark.parametrize("point", LOG_POINTS)
def test_a_process_that_dies_here_loses_nothing_it_acknowledged(tmp_path: Path, point: str) -> None:
    """Twice in the same directory, at another passage, and then without an end."""
    directory = tmp_path / "log"
    got = 0
    for passage in (1, 2):
        tried, now, is_ended = run(directory, f"{point}:{passage}")
        assert not is_ended, f"nobody came to {point} for the {passage}. time"
        got = max(got, now)
        check(directory, tried, got)
    tried, now, is_ended = run(directory, None)
    assert is_ended
    check(directory, tried, now)


@pytest.mark.skipif(powercut.available() is not None, reason=str(powercut.available()))
@pytest.mark.parametrize("leak", [None, 5])
def test_a_power_cut_at_any_of_them_loses_nothing_either(tmp_path: Path, leak: int | None) -> None:
    """Whatever was not synced is gone with the process, or half of its sectors are, in recycled segments too."""
    directory = tmp_path / "log"
    directory.mkdir()
    got = 0
    for number, point in enumerate(LOG_POINTS):
        shim = powercut.environment(directory, leak=None if leak is None else leak + number)
        tried, now, is_ended = run(directory, f"{point}:2", shim=shim)
        assert not is_ended
        got = max(got, now)
        check(directory, tried, got)


@pytest.mark.skipif(powercut.available() is not None, reason=str(powercut.available()))
def test_without_its_sync_a_power_cut_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    shim = powercut.environment(tmp_path / "log", ignore_sync=True)
    tried, got, _ = run(tmp_path / "log", "log-write-before:30", shim=shim)
    with pytest.raises((AssertionError, StorageError)):
        check(tmp_path / "log", tried, got)


def test_one_who_acknowledges_before_he_writes_is_found_out(tmp_path: Path) -> None:
    plant = 'os.write(1, b"got %d\\n" % number)'
    tried, got, is_ended = run(tmp_path / "log", "log-write-before:7", plant)
    assert not is_ended
    with pytest.raises(AssertionError):
        check(tmp_path / "log", tried, got)


def test_one_who_cuts_before_what_he_needs_is_written_down_is_found_out(tmp_path: Path) -> None:
    plant = "log.cut(log.position)"
    tried, got, _ = run(tmp_path / "log", "log-remove-after:1", plant)
    with pytest.raises(Exception, match=r"but everything from \d+ on is needed"):
        check(tmp_path / "log", tried, got)


def test_without_the_variable_nothing_happens() -> None:
    assert crashpoints._resolve(None) is crashpoints._resolve("") is crashpoints._nothing
    assert crashpoints.reach is crashpoints._nothing
    assert crashpoints.reach("log-write-before") is None
    assert {"checkpoint-commit-before", "snapshot-rename-after", "log-recycle-after"} <= set(crashpoints.NAMES)


def test_a_place_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no place nowhere; there are log-write-before"):
        crashpoints._resolve("nowhere:3")


def test_it_dies_at_the_passage_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    monkeypatch.setattr(signal, "pause", lambda: None)
    reach = crashpoints._resolve("log-sync-before:3")
    for name in ("log-sync-before", "log-sync-after", "log-sync-before"):
        reach(name)
    assert killed == []
    reach("log-sync-before")
    assert killed == [signal.SIGKILL]
