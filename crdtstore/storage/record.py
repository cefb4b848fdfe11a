"""One record: a batch of entries as bytes, the same on disk and in the simulator.

The question: what does a batch cost on the event loop? Groups and replica ids repeat in every entry, so each text is
written once and each (group, origin) pair once; an entry is then a small number and its bytes, in two flat arrays
that the msgpack library reads and writes in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.errors import DecodeError
from crdtstore.storage.protocol import Entry

__all__ = ["decode_record", "encode_record"]

_Record = tuple[list[str], list[int], list[int], list[bytes]]
"""Texts; pairs as text, text, …; per entry its pair; per entry its bytes."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def encode_record(entries: Sequence[Entry]) -> bytes:
    """The bytes of a batch.

    Cost:    one dict lookup an entry, one pass in C.
    """
    pairs: dict[tuple[str, ReplicaId], int] = {}
    of_entry = [pairs.setdefault((group, origin), len(pairs)) for group, origin, _ in entries]
    texts: dict[str, int] = {}
    of_pair = [texts.setdefault(text, len(texts)) for pair in pairs for text in pair]
    return _encode((list(texts), of_pair, of_entry, [entry[2] for entry in entries]))


def decode_record(data: bytes) -> list[Entry]:
    """The entries of a record.

    Raises:  DecodeError when these are not the bytes of a record.
    """
    try:
        texts, of_pair, of_entry, payloads = _decode(data)
        pairs = [
            (texts[group], ReplicaId(texts[origin])) for group, origin in zip(of_pair[::2], of_pair[1::2], strict=True)
        ]
        return [
            Entry(pairs[pair][0], pairs[pair][1], payload) for pair, payload in zip(of_entry, payloads, strict=True)
        ]
    except (msgspec.MsgspecError, IndexError, ValueError) as error:
        raise DecodeError(f"not a record of the commit log: {error}; nothing was taken from it") from error
