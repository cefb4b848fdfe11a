"""Where backups are tested: in memory where there is room, since nothing here is about the power going, and syncs are dear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="crdtstore-test-", dir=_MEMORY) as directory:
        yield Path(directory)
