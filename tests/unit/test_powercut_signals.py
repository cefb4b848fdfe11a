"""A signal that comes while the shim works must not stop the process: event loops write to a pipe in their handlers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crdtstore.testing import powercut

pytestmark = pytest.mark.skipif(powercut.available() is not None, reason=str(powercut.available()))

SIGNALLED = """
import os, signal, sys
into = os.open(os.path.join(sys.argv[1], "file"), os.O_RDWR | os.O_CREAT)
signal.signal(signal.SIGALRM, lambda *_: None)
woken, wake = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
for number in range(60_000):
    os.pwrite(into, b"x" * 600, 0)
    if number % 10 == 0:
        os.fdatasync(into)
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""


def test_a_wake_up_from_a_signal_does_not_wait_for_the_lock(tmp_path: Path) -> None:
    """A handler of uvloop or Python writes to a pipe, in C, between any two instructions."""
    environment = os.environ | powercut.environment(tmp_path)
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
