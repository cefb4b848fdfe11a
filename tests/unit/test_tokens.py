"""Tokens: opaque, short, of one cluster, joined by commas."""

from __future__ import annotations

import base64
import zlib
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.errors import UsageError
from crdtstore.shards import MAX_SHARDS
from crdtstore.tokens import MAX_TOKEN_BYTES, Tokens

TOKENS = Tokens(b"0" * 16)
REPLICAS = [make_replica_id(name, at) for at, name in enumerate(("us", "eu", "ap"))]
SEEN = st.dictionaries(
    st.sampled_from(["_sys/0", "shop/0", "crm/0"]),
    st.dictionaries(st.sampled_from(REPLICAS), st.integers(1, 1 << 48), min_size=1),
)
Seen = dict[str, dict[ReplicaId, int]]


@given(SEEN)
def test_a_token_is_written_and_read(seen: Seen) -> None:
    token = TOKENS.encode(seen)
    assert TOKENS.decode(token) == seen
    assert token.isascii()
    assert "," not in token
    assert "=" not in token
    assert TOKENS.encode(TOKENS.decode(token)) == token


@given(SEEN, SEEN)
def test_several_tokens_are_their_join(left: Seen, right: Seen) -> None:
    both = TOKENS.decode(f"{TOKENS.encode(left)} , {TOKENS.encode(right)}")
    for group in {*left, *right}:
        for replica in REPLICAS:
            newest = max(left.get(group, {}).get(replica, 0), right.get(group, {}).get(replica, 0))
            assert both[group].get(replica, 0) == newest


def test_nothing_seen_is_a_token_too() -> None:
    assert TOKENS.decode("") == {}
    assert TOKENS.decode(" , ") == {}
    assert TOKENS.decode(TOKENS.encode({})) == {}
    assert TOKENS.decode(TOKENS.encode({"shop/0": {}})) == {}


@given(SEEN, st.data())
def test_an_altered_token_is_refused(seen: Seen, data: st.DataObject) -> None:
    token = TOKENS.encode(seen)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AZaz09-_.% ä"))
    altered = token[:at] + other + token[at + 1 :]
    try:
        assert TOKENS.decode(altered) == seen, "only bits that base64 does not use may differ"
    except UsageError as error:
        refused = error
    else:
        return
    assert refused.code == "foreign-token"
    assert refused.detail.endswith("Nothing changed.")


@pytest.mark.parametrize(
    "text", ["x", "AQ", "ä", "\ud800", "AQ==", base64.urlsafe_b64encode(b"\x02" + b"x" * 40).decode()]
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(UsageError, match="not made by this cluster"):
        TOKENS.decode(text)


def test_a_token_of_a_hundred_domains_is_short() -> None:
    """While a region is cut off nothing is everywhere, and the token of a session grows with the domains it touches."""
    token = TOKENS.encode({f"domain{at}/0": dict.fromkeys(REPLICAS, 100_000) for at in range(100)})
    assert len(token) <= MAX_TOKEN_BYTES


def test_a_token_of_another_cluster_is_foreign() -> None:
    token = TOKENS.encode({"shop/0": {REPLICAS[0]: 1}})
    with pytest.raises(UsageError) as caught:
        Tokens(b"1" * 16).decode(token)
    assert (caught.value.code, caught.value.status) == ("foreign-token", 422)


def test_a_header_has_a_size() -> None:
    with pytest.raises(UsageError, match="at most 4096 bytes"):
        TOKENS.decode("x" * (4 * MAX_TOKEN_BYTES + 1))


def test_a_token_of_many_regions_is_short() -> None:
    regions = {make_replica_id(f"region-{at}", at): 1_000_000 for at in range(20)}
    assert len(TOKENS.encode({"shop/0": regions})) < MAX_TOKEN_BYTES


def test_a_payload_of_another_form_is_refused() -> None:
    payload = msgspec.msgpack.encode(["shop/0", [REPLICAS[0], 1], "crm/0"])
    data = b"\x01" + TOKENS._mac(payload) + payload
    with pytest.raises(UsageError, match="not made by this cluster"):
        TOKENS.decode(base64.urlsafe_b64encode(data).rstrip(b"=").decode())


def test_a_token_of_all_shards_of_the_largest_domain_fits_into_a_header() -> None:
    draw = Random(1)
    members = [make_replica_id(f"node-{at}", at) for at in range(5)]
    seen = {f"shop/{shard}": {member: draw.randrange(1, 1 << 20) for member in members} for shard in range(MAX_SHARDS)}
    token = TOKENS.encode(seen)
    assert len(token) < 8_000
    assert TOKENS.decode(token) == seen
    for altered in (token[:-8], f"{token[:40]}{'A' if token[40] != 'A' else 'B'}{token[41:]}", f"AQ{token[2:]}"):
        with pytest.raises(UsageError):
            TOKENS.decode(altered)


def test_what_unpacks_to_more_than_a_cluster_has_is_no_token() -> None:
    payload = zlib.compress(msgspec.msgpack.encode([[], *[0] * (1 << 20)]))
    made = bytes([2]) + TOKENS._mac(payload) + payload
    with pytest.raises(UsageError):
        TOKENS.decode(base64.urlsafe_b64encode(made).rstrip(b"=").decode())
