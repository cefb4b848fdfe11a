"""Who may import whom: each contract reports when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("crdtstore", "node/crdtstore_node", "client/crdtstore_client", "simulations/crdtstore_sim")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("crdtstore/kernel.py", "import asyncio", "The core knows neither sockets nor clocks of a driver"),
        ("crdtstore/cli.py", "import crdtstore_node", "The core stands below node, client and simulator"),
        (
            "node/crdtstore_node/__init__.py",
            "import crdtstore_client",
            "Node, client and simulator do not know each other",
        ),
        ("client/crdtstore_client/__init__.py", "import crdtstore.engine", "The client needs no server"),
    ],
)
def test_a_broken_contract_is_reported(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / module
    target.write_text(target.read_text() + f"\n{line}\n")
    roots = [str(tmp_path / folder) for folder in (".", "node", "client", "simulations")]
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout
