"""The commit: an atomic, immutable list of effects, whose bytes are made once, at its origin.

The question: what must the bytes say so that nobody ever has to make them again? Who, when, why, under which operation, after what, and
the effects; those very bytes are logged, hashed, shipped, relayed and audited, so whatever a reader does not understand survives.

Wire form, msgpack: ``[format, origin, seq, hlc, deps_increase, author, attributes, effects]``.

* ``origin`` is the full replica id in commit 1 and 0 afterwards: within a stream the origin is known.
* ``deps_increase`` is ``index, increase, ...`` against the origin's previous commit. An index is a position in the origin's own roster,
  whose entry 0 is the origin itself; a replica id in its place introduces the next position.
* ``attributes`` are ``key, value, ...`` with small integers as ascending keys (below); all are optional, unknown ones are kept.
* ``effects`` are flat triples ``kind, path, value``, so unknown kinds stay parseable.

Chain: ``c_0 = sha256(msgpack[cluster, group, replica])``, ``c_n = sha256(c_{n-1} + bytes_n)``, computed by every replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from typing import Any

import msgspec
from xxhash import xxh3_64_intdigest

from crdtstore.causal import ReplicaId, parse_replica_id
from crdtstore.clock import COUNTER_BITS
from crdtstore.errors import DecodeError
from crdtstore.leaves import ADD, DEADLINE, DROP, MARK, MAX, MIN, PUT
from crdtstore.values import ext_hook, pack

__all__ = [
    "EXPIRY",
    "FORMAT",
    "MAX_COMMIT_BYTES",
    "OPERATION",
    "REASON",
    "SCHEMA",
    "TRACE",
    "Commit",
    "chain_next",
    "chain_start",
    "decode_commit",
    "encode_commit",
    "head_of",
    "operation_id",
    "request_hash",
    "with_operation",
]

FORMAT = 1
REASON, OPERATION, EXPIRY, TRACE, SCHEMA = range(1, 6)
"""Attribute keys. OPERATION holds [id (16 bytes), request hash (64 bits)], EXPIRY an HLC stamp; the others are the user's."""

# Protocol constants: every replica refuses the same bytes, so none diverges by refusing alone (law L4).
MAX_COMMIT_BYTES = 4 << 20
MAX_PATH = 64
MAX_KIND = 255
MAX_DEPTH = 64
_SCALARS = frozenset((str, int, bytes, bool, type(None)))


class Commit(msgspec.Struct, array_like=True, gc=False):
    """A decoded commit; field order is wire order. What is empty mostly is a tuple: of those there is one empty, and none is made."""

    format: int
    origin: str | int
    seq: int
    hlc: int
    deps: tuple[str | int, ...]
    author: str
    attributes: tuple[Any, ...]
    effects: list[Any]

    def attribute(self, key: int) -> Any:
        """The value of an attribute, None when it is absent."""
        attributes = self.attributes
        for index in range(0, len(attributes), 2):
            if attributes[index] == key:
                return attributes[index + 1]
        return None

    @property
    def operation(self) -> tuple[bytes, int] | None:
        """Operation id and request hash, if the commit carries one that has the known form."""
        attempt = self.attempt
        return None if attempt is None else attempt[:2]

    @property
    def attempt(self) -> tuple[bytes, int, int] | None:
        """The same with the stamp at which the id expires."""
        attributes = self.attributes
        if len(attributes) == 4 and attributes[0] == OPERATION and attributes[2] == EXPIRY:  # most have no others
            operation, expiry = attributes[1], attributes[3]
        else:
            operation, expiry = self.attribute(OPERATION), self.attribute(EXPIRY)
        if type(operation) is not list or len(operation) != 2:
            return None
        id_, request = operation
        if type(id_) is not bytes or len(id_) != 16 or not isinstance(request, int):
            return None
        return id_, request, expiry if isinstance(expiry, int) else self.hlc


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Commit, ext_hook=ext_hook).decode


def encode_commit(commit: Commit) -> bytes:
    """The bytes of a commit; called once in its life, at its origin."""
    try:
        return _encode(commit)
    except OverflowError:  # an integer beyond 64 bits
        return pack(msgspec.structs.astuple(commit))


def decode_commit(data: bytes) -> Commit:
    """The commit in these bytes, its structure checked, its meaning not.

    Raises:  DecodeError for bytes no origin of this protocol makes; nothing changed.
    """
    if len(data) > MAX_COMMIT_BYTES:
        raise DecodeError(f"a commit of {len(data)} bytes, at most {MAX_COMMIT_BYTES} are allowed")
    try:
        commit: Commit = _decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise DecodeError(f"not a commit: {error}") from error
    seq, effects = commit.seq, commit.effects
    if commit.format != FORMAT:
        raise DecodeError(f"commit format {commit.format}, this version knows {FORMAT}")
    if seq < 1 or commit.hlc < 0:
        raise DecodeError("a commit is numbered from 1 and stamped from 0")
    if (seq == 1) != (type(commit.origin) is str):
        raise DecodeError("commit 1, and only it, carries the full replica id of its origin")
    if len(commit.attributes) % 2:
        raise DecodeError("attributes are pairs of key and value")
    if commit.deps:
        _check_deps(commit.deps)
    if len(effects) == 3:  # by far the most frequent
        _check_effect(*effects)
        return commit
    if len(effects) % 3:
        raise DecodeError("effects are triples of kind, path and value")
    for index in range(0, len(effects), 3):
        _check_effect(*effects[index : index + 3])
    return commit


