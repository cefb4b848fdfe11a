"""Three regions of the production engine in memory, and a client at one of them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crdtstore.types import REGISTRY
from crdtstore_client import Domain, Store, connect
from tests.client.fake_members import URLS, FakeMembers
from tests.client.regions import FIELDS, Regions


@pytest.fixture
def regions() -> Regions:
    return Regions()


@pytest_asyncio.fixture
async def store(regions: Regions) -> AsyncIterator[Store]:
    async with connect("http://us", transport=regions) as store:
        shop = store.domain("shop")
        for name in REGISTRY:
            await shop.declare(name, name)
        await shop.declare("customers", "or_map", fields=FIELDS)
        await regions.settle()
        yield store


@pytest.fixture
def shop(store: Store) -> Domain:
    return store.domain("shop")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> FakeMembers:
    """Three nodes as their pages about members show them, which the environment names."""
    monkeypatch.setenv("CRDTSTORE_URL", URLS)
    monkeypatch.delenv("CRDTSTORE_AUTH", raising=False)
    return FakeMembers()
