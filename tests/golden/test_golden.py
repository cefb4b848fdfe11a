"""Golden bytes: what the first version wrote is read for ever, and commits are made of the very same bytes.

Each file under ``v<wire version>/`` is hex. It was made by the encoder here, which is the plain ``msgpack`` package and a few lines of
``struct``, told the wire form a second time from DESIGN 3; nothing of ours has a part in it. Files are only ever added: ``--rewrite``
writes those that are missing and touches no other.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import xxhash
import zstandard

from crdtstore.causal import ReplicaId
from crdtstore.commit import (
    Commit,
    chain_next,
    chain_start,
    decode_commit,
    encode_commit,
    operation_id,
    request_hash,
)
from crdtstore.configuration import Cluster, Configuration, ConfigurationId, Member, Removed
from crdtstore.engine.causality import Causality
from crdtstore.errors import DecodeError
from crdtstore.kernel import Tree
from crdtstore.messages import (
    Accept,
    Accepted,
    Ack,
    Ballot,
    Claim,
    Configure,
    Digest,
    Fetch,
    Frame,
    Hello,
    Message,
    Part,
    Prepare,
    Promise,
    Row,
    Segment,
    Standing,
    Vote,
    Want,
    decode_message,
    encode_message,
)
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record, encode_record

HERE = Path(__file__).parent
US, EU = ReplicaId("us-1.0123456789abcdef"), ReplicaId("eu-1.fedcba9876543210")
HLC = 1_767_607_200_123 << 16 | 7
NONCE = bytes(range(16))


def pack(value: Any) -> bytes:
    """Plain msgpack, maps sorted, integers beyond 64 bits as extension 1."""
    data: bytes = msgpack.packb(_plain(value), use_bin_type=True)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        size = 1
        while not -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
            size += 1
        return msgpack.ExtType(1, value.to_bytes(size, "big", signed=True))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    return value


# --- commits


def fields(
    seq: int, *effects: Any, origin: Any = 0, deps: Any = (), author: str = "x", attributes: Any = ()
) -> list[Any]:
    """A commit as it stands on the wire; effects are triples."""
    flat = [part for effect in effects for part in effect]
    return [1, origin, seq, HLC, list(deps), author, list(attributes), flat]


OPERATION = sha256(msgpack.packb(["crm", "key-1"])).digest()[:16]
ATTRIBUTES = [1, "order 981", 2, [OPERATION, 0x0123456789ABCDEF], 3, HLC + (1 << 40), 4, "trace", 5, 7]
RECORD_VALUE = {"z": [1.5, None, True, b"\x00\xff"], "a": -1, "ä": "ö"}

COMMITS: dict[str, list[Any]] = {
    "commit-first-of-a-replica": fields(1, (2, ["orders:counter", "de"], 3), origin=US, author="anonymous"),
    "commit-later": fields(4711, (2, ["orders:counter", "de"], -3), author="anonymous"),
    "commit-introduces-a-replica": fields(2, (2, ["orders:counter", "de"], 1), deps=[EU, 5], author="svc-shop"),
    "commit-names-it-by-position": fields(3, (2, ["orders:counter", "de"], 1), deps=[1, 2], author="svc-shop"),
    "commit-register": fields(5, (0, ["tier:lww_register", "c"], None), (1, ["tier:lww_register", "c"], "gold")),
    "commit-map": fields(6, (0, ["crm:lww_map", "c", "a"], None), (1, ["crm:lww_map", "c", "a"], RECORD_VALUE)),
    "commit-set": fields(
        7,
        (0, ["s:aw_set", "k", 1], None),
        (0, ["s:aw_set", "k", b"\x01"], None),
        (1, ["s:aw_set", "k", 1], None),
        (1, ["s:aw_set", "k", b"\x01"], None),
    ),
    "commit-event": fields(8, (1, ["log:event_log", "k", "e-1"], {"qty": 2})),
    "commit-delete": fields(9, (0, ["orders:counter", "de"], None)),
    "commit-large-integers": fields(
        10,
        (2, ["c:counter", "k"], 1 << 64),
        (2, ["c:counter", "l"], -(1 << 63) - 1),
        (2, ["c:counter", "m"], (1 << 64) - 1),
        (2, ["c:counter", "n"], (1 << 8191) - 1),
    ),
    "commit-attributes": fields(11, (2, ["c:counter", "k"], 1), author="crm", attributes=ATTRIBUTES),
    "commit-of-a-later-version": fields(
        12,
        (200, ["c:new_type", "k", "part", 3], ["anything"]),
        (5, ["c:rw_set", "k", "e"], None),
        (3, ["m:max_register", "k"], 5),
        (4, ["m:min_register", "k"], "a"),
        attributes=[99, {"new": [1]}],
    ),
    "commit-without-effects": fields(13),
}

# --- messages

CONFIGURATION = [0, sha256(NONCE + b"shop/0").digest()[:16]]
CHAINS = [sha256(b"us").digest(), sha256(b"eu").digest()]
ROW = [CONFIGURATION, [5, 3], HLC, CHAINS, 2, True]
ROW_BEFORE_MEMBERS = [CONFIGURATION, [5, 3], HLC, CHAINS, 0]
"""A row as it was when nobody could leave: it is read for ever."""
FIRST, LATER = pack(COMMITS["commit-first-of-a-replica"]), pack(COMMITS["commit-register"])

CONFIGURATION_ID = ConfigurationId(0, CONFIGURATION[1])  # type: ignore[arg-type]
A_ROW = Row(CONFIGURATION_ID, [5, 3], HLC, CHAINS, 2, is_leaving=True)
AN_OLD_ROW = Row(CONFIGURATION_ID, [5, 3], HLC, CHAINS)
STANDING = [CONFIGURATION, {EU: [3, CHAINS[1]], US: [5, CHAINS[0]]}, [CONFIGURATION, {US: 5}, 2], 5, CHAINS[0]]
A_STANDING = Standing(
    CONFIGURATION_ID, {US: (5, CHAINS[0]), EU: (3, CHAINS[1])}, Claim(CONFIGURATION_ID, {US: 5}, 2), 5, CHAINS[0]
)
VALUE = [1, [[0, CONFIGURATION[1]]], [[US, "us", "us:7000"]], [[[EU, "eu", ""], 3]]]
A_VALUE = Configuration(
    1, ((0, CONFIGURATION_ID.nonce),), (Member(US, "us", "us:7000"),), (Removed(Member(EU, "eu"), 3),)
)

MESSAGES: dict[str, tuple[list[Any], Message]] = {
    "frame-push": (
        [1, "shop/0", CONFIGURATION, [[0, 0, CHAINS[0]]], [], [FIRST]],
        Frame("shop/0", CONFIGURATION_ID, [Segment(0, 0, CHAINS[0])], [], [FIRST]),
    ),
    "frame-relay": (
        [1, "shop/0", CONFIGURATION, [[0, 0, CHAINS[0]], [1, 4, CHAINS[1]]], [1, 0], [LATER, FIRST]],
        Frame("shop/0", CONFIGURATION_ID, [Segment(0, 0, CHAINS[0]), Segment(1, 4, CHAINS[1])], [1, 0], [LATER, FIRST]),
    ),
    "digest-with-rows": (
        [2, "shop/0", CONFIGURATION, ROW, [None, ROW], True, False],
        Digest("shop/0", CONFIGURATION_ID, A_ROW, [None, A_ROW], wants_answer=True),
    ),
    "digest-after-a-gap": (
        [2, "_sys/0", CONFIGURATION, ROW, [None, None], True, True],
        Digest("_sys/0", CONFIGURATION_ID, A_ROW, [None, None], wants_answer=True, is_missing=True),
    ),
    "ack-of-a-member": ([3, "shop/0", CONFIGURATION, ROW], Ack("shop/0", CONFIGURATION_ID, A_ROW)),
    "want": (
        [5, "shop/0", CONFIGURATION, "stock:bounded_counter", "sku-7", 12, 3, 4711],
        Want("shop/0", CONFIGURATION_ID, "stock:bounded_counter", "sku-7", 12, 3, 4711),
    ),
    "hello-of-a-member": (
        [4, 1, NONCE, EU, "eu-1", "eu", {"_sys/0": STANDING, "shop/0": [*STANDING[:2], None, 0, b""]}, "eu:7000", 7],
        Hello(
            1, NONCE, EU, "eu-1", "eu",
            {"_sys/0": A_STANDING, "shop/0": Standing(CONFIGURATION_ID, A_STANDING.vector, None, 0, b"")}, "eu:7000", 7,
        ),
    ),
    "configure": ([6, "shop/0", VALUE], Configure("shop/0", A_VALUE)),
    "prepare": ([7, "shop/0", CONFIGURATION, [3, US], 4], Prepare("shop/0", CONFIGURATION_ID, Ballot(3, US), 4)),
    "promise": (
        [8, "shop/0", CONFIGURATION, [3, US], 4, [[2, EU], VALUE], None],
        Promise("shop/0", CONFIGURATION_ID, Ballot(3, US), 4, Vote(Ballot(2, EU), A_VALUE)),
    ),
    "promise-that-is-none": (
        [8, "shop/0", CONFIGURATION, [3, US], 4, None, [4, EU]],
        Promise("shop/0", CONFIGURATION_ID, Ballot(3, US), 4, None, Ballot(4, EU)),
    ),
    "accept": (
        [9, "shop/0", CONFIGURATION, [[3, US], VALUE], 4],
        Accept("shop/0", CONFIGURATION_ID, Vote(Ballot(3, US), A_VALUE), 4),
    ),
    "accepted": (
        [10, "shop/0", CONFIGURATION, [3, US], 5, None], Accepted("shop/0", CONFIGURATION_ID, Ballot(3, US), 5)
    ),
    "fetch": ([11, "shop/0", CONFIGURATION, NONCE, 7, 4], Fetch("shop/0", CONFIGURATION_ID, NONCE, 7, 4)),
    "part": ([12, "shop/0", CONFIGURATION, NONCE, 7, b"body"], Part("shop/0", CONFIGURATION_ID, NONCE, 7, b"body")),
}  # fmt: skip

BEFORE_MEMBERS: dict[str, tuple[list[Any], Digest | Ack]] = {
    "digest-asking": (
        [2, "shop/0", CONFIGURATION, ROW_BEFORE_MEMBERS, [None, ROW_BEFORE_MEMBERS], True, False],
        Digest("shop/0", CONFIGURATION_ID, AN_OLD_ROW, [None, AN_OLD_ROW], wants_answer=True),
    ),
    "digest-of-a-gap": (
        [2, "_sys/0", CONFIGURATION, ROW_BEFORE_MEMBERS, [None, None], True, True],
        Digest("_sys/0", CONFIGURATION_ID, AN_OLD_ROW, [None, None], wants_answer=True, is_missing=True),
    ),
    "ack": ([3, "shop/0", CONFIGURATION, ROW_BEFORE_MEMBERS], Ack("shop/0", CONFIGURATION_ID, AN_OLD_ROW)),
}
HELLO_BEFORE_MEMBERS = [
    4, 1, NONCE, EU, "eu-1", "eu",
    {
        "_sys/0": [CONFIGURATION, ROW_BEFORE_MEMBERS, None],
        "shop/0": [CONFIGURATION, ROW_BEFORE_MEMBERS, ROW_BEFORE_MEMBERS],
    },
]  # fmt: skip

# --- the log

ENTRIES = [
    Entry("_sys/0", US, FIRST),
    Entry("shop/0", US, FIRST),
    Entry("shop/0", EU, LATER),
    Entry("shop/0", US, LATER),
]
RECORD = pack([["_sys/0", US, "shop/0", EU], [0, 1, 2, 1, 2, 3], [0, 1, 2, 1], [FIRST, FIRST, LATER, LATER]])


def sealed(*fields: int, payload: bytes = b"") -> bytes:
    head = struct.pack("<4Q", *fields)
    return head + xxhash.xxh3_64(head + payload).digest() + payload


def segment() -> bytes:
    """A header and two blocks, the first of one record, the second of two."""
    one, two = pack([RECORD]), pack([RECORD, RECORD])
    header = sealed(int.from_bytes(b"crdtlog\n", "little"), 1, 1, 0)
    first = sealed(1, 0, len(one), 1, payload=one)
    return header + first + sealed(1, len(first), len(two), 2, payload=two)


def all_golden() -> dict[str, bytes]:
    """Every golden file of this wire version, as the encoder here makes it."""
    made = {name: pack(wire) for name, wire in COMMITS.items()}
    made |= {name: b"\x01\x00" + pack(wire) for name, (wire, _) in (MESSAGES | BEFORE_MEMBERS).items()}
    made["hello"] = b"\x01\x00" + pack(HELLO_BEFORE_MEMBERS)
    made["log-record"] = RECORD
    made["log-segment"] = segment()
    return made


def golden(name: str, version: int = 1) -> bytes:
    return bytes.fromhex((HERE / f"v{version}" / f"{name}.hex").read_text())


def test_files_are_only_ever_added(pytestconfig: pytest.Config) -> None:
    made = all_golden()
    if pytestconfig.getoption("--rewrite"):
        compressed = encode_message(Frame("shop/0", CONFIGURATION_ID, [Segment(0, 0, CHAINS[0])], [], [FIRST] * 30))
        for name, data in {**made, "frame-compressed": compressed}.items():
            path = HERE / "v1" / f"{name}.hex"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_text("\n".join(data.hex()[at : at + 120] for at in range(0, 2 * len(data), 120)) + "\n")
    stored = {path.stem for path in (HERE / "v1").glob("*.hex")}
    assert stored == {*made, "frame-compressed"}


@pytest.mark.parametrize("name", all_golden())
def test_the_encoder_here_makes_what_is_stored(name: str) -> None:
    assert all_golden()[name] == golden(name)


@pytest.mark.parametrize("name", COMMITS)
def test_todays_code_reads_and_makes_golden_commits(name: str) -> None:
    data = golden(name)
    commit = decode_commit(data)
    assert commit == msgspec.convert(COMMITS[name], Commit)
    assert encode_commit(commit) == data
    assert encode_commit(Commit(*COMMITS[name])) == data


@pytest.mark.parametrize("name", MESSAGES)
def test_todays_code_reads_and_makes_golden_messages(name: str) -> None:
    data = golden(name)
    assert decode_message(data) == MESSAGES[name][1]
    assert encode_message(MESSAGES[name][1]) == data


@pytest.mark.parametrize("name", BEFORE_MEMBERS)
def test_todays_code_reads_what_was_said_when_nobody_could_leave(name: str) -> None:
    assert decode_message(golden(name)) == BEFORE_MEMBERS[name][1]


def test_first_words_of_before_there_were_members_are_refused() -> None:
    """They cannot tell what their sender remembers; no version that was released says them."""
    with pytest.raises(DecodeError, match="not a message: Expected `array` of at least length 5, got 3"):
        decode_message(golden("hello"))


def test_todays_code_reads_a_golden_compressed_frame() -> None:
    data = golden("frame-compressed")
    assert data[:2] == b"\x01\x01"
    plain = pack([1, "shop/0", CONFIGURATION, [[0, 0, CHAINS[0]]], [], [FIRST] * 30])
    assert zstandard.ZstdDecompressor().decompress(data[2:]) == plain
    frame = decode_message(data)
    assert isinstance(frame, Frame)
    assert frame.commits == [FIRST] * 30


def test_todays_code_reads_and_makes_a_golden_record() -> None:
    data = golden("log-record")
    assert decode_record(data) == ENTRIES
    assert encode_record(ENTRIES) == data


def test_todays_code_reads_and_makes_a_golden_segment(tmp_path: Path) -> None:
    data = golden("log-segment")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "0000000001.log").write_bytes(data + bytes(4096))
    with SegmentedLog.open(old) as log:
        assert [entries for _, entries in log.replay()] == [ENTRIES] * 3
        assert log.torn is None
    with SegmentedLog.open(new, segment_bytes=1 << 16) as log:
        assert list(log.replay()) == []
        log.write([log.encode(ENTRIES)])
        log.write([log.encode(ENTRIES), log.encode(ENTRIES)])
    assert (new / "0000000001.log").read_bytes()[: len(data)] == data


# --- what is derived from bytes


def test_chains_are_sha256_of_what_came_before_and_the_bytes() -> None:
    start = sha256(pack(["demo", "shop/0", US])).digest()
    assert chain_start("demo", "shop/0", US) == start
    assert chain_next(start, FIRST) == sha256(start + FIRST).digest()


def test_an_operation_id_is_16_bytes_of_author_and_key() -> None:
    assert operation_id("crm", "key-1") == sha256(pack(["crm", "key-1"])).digest()[:16]
    asked = [["orders", "de", "add", {"amount": 3, "by": 1 << 70}]]
    assert request_hash(asked) == xxhash.xxh3_64_intdigest(pack(asked))


def test_a_configuration_follows_from_the_nonce_of_the_cluster() -> None:
    cluster = Cluster("demo", NONCE, (Member(US, "us"), Member(EU, "eu")))
    assert cluster.configuration("shop/0").id == CONFIGURATION_ID


def test_the_state_digest_is_a_sum_of_hashes_of_canonical_bytes() -> None:
    """Replica ids and never indexes: the same for every order of members and every version."""

    def of(*parts: Any) -> int:
        return xxhash.xxh3_128_intdigest(pack(list(parts)))

    tree = Tree([EU, US])
    causality = Causality([EU, US])
    tree.apply(1 << 48 | 1, HLC, causality.deps[1], [2, ["c:counter", "k"], 5, 1, ["r:lww_register", "k"], {"a": 1}])
    tree.apply(
        1 << 48 | 2,
        HLC,
        [0, 1],
        [2, ["c:counter", "k"], -7, 3, ["m:max_register", "k"], 9, 5, ["s:rw_set", "k", "e"], None],
    )
    expected = (
        (5 - 7) * of(["c:counter", "k"], 2, US)
        + of(["r:lww_register", "k"], 1, US, 1, {"a": 1})
        + of(["m:max_register", "k"], 3, 9)
    )
    assert tree.digest == expected % ((1 << 128) - 159)
    assert tree.share([]) == tree.digest
