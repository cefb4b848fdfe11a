"""Idempotency keys, and what a fenced node still answers."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.unit.regions import Regions, op, shop

ADD = op("counter", "k", "add")
READ = {"domain": "shop", "collection": "counter", "key": "k"}


@pytest.fixture
def made() -> Regions:
    return shop("us", "eu")


def keyed(made: Regions, region: str, key: str, *, amount: int = 1, principal: str = "anonymous") -> int:
    ticket = made.ask_as(
        region, principal, "commit", domain="shop", ops=[op("counter", "k", "add", amount=amount)], id=key
    )
    made.sync(region)
    return ticket


def test_a_key_counts_once_in_every_region(made: Regions) -> None:
    first = made.reply(keyed(made, "us", "order-1"))
    again = made.reply(keyed(made, "us", "order-1"))
    assert (first["replayed"], again["replayed"]) == (False, True)
    assert again["dot"] == first["dot"]
    made.settle()
    elsewhere = made.reply(keyed(made, "eu", "order-1"))
    assert (elsewhere["replayed"], elsewhere["dot"], elsewhere["values"]) == (True, first["dot"], [1])


def test_a_key_used_on_both_sides_of_a_cut_counts_once(made: Regions) -> None:
    made.reply(keyed(made, "us", "order-1"))
    made.lose()
    made.reply(keyed(made, "eu", "order-1"))
    made.lose()
    made.settle(10_000)
    for region in ("us", "eu"):
        assert made.do(region, "read", **READ)["value"] == 1


def test_a_key_with_another_body_is_refused(made: Regions) -> None:
    keyed(made, "us", "order-1")
    error = made.error(keyed(made, "us", "order-1", amount=2))
    assert (error.code, error.status) == ("key-reused", 422)
    assert made.do("us", "read", **READ)["value"] == 1


def test_a_key_belongs_to_who_asked(made: Regions) -> None:
    keyed(made, "us", "order-1", principal="alice")
    made.reply(keyed(made, "us", "order-1", principal="bob"))
    assert made.do("us", "read", **READ)["value"] == 2


def own_key(ms: int, salt: int = 0) -> str:
    """A key as clients make them: ``~`` and a UUIDv7 of this instant."""
    return "~" + str(UUID(int=ms << 80 | 7 << 76 | 2 << 62 | salt))


def test_a_key_that_the_client_made_expires_after_ten_minutes(made: Regions) -> None:
    key = own_key(made.now_ms)
    made.reply(keyed(made, "us", key))
    made.now_ms += 599_000
    made.reply(keyed(made, "us", own_key(made.now_ms - 599_999)))
    made.now_ms += 1_000
    assert made.reply(keyed(made, "us", key))["replayed"], "it is held: the answer is known"
    error = made.error(keyed(made, "us", own_key(made.now_ms - 600_000, salt=1)))
    assert (error.code, error.status) == ("key-expired", 422)
    assert made.do("us", "read", **READ)["value"] == 2


def test_a_key_of_the_future_is_refused(made: Regions) -> None:
    assert made.reply(keyed(made, "us", own_key(made.now_ms + 300_000)))["replayed"] is False
    error = made.error(keyed(made, "us", own_key(made.now_ms + 300_001)))
    assert (error.code, "check the clocks" in error.detail) == ("bad-request", True)


def test_a_key_and_an_etag(made: Regions) -> None:
    """Repeated after it succeeded, a conditional write is answered, not refused for the state that it made itself."""
    etag = made.do("us", "read", **READ)["etag"]
    fields = {"domain": "shop", "ops": [op("counter", "k", "add", if_match=etag)], "id": "once"}
    assert made.do("us", "commit", **fields)["replayed"] is False
    assert made.do("us", "commit", **fields)["replayed"] is True


# --- fenced


def test_a_fenced_node_reads_and_does_not_write(made: Regions) -> None:
    made.reply(keyed(made, "us", "order-1"))
    made.services["us"].host.groups["shop/0"].fence("somebody else writes under its id")
    error = made.refused("us", "commit", domain="shop", ops=[ADD])
    assert (error.code, error.status, error.retryable) == ("fenced", 503, True)
    assert made.do("us", "read", **READ)["value"] == 1
    assert made.reply(keyed(made, "us", "order-1"))["replayed"] is True, "what was done is still told"
    assert made.error(keyed(made, "us", "order-2")).code == "fenced"
    status = made.do("us", "status")
    assert (status["ready"], status["identity"]) == (False, "fenced")
    assert [group["fenced"] for group in status["groups"]] == [True, True], "one id is in all groups"
    assert made.services["us"].host.fenced_by == "somebody else writes under its id"


def test_a_node_whose_clock_ran_ahead_sends_keys_elsewhere(made: Regions) -> None:
    made.now_ms += 7 * 86_400_000
    made.commit("us", ADD)
    made.now_ms -= 7 * 86_400_000
    fields = {"domain": "shop", "ops": [ADD], "id": "order-1"}
    error = made.refused("us", "commit", **fields)
    assert (error.code, error.effect, error.retryable) == ("not-ready", "none", True)
    assert "ran ahead" in error.detail
    made.lose()
    assert made.do("eu", "commit", **fields)["values"] == [1]
