"""Tokens: what a session has seen, as opaque text that any region can read.

The question: how can a reader in another region be sure to read its own writes? It hands in a token; a region that has not seen all it
names waits, or says who has. Because delivery is causal the dot of a write stands for everything its writer had seen. What all members
are known to have is left out, so a token stays short.

An entry without a replica is the number of a configuration that was known (``sessions``).

Form: base64url of ``version, MAC (16 bytes), msgpack [[replica, ...], group, [index, seq, ...], ...]``: an id is long and stands there
once, for a session may have seen many domains. Version 2 has the msgpack compressed (zlib): a list over hundreds of shards that are apart
names them all, and has to fit into a header. The MAC keeps honest programs from carrying a token into another cluster; it is no secret
and gives no right. A header may carry several, separated by commas: their join.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from crdtstore.causal import ReplicaId, join
from crdtstore.errors import UsageError

__all__ = ["MAX_TOKEN_BYTES", "Seen", "Tokens"]

MAX_TOKEN_BYTES = 4096
_VERSION, _COMPRESSED = 1, 2
_LONG_BYTES = 2_048
"""What is longer is compressed."""
_MOST_BYTES = 1 << 18
"""What it may be then; all groups that a cluster may have take less."""
_MAC_BYTES = 16
_REMEMBERED = 256
"""Tokens whose meaning is kept."""

Seen = dict[str, dict[ReplicaId, int]]
"""Per group the vector of what was seen."""

_decoder = msgspec.msgpack.Decoder(list[Any])
_encode = msgspec.msgpack.Encoder().encode


def _vector(flat: list[int], roster: list[str]) -> dict[ReplicaId, int]:
    return {ReplicaId(roster[flat[at]]): flat[at + 1] for at in range(0, len(flat), 2)}


class Tokens:
    """Makes and reads the tokens of one cluster."""

    def __init__(self, nonce: bytes) -> None:
        self.decode = lru_cache(_REMEMBERED)(self._decode_all)
        """A token comes in with a request and is needed again for its reply; what it gives is shared, not to be changed."""
        self._keyed = blake2b(b"crdtstore token", key=nonce, digest_size=_MAC_BYTES)

    def encode(self, seen: Mapping[str, Mapping[ReplicaId, int]]) -> str:
        roster = sorted({replica for vector in seen.values() for replica in vector})
        positions = {replica: at for at, replica in enumerate(roster)}
        flat: list[Any] = [roster]
        for group in sorted(seen):
            if vector := seen[group]:
                flat += (group, [part for replica in sorted(vector) for part in (positions[replica], vector[replica])])
        payload, version = _encode(flat), _VERSION
        if len(payload) > _LONG_BYTES:
            payload, version = zlib.compress(payload), _COMPRESSED
        return base64.urlsafe_b64encode(bytes([version]) + self._mac(payload) + payload).rstrip(b"=").decode()

    def _mac(self, payload: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(payload)
        return mac.digest()

    def _decode_all(self, text: str) -> Seen:
        """What a token, or several joined by commas, has seen; the empty text has seen nothing.

        Raises:  UsageError ``foreign-token``; nothing changed.
        """
        if len(text) > 4 * MAX_TOKEN_BYTES:
            raise UsageError(f"a token has at most {MAX_TOKEN_BYTES} bytes. Nothing changed.", code="foreign-token")
        seen: Seen = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            for group, vector in self._decode(part).items():
                seen[group] = join((seen.get(group, {}), vector))
        return seen

    def _decode(self, text: str) -> Seen:
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            mac, payload = data[1 : 1 + _MAC_BYTES], data[1 + _MAC_BYTES :]
            if data[0] in (_VERSION, _COMPRESSED) and hmac.compare_digest(mac, self._mac(payload)):
                if data[0] == _COMPRESSED:
                    payload = zlib.decompressobj().decompress(payload, _MOST_BYTES)
                roster, *flat = _decoder.decode(payload)
                return {flat[at]: _vector(flat[at + 1], roster) for at in range(0, len(flat), 2)}
        except (ValueError, IndexError, TypeError, binascii.Error, zlib.error):
            pass
        raise UsageError(
            "this token was not made by this cluster, or was altered on its way. Nothing changed.", code="foreign-token"
        )
