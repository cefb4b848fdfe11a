"""Fixtures of the node's tests."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdtstore_node import writer
from crdtstore_node.node import Node
from tests.node.failing import FailingLog, FailingState
from tests.node.machines import Machine
from tests.node.running import Lines, Nodes, declare


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("crdtstore_node")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest_asyncio.fixture
async def make_nodes(tmp_path: Path) -> AsyncIterator[Callable[..., Nodes]]:
    """Makes clusters; all that runs is stopped at the end."""
    made: list[Nodes] = []

    def make(*regions: str, name: str = "", **tables: Mapping[str, Any]) -> Nodes:
        made.append(Nodes(tmp_path / name, regions or ("us",), tables))
        return made[-1]

    yield make
    for nodes in made:
        await nodes.stop_all()


@pytest_asyncio.fixture
async def shop(make_nodes: Callable[..., Nodes]) -> Node:
    """One node alone, with the domain shop and a collection of each type, named like the type."""
    node = await make_nodes().start("us")
    await declare(node, "shop", "counter", "aw_set", "lww_register", "lww_map", "event_log")
    return node


@pytest.fixture
def log() -> FailingLog:
    return FailingLog()


@pytest.fixture
def state() -> FailingState:
    return FailingState()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once, nearly."""
    monkeypatch.setattr(writer, "RETRY_S", 0.01)
    monkeypatch.setattr("crdtstore.saving._RETRY_MS", 30)