class _Head(msgspec.Struct, array_like=True):
    format: int
    origin: str | int
    seq: int
    hlc: int


_head_decoder = msgspec.msgpack.Decoder(_Head)


def head_of(data: bytes) -> tuple[int, int]:
    """Number and stamp of a commit that was decoded before, when it was written.

    Raises:  DecodeError for bytes that are no commit.
    """
    try:
        head = _head_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a commit: {error}") from error
    return head.seq, head.hlc


def _check_deps(deps: tuple[str | int, ...]) -> None:
    if len(deps) % 2:
        raise DecodeError("deps are pairs of index and increase")
    for index in range(0, len(deps), 2):
        increase = deps[index + 1]
        if not isinstance(increase, int) or increase < 1:
            raise DecodeError("an increase of deps is a positive integer")
        if isinstance(deps[index], str):
            try:
                parse_replica_id(deps[index])  # type: ignore[arg-type]
            except ValueError as error:
                raise DecodeError(str(error)) from error


def _check_effect(kind: Any, path: Any, value: Any) -> None:
    if type(kind) is not int or not 0 <= kind <= MAX_KIND:
        raise DecodeError(f"an effect's kind is a number up to {MAX_KIND}")
    length = len(path) if type(path) is list else 0
    if not 0 < length <= MAX_PATH:
        raise DecodeError(f"a path is a list of 1 to {MAX_PATH} parts")
    if type(path[0]) is not str or (length > 1 and type(path[1]) is not str):
        raise DecodeError("a path begins with a collection and a key, which are text")
    if length > 2:
        _check_parts(path)
    if kind == ADD:
        if type(value) is not int:
            raise DecodeError("an amount is an integer")
    elif (kind != DROP or value is not None) and (kind != PUT or type(value) not in _SCALARS):
        _check_stored(kind, value)


def _check_parts(path: list[Any]) -> None:
    for part in path:
        if type(part) is not str and type(part) is not int and type(part) is not bytes:
            raise DecodeError("a part of a path is text, an integer or bytes")


def _check_stored(kind: int, value: Any) -> None:
    if kind in (DROP, MARK):
        if value is not None:
            raise DecodeError("a drop or mark has no value")
    elif kind in (MAX, MIN):
        if type(value) is not int and type(value) is not str:
            raise DecodeError("a greatest or least value is an integer or text")
    elif kind == DEADLINE:
        if value is not None and type(value) is not int:
            raise DecodeError("a deadline is an integer or nothing")
    else:
        _check_value(value, MAX_DEPTH)


def _check_value(value: Any, depth: int) -> None:
    """Refuse what has no canonical bytes, or what JSON cannot show: applied, it could be neither digested nor read."""
    if type(value) in _SCALARS:
        return
    if not depth:
        raise DecodeError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if type(value) is list:
        for item in value:
            _check_value(item, depth - 1)
    elif type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise DecodeError("a field of a value is named by text")
            _check_value(item, depth - 1)
    elif type(value) is not float or not isfinite(value):
        raise DecodeError(f"no value of this store: {type(value).__name__}")


def chain_start(cluster: str, group: str, replica: ReplicaId) -> bytes:
    """The hash before a replica's first commit."""
    return sha256(pack([cluster, group, replica])).digest()


def chain_next(before: bytes, data: bytes) -> bytes:
    """The hash after one more commit."""
    return sha256(before + data).digest()


def chain_all(before: bytes, commits: Sequence[bytes]) -> list[bytes]:
    """The hash after each of several commits more."""
    chains = []
    for data in commits:
        before = sha256(before + data).digest()
        chains.append(before)
    return chains


def operation_id(author: str, key: str) -> bytes:
    """The id of an operation from who asks and the idempotency key; 16 bytes, scoped to the domain by where it is stored."""
    return sha256(pack([author, key])).digest()[:16]


def request_hash(ops: list[Any]) -> int:
    """A request's operations as one number: the same key with another body is told apart by it."""
    return xxh3_64_intdigest(pack(ops))


def with_operation(attributes: list[Any], operation: tuple[bytes, int], expires_ms: int) -> list[Any]:
    """Attributes with the operation id and its expiry, keys ascending."""
    if not attributes:  # most have no others
        return [OPERATION, list(operation), EXPIRY, expires_ms << COUNTER_BITS]
    pairs = [(attributes[at], attributes[at + 1]) for at in range(0, len(attributes), 2)]
    pairs += [(OPERATION, list(operation)), (EXPIRY, expires_ms << COUNTER_BITS)]
    return [part for pair in sorted(pairs, key=lambda pair: pair[0]) for part in pair]
