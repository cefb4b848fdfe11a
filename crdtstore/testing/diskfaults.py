"""A disk that fails on command below one directory, for processes started with the environment given here.

The question: how can a test say "the disk is full" and later "there is space again" to a node that runs? The library of
``tests/shim/diskfaults.c`` maps a control file that this process maps too. A rule put here holds from the next call on, in every
process that has the library; its counters are read here.

    disk = DiskFaults(tmp_path / "us-1", tmp_path / "faults")
    ... start a node with disk.environment() ...
    full = disk.fail(Call.WRITE | Call.CREATE, errno.ENOSPC)
    ... writes are refused ...
    full.clear()

With ``trace`` every call that changes something is also recorded in order, see ``crdtstore.testing.disktrace``.
"""

from __future__ import annotations

import mmap
import struct
from enum import IntFlag
from functools import cache
from pathlib import Path
from typing import Self

from crdtstore.testing import shims

__all__ = ["CHANGES", "Call", "DiskFaults", "Rule", "available"]

_SOURCE = shims.SHIMS / "diskfaults.c"
_MAGIC = 0x31746C7561666B64
_HEAD = struct.Struct("<QII")
_COUNTS = struct.Struct("<16Q16Q")
_RULE = struct.Struct("<IIQQQQqiIII64s")
_SEEN_AT = 24
_RULES = 32
_RULES_AT = _HEAD.size + _COUNTS.size
_ALWAYS = (1 << 64) - 1


class Call(IntFlag):
    """Kinds of calls; joined with ``|``. fdatasync is a SYNC; an open that makes its file is CREATE, any other OPEN or OPEN_TO_WRITE."""

    WRITE = 1
    SYNC = 2
    SYNC_DIRECTORY = 4
    READ = 8
    OPEN = 16
    CREATE = 32
    TRUNCATE = 64
    RENAME = 128
    UNLINK = 256
    MKDIR = 512
    OPEN_TO_WRITE = 1024


CHANGES = Call.WRITE | Call.CREATE | Call.TRUNCATE | Call.RENAME | Call.UNLINK | Call.MKDIR | Call.OPEN_TO_WRITE
"""What a file system that is mounted read-only refuses."""


@cache
def available() -> str | None:
    """None when the library can be used here, otherwise the reason why not, in words."""
    return shims.why_not(_SOURCE)


class Rule:
    """One thing that goes wrong, until ``clear``."""

    def __init__(self, control: mmap.mmap, number: int) -> None:
        self._control = control
        self._at = _RULES_AT + number * _RULE.size

    @property
    def seen(self) -> int:
        """How many calls matched since the rule was put."""
        return int.from_bytes(self._control[self._at + _SEEN_AT : self._at + _SEEN_AT + 8], "little")

    @property
    def hits(self) -> int:
        """How many of them went wrong."""
        return int.from_bytes(self._control[self._at + _SEEN_AT + 8 : self._at + _SEEN_AT + 16], "little")

    @property
    def is_active(self) -> bool:
        return self._control[self._at] != 0

    def clear(self) -> None:
        """From the next call on it holds no more; the counters stay."""
        self._control[self._at] = 0


class DiskFaults:
    """What goes wrong below ``directory``; ``control`` is a file of its own, outside of it. Mutable."""

    def __init__(self, directory: Path, control: Path, trace: Path | None = None) -> None:
        self.directory = directory.absolute()
        self.trace_path = trace
        self._path = control.absolute()
        size = _RULES_AT + _RULES * _RULE.size
        self._path.write_bytes(_HEAD.pack(_MAGIC, 0, 0).ljust(size, b"\0"))
        with self._path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), size)
        if trace is not None:
            trace.touch()
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()

    def environment(self) -> dict[str, str]:
        """The variables to add to a child's environment."""
        variables = {
            "LD_PRELOAD": str(shims.compiled(_SOURCE)),
            "DISKFAULTS_DIR": str(self.directory),
            "DISKFAULTS_CONTROL": str(self._path),
        }
        if self.trace_path is not None:
            variables["DISKFAULTS_TRACE"] = str(self.trace_path.absolute())
        return variables

    def put(
        self,
        calls: Call,
        *,
        error: int = 0,
        first: int = 1,
        last: int = _ALWAYS,
        name: str = "*",
        keep_bytes: int = -1,
        delay_s: float = 0.0,
        stop: int = 0,
        only_growing: bool = False,
    ) -> Rule:
        """From the ``first`` to the ``last`` call from now on of these kinds, on files whose path below the directory fits ``name``.

        ``error`` is what the call fails with, 0: it does not fail. ``keep_bytes``: of a write only so many bytes arrive; without an
        error the call says so (a short write). ``delay_s`` makes it slow. ``stop``: the process is killed before (1) or after (2) the
        call. ``only_growing``: writes within their file are left alone, as on a full disk that need not allocate for them.
        """
        assert self._next < _RULES, f"a control file holds {_RULES} rules"
        at = _RULES_AT + self._next * _RULE.size
        rule = Rule(self._control, self._next)
        self._next += 1
        fields = (first, last, 0, 0, keep_bytes, error, round(delay_s * 1e6), stop, only_growing, name.encode())
        assert len(name.encode()) < 64, f"a pattern is shorter than 64 bytes, got {name}"
        _RULE.pack_into(self._control, at, 0, int(calls), *fields)
        self._control[at] = 1
        return rule

    def fail(self, calls: Call, error: int, **where: int | str | bool) -> Rule:
        """``put`` with an error."""
        return self.put(calls, error=error, **where)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Nothing goes wrong any more, and all rules may be put anew; counters of calls stay."""
        for number in range(self._next):
            Rule(self._control, number).clear()
        self._next = 0

    @property
    def ignore_sync(self) -> bool:
        """Whether a sync says yes and does nothing: the planted fault."""
        return self._control[8] != 0

    @ignore_sync.setter
    def ignore_sync(self, value: bool) -> None:
        self._control[8] = value

    def calls(self, call: Call) -> int:
        """How many calls of one kind there were since the control file was made, in all processes."""
        return self._counts()[int(call).bit_length() - 1]

    def failed(self, call: Call) -> int:
        """How many of them failed by a rule, or were cut short."""
        return self._counts()[16 + int(call).bit_length() - 1]

    def _counts(self) -> tuple[int, ...]:
        return _COUNTS.unpack_from(self._control, _HEAD.size)
