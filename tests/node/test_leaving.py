"""Leaving an id: what a start finds when it was interrupted anywhere, and that nothing of the old id is lost or mixed with the new one."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage.log import SegmentedLog
from crdtstore_node.identity import (
    FILE_NAME,
    LEFT_NAME,
    LOG_NAME,
    Identity,
    RestoredFrom,
    Verdict,
    leave_identity,
    leaving,
    mark_joined,
    read_identity,
    write_identity,
)
from tests.node.machines import CLUSTER, US, Machine

CALLS = ("fsync", "mkdir", "rename", "replace", "unlink")


class Killed(BaseException):
    """The process ends here: nothing is tidied up."""


def full_directory(machine: Machine) -> Path:
    """One that ran under the founding id: three segments with commits, one without, and the files of a state store."""
    data = machine.new(size=50_000)  # a segment for each
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        (data / name).write_text(f"what {name} held")
    assert len(list((data / LOG_NAME).glob("*.log"))) == 4
    return data


def held(data: Path) -> dict[str, bytes]:
    """The files that belong to an id: those of log and state, without segments of zeros."""
    found = {
        f"{path.parent.name if path.parent.name == LOG_NAME else ''}/{path.name}": path.read_bytes()
        for folder in (data, data / LOG_NAME)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.endswith(".log") or path.name.startswith("state.sqlite")
    }
    return {name: text for name, text in found.items() if text.strip(b"\0")}


def identity_of(data: Path) -> Identity:
    identity = read_identity(data)
    assert identity is not None
    return identity


def leave(machine: Machine, data: Path, reason: str = "fenced") -> str:
    with SegmentedLog.open(data / LOG_NAME):
        return leave_identity(data, reason, machine.places)


def start(machine: Machine, data: Path) -> None:
    """The next start; under a new id its log is empty."""
    run = machine.start(data)
    assert not run.found.must_leave, run.found
    if run.replica != US.replica:
        assert run.log.position == 0
    run.go_on()
    run.commit()
    run.kill()


def test_a_directory_that_left_begins_anew_and_keeps_what_it_had(machine: Machine) -> None:
    data = full_directory(machine)
    before = held(data)
    new = leave(machine, data)
    assert new.startswith("us-1.")
    assert new != US.replica
    assert held(data / LEFT_NAME / US.replica) == before
    assert held(data) == {}
    identity = identity_of(data)
    assert (identity.format, identity.replica, identity.state, identity.leaving) == (3, new, "joining", None)
    assert identity.left is not None
    assert [(each.replica, each.reason) for each in identity.left] == [(US.replica, "fenced")]
    assert machine.check(data).verdict is Verdict.SEALED
    start(machine, data)
    assert machine.check(data).verdict is Verdict.PROVEN


def test_the_old_log_can_be_read_where_it_is(machine: Machine) -> None:
    data = full_directory(machine)
    leave(machine, data)
    with SegmentedLog.open(data / LEFT_NAME / US.replica / LOG_NAME) as log:
        assert sum(1 for _ in log.replay()) == 3


def test_it_remembers_the_ids_it_had_but_not_for_ever(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_LEFT_KEPT", 3)
    data = machine.new()
    had = [US.replica, *(leave(machine, data, "x" * 5_000) for _ in range(4))]
    left = identity_of(data).left
    assert left is not None
    assert [each.replica for each in left] == had[1:4]
    assert len(left[0].reason) == 1_000
    assert len(set(had)) == 5
    assert [path.name for path in (data / LEFT_NAME).iterdir()] == [US.replica]  # the others had nothing to keep


def test_a_restored_directory_leaves_its_state_too(machine: Machine) -> None:
    data = full_directory(machine)
    before = held(data)
    source = RestoredFrom(replica="eu-1.0000000000000002", manifest="m", taken="t", restored="r")
    write_identity(data, CLUSTER, US.replica, source)
    leave(machine, data, machine.check(data).reason)
    identity = identity_of(data)
    assert identity.restored_from is None
    assert identity.left is not None
    assert "backup of eu-1" in identity.left[0].reason
    assert held(data / LEFT_NAME / US.replica) == before


def test_who_joined_is_no_joiner_any_more(machine: Machine) -> None:
    data = machine.new()
    mark_joined(data)
    assert identity_of(data).format == 1
    new = leave(machine, data)
    for _ in range(2):
        mark_joined(data)
        assert (identity_of(data).state, identity_of(data).replica) == ("joined", new)
    assert machine.check(data).verdict is Verdict.SEALED  # its left ids say why it has none of the cluster file's


# --- interrupted


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, last: int, failure: Callable[[], BaseException]) -> Iterator[Counter]:
    """Every call to the system from the ``last`` on fails."""
    calls: Counter[str] = Counter()

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            calls[name] += 1
            if calls.total() >= last:
                raise failure()
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name))
        yield calls


def failures(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> int:
    data = full_directory(machine)
    with interrupted(monkeypatch, 10_000, Killed) as calls:
        leave(machine, data)
    assert all(calls[name] for name in CALLS), calls
    return calls.total()


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failure", [Killed, no_space])
@pytest.mark.parametrize("is_twice", [False, True])
def test_a_start_finishes_what_was_interrupted_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException], is_twice: bool
) -> None:
    steps = failures(Machine(tmp_path / "whole", monkeypatch), monkeypatch)
    assert steps > 15
    is_left = []
    for last in range(1, steps + 1):
        machine = Machine(tmp_path / str(last), monkeypatch)
        data = full_directory(machine)
        before = held(data)
        expected = Killed if failure is Killed else StorageError
        with interrupted(monkeypatch, last, failure), pytest.raises(expected):
            leave(machine, data)
        mixed = held(data) | held(data / LEFT_NAME / US.replica)
        assert mixed == before, "nothing is lost on the way"
        if is_twice and identity_of(data).leaving is not None:
            with interrupted(monkeypatch, last // 2 + 1, failure), pytest.raises((Killed, StorageError)):
                machine.start(data)
        start(machine, data)
        identity = identity_of(data)
        assert identity.leaving is None
        is_left.append(identity.replica != US.replica)
        where = data / LEFT_NAME / US.replica if is_left[-1] else data
        assert {name: text[:50_000] for name, text in held(where).items()} == {
            name: text[:50_000] for name, text in before.items()
        }
    assert is_left == sorted(is_left), "once it is decided it stays so"
    assert set(is_left) == {False, True}


def test_nothing_runs_on_what_is_being_left(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of both ids would be the worst of all: it is refused until the old one is away."""
    data = full_directory(machine)
    with interrupted(monkeypatch, 5, no_space), pytest.raises(StorageError):
        leave(machine, data)
    assert identity_of(data).leaving == US.replica
    with interrupted(monkeypatch, 1, no_space), pytest.raises(StorageError, match="No space left"):
        machine.start(data)
    assert identity_of(data).leaving == US.replica


