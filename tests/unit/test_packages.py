"""Every package of the card is imported for a reason; this says where."""

from __future__ import annotations

import ast
import asyncio
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import uvloop

ROOT = Path(__file__).parents[2]
PRODUCTION = ("crdtstore", "node/crdtstore_node", "client/crdtstore_client", "simulations/crdtstore_sim")

REASONS = {
    "aiohttp": "HTTP and WebSockets, at the node and at the client",
    "msgpack": "bodies that users send as msgpack: it refuses what msgspec lets pass, a field twice",
    "sortedcontainers": "keys in order while keys come and go",
    "uvloop": "the event loop of a node",
    "obstore": "backups in object storage",
    "prometheus_client": "the text form of a node's metrics",
}
TEST_REASONS = {
    "hypothesis": "laws over the registry of types",
    "pytest_asyncio": "asynchronous tests, on the loop of a node",
}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@cache
def _places(*folders: str) -> dict[str, list[str]]:
    """Per package the files that import it."""
    places: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in _imported(path):
                places[name].append(str(path.relative_to(ROOT)))
    return places


@pytest.mark.parametrize("package", REASONS)
def test_a_package_of_the_card_is_used_in_production(package: str) -> None:
    places = [place for place in _places(*PRODUCTION)[package] if "/testing/" not in place]
    print(f"{package}: {REASONS[package]}: {', '.join(places)}")
    assert places


@pytest.mark.parametrize("package", TEST_REASONS)
def test_a_package_of_the_card_is_used_in_tests(package: str) -> None:
    places = _places("tests", "crdtstore/testing")[package]
    print(f"{package}: {TEST_REASONS[package]}: {', '.join(places)}")
    assert places


@pytest.mark.parametrize("package", TEST_REASONS)
def test_a_package_for_tests_stays_out_of_production(package: str) -> None:
    assert not [place for place in _places(*PRODUCTION)[package] if "/testing/" not in place]


async def test_asynchronous_tests_run_on_the_loop_of_a_node(loop: asyncio.AbstractEventLoop) -> None:
    assert isinstance(loop, uvloop.Loop)
    assert asyncio.get_running_loop() is loop
