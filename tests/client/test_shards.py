"""Domains of several shards through the client and the command line: declared, written, listed, and cut apart with two numbers."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.shards import shard_of
from crdtstore_client import UsageError, connect
from crdtstore_client.findings import examine
from crdtstore_client.looking import Look
from crdtstore_client.members import Members
from tests.client.fake_members import page
from tests.client.regions import REGIONS, Regions

KEYS = [f"k{at}" for at in range(20)]


async def test_three_regions_with_8_shards_converge_through_a_cut() -> None:
    regions = Regions()
    stores = {name: connect(f"http://{name}", transport=regions) for name in REGIONS}
    domain = stores["us"].domain("shop")
    made = await domain.declare_domain(shards=8, owner="team")
    assert (made["shards"], made["owner"], made["description"]) == (8, "team", None)
    await domain.declare("n", "counter")
    await regions.settle()
    assert (await stores["eu"].domain("shop").declare_domain(description="stock"))["shards"] == 8
    with pytest.raises(UsageError, match="has 8 shards, not 4") as error:
        await stores["eu"].domain("shop").declare_domain(shards=4)
    assert error.value.code == "type-mismatch"
    with regions.apart():
        for at, name in enumerate(REGIONS):
            for key in KEYS:
                assert (await stores[name].domain("shop").counter("n")[key].add(10**at)).value == 10**at
    await regions.settle()
    for store in stores.values():
        found = [item async for item in store.domain("shop").counter("n").items()]
        assert found == sorted((key, 111) for key in KEYS), (
            "its own writes, and those of all others, in the order of keys"
        )
        assert await store.session(stores["ap"].token).domain("shop").counter("n")["k3"].get() == 111
    status = await stores["us"].status()
    assert sorted(group.shard for group in status.groups if group.domain == "shop") == list(range(8))
    assert sum(len(group.vector) for group in status.groups if group.domain == "shop") == 24
    for store in stores.values():
        await store.close()


async def test_a_load_goes_to_all_shards() -> None:
    regions = Regions()
    async with connect("http://us", transport=regions) as store:
        shop = store.domain("shop")
        await shop.declare_domain(shards=5)
        await shop.declare("n", "counter")
        n = shop.counter("n")
        assert await shop.load(n[f"k{at % 50}"].add(1) for at in range(200)) == 200
        assert [value async for _, value in n.items()] == [4] * 50


async def test_two_numbers_that_were_declared_apart() -> None:
    regions = Regions()
    us, eu = (connect(f"http://{name}", transport=regions) for name in ("us", "eu"))
    regions.cut = {"eu"}
    for store, shards in ((us, 4), (eu, 6)):
        await store.domain("shop").declare_domain(shards=shards)
        await store.domain("shop").declare("n", "counter")
        for key in KEYS:
            await store.domain("shop").counter("n")[key].add(shards)
        regions.later()
    regions.cut = set()
    await regions.settle()
    for store in (us, eu):
        clash, *others = [conflict async for conflict in store.domain("shop").conflicts()]
        assert (clash.collection, clash.key, clash.type, clash.also) == (None, None, "4", ("6",))
        assert not others
        for key in KEYS:
            is_one = shard_of("n", key, 4) == shard_of("n", key, 6)
            assert await store.domain("shop").counter("n")[key].get() == (10 if is_one else 4)
            assert await store.domain("shop@6").counter("n")[key].get() == (10 if is_one else 6)
        with pytest.raises(UsageError, match="a domain is named"):
            await store.domain("shop@6").counter("n")["k1"].add(1)
        await store.close()


def test_the_doctor_names_a_domain_with_two_numbers() -> None:
    body = page("us", shards=[{"domain": "crm", "serves": 4, "also": [8]}])
    others = [page(name) for name in ("eu", "ap")]
    look = Look({})
    look.__dict__["views"] = [Members.of(each) for each in (body, *others)]
    found = [finding for finding in examine(look) if finding.check == "shards"]
    assert len(found) == 1
    assert "crm was declared with 4 shards, which serve, and also with 8" in found[0].what
    assert "crdtstore list crm@8/COLLECTION" in found[0].mend


# --- the command line


def run(regions: Regions, *args: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["--url", "http://us", *args], obj={"transport": regions})
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result.stdout if code == 0 else result.stderr


def test_shards_are_declared_on_the_command_line() -> None:
    regions = Regions()
    assert run(regions, "declare", "shop", "--shards", "8") == "shop  8 shards\n"
    assert run(regions, "declare", "shop") == "shop  8 shards\n"
    assert run(regions, "declare", "crm") == "crm  1 shard\n"
    assert run(regions, "declare", "new/n", "counter", "--shards", "3") == "new/n  counter\n"
    assert json.loads(run(regions, "declare", "new", "--json"))["shards"] == 3
    assert run(regions, "declare", "shop/n", "counter") == "shop/n  counter\n"
    assert "has 8 shards, not 3" in run(regions, "declare", "shop/n", "counter", "--shards", "3", code=2)
    for wrong in (["shop", "counter"], ["shop/n"], ["shop", "--option", "grow_only=true"]):
        assert "crdtstore declare DOMAIN [--shards N]" in run(regions, "declare", *wrong, code=2)
    assert "257" in run(regions, "declare", "more", "--shards", "257", code=2)
    for key in KEYS:
        run(regions, "add", f"shop/n/{key}", "2")
    listed = json.loads(run(regions, "list", "shop/n", "--json"))
    assert [item["key"] for item in listed["items"]] == sorted(KEYS)


def test_two_numbers_are_shown_on_the_command_line() -> None:
    regions = Regions()
    regions.cut = {"eu"}
    run(regions, "declare", "shop", "--shards", "4")
    regions.later()
    result = CliRunner().invoke(
        main, ["--url", "http://eu", "declare", "shop", "--shards", "8"], obj={"transport": regions}
    )
    assert result.stdout == "shop  8 shards\n"
    regions.cut = set()
    for _ in range(200):
        regions.tick()
        regions.later()
    said = "shop   has 4 shards, was declared also with 8: read that as shop@8\n"
    assert run(regions, "conflicts", "shop") == said