def test_who_leaves_again_before_it_was_finished_keeps_the_ids_apart(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = full_directory(machine)
    before = held(data)
    with interrupted(monkeypatch, 6, Killed), pytest.raises(Killed):
        leave(machine, data)
    between = identity_of(data).replica
    new = leave(machine, data, "again")
    left = identity_of(data).left
    assert left is not None
    assert [(each.replica, each.reason) for each in left] == [(US.replica, "fenced"), (between, "again")]
    assert identity_of(data).replica == new
    assert held(data / LEFT_NAME / US.replica) == before


# --- durable


class Names:
    """Which directories hold names that a power cut would undo, when the identity says again that nothing is left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsynced: set[str] = set()
        self.at_the_end: set[str] = set()
        for name in ("rename", "replace", "mkdir", "unlink"):
            monkeypatch.setattr(os, name, self._naming(name, getattr(os, name)))
        real = os.fsync

        def fsync(fd: int) -> None:
            real(fd)
            self.unsynced.discard(os.readlink(f"/proc/self/fd/{fd}"))

        monkeypatch.setattr(os, "fsync", fsync)

    def _naming(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*paths: Any, **more: Any) -> Any:
            places = [Path(path) for path in paths if isinstance(path, str | Path)]
            if places[-1].name == FILE_NAME and "leaving" not in json.loads(places[0].read_text()):
                self.at_the_end = set(self.unsynced)
            real(*paths, **more)
            self.unsynced |= {str(place.parent) for place in places}

        return call


def test_all_names_are_durable_before_the_old_id_is_forgotten(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = full_directory(machine)
    names = Names(monkeypatch)
    leave(machine, data)
    assert names.at_the_end == set()
    assert names.unsynced == set()


def test_a_directory_that_is_not_synced_is_noticed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    data = full_directory(machine)
    monkeypatch.setattr(leaving, "sync_directory", lambda directory: None)
    names = Names(monkeypatch)
    leave(machine, data)
    assert names.at_the_end == {
        str(data / LEFT_NAME / US.replica / LOG_NAME),
        str(data / LEFT_NAME / US.replica),
        str(data / LOG_NAME),
    }


# --- a log on a disk of its own


@pytest.mark.parametrize("last", [1, 2, 3, 4, None])
def test_a_log_on_another_disk_is_copied(machine: Machine, monkeypatch: pytest.MonkeyPatch, last: int | None) -> None:
    data = full_directory(machine)
    before = held(data)
    real, calls = os.rename, Counter[str]()

    def rename(source: Path, target: Path) -> None:
        calls["rename"] += 1
        if calls["rename"] == last:
            raise Killed
        if source.parent.name == LOG_NAME:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        if last is None:
            leave(machine, data)
        else:
            with pytest.raises(Killed):
                leave(machine, data)
        start(machine, data)
    assert held(data / LEFT_NAME / US.replica) == before
