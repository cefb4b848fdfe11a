"""What replicas say to each other: messages of one group each, and the first words on a connection.

The question: what may a receiver believe? A row is atomic and names only what is durable at its sender; a frame says for every origin
in it where it starts and the chain hash there, so a gap is seen as a gap and another history under the same id is refused.

A message on the wire is ``version, flag, payload``: payload is msgpack, compressed with zstd when the flag says so (above 1 kB).
Vectors are lists in the order of ``Configuration.origins`` of the configuration that the message names; in the first words, which are said
before anybody knows the other's configuration, they are maps.
"""

from __future__ import annotations

import msgspec
import zstandard

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP, Configuration, ConfigurationId, Member
from crdtstore.errors import DecodeError, ProtocolError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROTOCOL_VERSION",
    "Accept",
    "Accepted",
    "Ack",
    "Ask",
    "Ballot",
    "Claim",
    "Configure",
    "Digest",
    "Fetch",
    "Frame",
    "Hello",
    "Message",
    "Part",
    "Prepare",
    "Promise",
    "Regroup",
    "Row",
    "Segment",
    "Standing",
    "Vote",
    "Want",
    "decode_message",
    "encode_message",
]

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 8 << 20
_COMPRESS_BYTES = 1024
_PLAIN, _ZSTD = 0, 1
_PLAIN_HEAD, _ZSTD_HEAD = bytes((PROTOCOL_VERSION, _PLAIN)), bytes((PROTOCOL_VERSION, _ZSTD))


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one member says of itself.

    Shape:   ``vector`` and ``chains`` in member order: durable commits per origin and the chain hash there.
    Units:   ``hlc``: a stamp; the member's own commits up to it are those that the vector counts.
    """

    configuration: ConfigurationId
    vector: list[int]
    hlc: int
    chains: list[bytes]
    votes: int = 0
    """How often the member promised or accepted anything when a successor of a configuration was voted on."""
    is_leaving: bool = False
    """No commit of its own will follow those that the vector counts."""


class Segment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive commits of one origin in a frame: where they start and the chain hash there."""

    origin: int
    after: int
    chain: bytes


