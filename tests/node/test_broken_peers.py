"""A peer with valid credentials over a real connection: what it says wrongly is refused, and the node and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import zstandard

from crdtstore.messages import MAX_MESSAGE_BYTES
from tests.node.running import Lines, Nodes, until
from tests.node.test_gossip import Impostor, pair, unaffected

NONCE = b"n" * 16


def plain(*words: Any) -> bytes:
    return b"\x01\x00" + msgpack.packb(list(words))


def packed(payload: bytes, *, says: int | None = None) -> bytes:
    """Compressed, and it may say another size than it has."""
    data = bytearray(zstandard.ZstdCompressor(level=1).compress(payload))
    if says is not None:  # the frame header: magic, descriptor with a 4 byte size, single segment
        data = bytearray(b"\x28\xb5\x2f\xfd\xa0" + says.to_bytes(4, "little")) + data[_header_bytes(data) :]
    return b"\x01\x01" + bytes(data)


def _header_bytes(data: bytearray) -> int:
    return 4 + 1 + {0: 1, 1: 2, 2: 4, 3: 8}[data[4] >> 6]


WORDS = [
    ("a bomb", packed(bytes(MAX_MESSAGE_BYTES + 1)), "declare a size"),
    ("a bomb that says it is small", packed(bytes(4 << 20), says=1_000), "not a compressed message"),
    ("half of what it says", packed(b"x" * 2_000, says=1 << 20), "not a"),
    ("half a frame", plain(1, "shop/0", [0, NONCE], [[0, 0, b""]], [], [b"x" * 500])[:300], "not a message"),
    ("deep", b"\x01\x00" + b"\x91" * 100_000 + b"\x01", "not a message"),
    ("deep in a commit", plain(1, "shop/0", [0, NONCE], [[0, 0, b"\x91" * 5_000]], [], [b"\x91" * 5_000]), None),
    ("a tag of the future", plain(99, "shop/0", [0, NONCE], "whatever"), "not a message"),
    ("no tag", plain("shop/0"), "not a message"),
    ("a configuration without a line", plain(6, "shop/0", [7, [], [["ap-1.00000000000000ff", "ap", ""]], []]), "line"),
    (
        "a vote in a round without end",
        plain(7, "_sys/0", [0, NONCE], [(1 << 64) - 1, "ap-1.0000000000000003"], 1),
        None,
    ),
    ("asks for another", plain(13, ["zz-1.00000000000000ff", "zz", ""], None, "_sys/0"), "which it is not"),
]


@pytest.mark.parametrize(("word", "said"), [each[1:] for each in WORDS], ids=[each[0] for each in WORDS])
async def test_what_is_wrong_is_refused_and_the_connection_stays(
    make_nodes: Callable[..., Nodes], lines: Lines, word: bytes, said: str | None
) -> None:
    nodes = await pair(make_nodes)
    before = nodes[0].transport.refused.get("ap-1", 0)
    assert await Impostor(nodes[0]).say(*[word] * 3) == (None, "")
    if said is not None:
        await until(lambda: nodes[0].transport.refused.get("ap-1", 0) >= before + 3)
        assert any(said in fields["reason"] for fields in lines.of("refused what a peer said"))
    await until(lambda: len(nodes[0].transport.links) == 1)
    assert nodes[0].host.fenced_by is None
    await unaffected(nodes)
