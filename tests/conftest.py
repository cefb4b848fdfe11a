"""What all tests share: how Hypothesis draws, what ``--rewrite`` means, and which event loop runs the asynchronous ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping

import pytest
import pytest_asyncio
import uvloop
from hypothesis import HealthCheck, settings

# ``ci`` draws the same examples every time, so that a red run is red for everybody; ``search`` looks for new ones.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("ci", derandomize=True, database=None, max_examples=60, **_COMMON)  # type: ignore[arg-type]
settings.register_profile("search", max_examples=1_000, **_COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what happens into the scenario files instead of comparing"
    )


@pytest_asyncio.fixture
async def loop() -> asyncio.AbstractEventLoop:
    """The running loop: the one that nodes use in production."""
    return asyncio.get_running_loop()


_PLAIN_LOOP = ("test_proxy", "test_dev", "test_demo")
"""Tests of tools that run in a test's own process or a user's, never in a node."""
_BOTH_LOOPS = ("test_session_transport",)
"""Tests of what users run in loops of their own, and that depends on when a loop writes."""


@pytest.hookimpl
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asynchronous tests run on uvloop, as nodes do."""
    if item.path.stem.startswith(_PLAIN_LOOP):
        return {"asyncio": asyncio.new_event_loop}
    if item.path.stem.startswith(_BOTH_LOOPS):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """For tests that look at files of a living machine: what survives a power cut is the matter of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        yield