class Frame(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Commits, in the sender's apply order; ``order[i]`` is the index in ``segments`` of commit i's origin (empty: all the first)."""

    group: str
    configuration: ConfigurationId
    segments: list[Segment]
    order: list[int]
    commits: list[bytes]


class Digest(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Anti-entropy: my row, the rows I know of others, in member order (None: none, or my own).

    ``wants_answer``: answer with yours. ``is_missing``: what you sent me since that row did not arrive in full, start again there.
    """

    group: str
    configuration: ConfigurationId
    row: Row
    others: list[Row | None]
    wants_answer: bool
    is_missing: bool = False


class Ack(msgspec.Struct, array_like=True, tag=3, gc=False):
    """My row, because it has grown by what you sent."""

    group: str
    configuration: ConfigurationId
    row: Row


class Want(msgspec.Struct, array_like=True, tag=5, gc=False):
    """I lack rights of this key (of a bounded counter), so much would do.

    Shape:   ``waits`` is the part of ``amount`` for which somebody waits here; ``seen``: how many of your commits are durable here.
    """

    group: str
    configuration: ConfigurationId
    collection: str
    key: str
    amount: int
    waits: int
    seen: int


class Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The newest row of somebody that the sender ever saw, of whatever configuration."""

    configuration: ConfigurationId
    vector: dict[str, int]
    votes: int


class Standing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where the sender of a hello stands in a group, and what it knows of the one it speaks to."""

    configuration: ConfigurationId
    vector: dict[str, tuple[int, bytes]]
    """Per origin how many of its commits are durable, and the chain hash there."""
    yours: Claim | None
    has: int
    """How many commits of the other one it has, and the chain hash there (empty: it does not know it any more)."""
    chain: bytes


class Hello(msgspec.Struct, array_like=True, tag=4, gc=False):
    """The first words on a connection, both ways.

    Shape:   ``gossip`` is where the sender can be dialed (host:port); ``process`` is drawn at each start, so that a node which reaches
             itself is told from one that speaks under its id.
    """

    protocol: int
    cluster: bytes
    replica: str
    node: str
    region: str
    groups: dict[str, Standing]
    gossip: str = ""
    process: int = 0


class Ballot(msgspec.Struct, array_like=True, frozen=True, order=True):
    """An attempt to decide which configuration follows, ordered: a round and who tries."""

    round: int
    replica: ReplicaId


class Vote(msgspec.Struct, array_like=True, frozen=True):
    """A value in a ballot."""

    ballot: Ballot
    value: Configuration


class Configure(msgspec.Struct, array_like=True, tag=6, gc=False):
    """The configuration that is in force here: who is behind adopts it, who is ahead answers with his."""

    group: str
    value: Configuration

    @property
    def configuration(self) -> ConfigurationId:
        return self.value.id


class Prepare(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Promise to take part in no ballot below this one.

    ``votes``, here and below: how often the sender has promised or accepted anything, this included.
    """

    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int


class Promise(msgspec.Struct, array_like=True, tag=8, gc=False):
    """I have promised, and this is what I accepted before; or I have not, since I promised ``higher``."""

    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int
    accepted: Vote | None
    higher: Ballot | None = None


class Accept(msgspec.Struct, array_like=True, tag=9, gc=False):
    """Accept this value."""

    group: str
    configuration: ConfigurationId
    vote: Vote
    votes: int

    @property
    def ballot(self) -> Ballot:
        return self.vote.ballot


class Accepted(msgspec.Struct, array_like=True, tag=10, gc=False):
    """I have accepted; or I have not, since I promised ``higher``."""

    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int
    higher: Ballot | None = None


class Ask(msgspec.Struct, array_like=True, tag=13, gc=False):
    """Let me join all groups; ``leaves`` is the id under which I was fenced: nobody writes under it any more."""

    member: Member
    leaves: str | None = None
    group: str = SYSTEM_GROUP


class Fetch(msgspec.Struct, array_like=True, tag=11, gc=False):
    """I join and lack the state: parts ``number`` and the next, ``count`` of them, of a snapshot that you hold for me; a count of 0: let
    it go. An empty ``snapshot`` asks for a new one.
    """

    group: str
    configuration: ConfigurationId
    snapshot: bytes
    number: int
    count: int


class Part(msgspec.Struct, array_like=True, tag=12, gc=False):
    """A part of a snapshot (``install.parts``); a ``number`` below zero says why there is none."""

    group: str
    configuration: ConfigurationId
    snapshot: bytes
    number: int
    body: bytes


Regroup = Configure | Prepare | Promise | Accept | Accepted
"""What is said about who is a member."""

Message = Frame | Digest | Ack | Want | Hello | Configure | Prepare | Promise | Accept | Accepted | Fetch | Part | Ask

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Message)
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()


def encode_message(message: Message) -> bytes:
    """The bytes of a message."""
    payload = _encoder.encode(message)
    if len(payload) > _COMPRESS_BYTES:
        packed = _compressor.compress(payload)
        if len(packed) < len(payload):
            return _ZSTD_HEAD + packed
    return _PLAIN_HEAD + payload


def decode_message(data: bytes) -> Message:
    """The message in these bytes.

    Raises:  ProtocolError for another version, DecodeError for anything malformed or larger than ``MAX_MESSAGE_BYTES``.
    """
    if len(data) < 2 or len(data) > MAX_MESSAGE_BYTES:
        raise DecodeError(f"a message has 2 to {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
    if data[0] != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {data[0]}, this node speaks {PROTOCOL_VERSION}")
    payload = data[2:]
    if data[1] == _ZSTD:
        payload = _decompress(payload)
    elif data[1] != _PLAIN:
        raise DecodeError(f"unknown flag {data[1]} of a message")
    try:
        message: Message = _decoder.decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a message: {error}") from error
    return message


def _decompress(payload: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= MAX_MESSAGE_BYTES:  # the sender always declares it; a bomb is refused before it is unpacked
            raise DecodeError(f"a compressed message must declare a size of at most {MAX_MESSAGE_BYTES} bytes")
        return _decompressor.decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        raise DecodeError(f"not a compressed message: {error}") from error
