"""Frames of a session: from bytes to checked requests, from answers to bytes.

The question: how does one C call decode a frame, and nothing that HTTP refuses gets through? The decoder knows every field and its type, so
what is no request of ours fails in it: an extension, a key that is no text, a field that does not exist. What it cannot see is a field
that stands there twice; then the requests, written again, are shorter than the frame was. Whatever is not plainly good (bytes, integers
beyond 64 bits, values in values, and all that is wrong) is looked at request by request, as a body of HTTP is, and said in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct, UnsetType
from msgspec.msgpack import Decoder, Encoder

from crdtstore import requests
from crdtstore.errors import CrdtStoreError, UsageError
from crdtstore.values import pack
from crdtstore_node.api import bodies
from crdtstore_node.api.problems import check_ops, trace_id_of, unknown_fields

__all__ = ["Asked", "BadFrame", "Refused", "count_of", "decode", "encode", "frames_of"]

SPLIT_BYTES = 1 << 20
"""Replies of a turn are one frame, unless it would be longer than this."""

_Number = Annotated[int, Meta(ge=0)]
_Scalar = str | int | float | bool | None
_Flat = _Scalar | list[_Scalar] | dict[str, _Scalar]


class BadFrame(Exception):
    """A frame after which nothing on this connection can be relied on; ``code`` is the WebSocket's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Refused(NamedTuple):
    """A request that is wrong by itself."""

    n: int
    error: CrdtStoreError
    traceparent: str | None = None


class _Numbered(Struct):
    """What is needed to answer anything at all."""

    n: _Number
    traceparent: Any = None
    do: Any = None


# --- requests with the number and the trace of a session; those below with types so narrow that nothing has to be looked at again


class _Commit(requests.CommitRequest, kw_only=True):
    do: ClassVar[str] = "commit"
    n: _Number
    traceparent: str | None = None

    def check(self) -> None:
        super().check()
        if self.traceparent is not None:
            self.trace_id = trace_id_of(self.traceparent)


class _Read(requests.ReadRequest, kw_only=True):
    do: ClassVar[str] = "read"
    n: _Number
    traceparent: str | None = None


class _List(requests.ListRequest, kw_only=True):
    do: ClassVar[str] = "list"
    n: _Number
    traceparent: str | None = None


class _Members(requests.MembersRequest, kw_only=True):
    do: ClassVar[str] = "members"
    n: _Number
    traceparent: str | None = None


class _Explain(requests.ExplainRequest, kw_only=True):
    do: ClassVar[str] = "explain"
    n: _Number
    traceparent: str | None = None


class _Conflicts(requests.ConflictsRequest, kw_only=True):
    do: ClassVar[str] = "conflicts"
    n: _Number
    traceparent: str | None = None


class _Domain(requests.DomainRequest, kw_only=True):
    do: ClassVar[str] = "domain"
    n: _Number
    traceparent: str | None = None


class _Collection(requests.CollectionRequest, kw_only=True):
    do: ClassVar[str] = "collection"
    n: _Number
    traceparent: str | None = None


class _DeclareDomain(requests.DeclareDomainRequest, kw_only=True):
    do: ClassVar[str] = "declare_domain"
    n: _Number
    traceparent: str | None = None


class _Declare(requests.DeclareRequest, kw_only=True):
    do: ClassVar[str] = "declare"
    n: _Number
    traceparent: str | None = None


class _Status(requests.StatusRequest, kw_only=True):
    do: ClassVar[str] = "status"
    n: _Number
    traceparent: str | None = None


class _FlatCommit(_Commit, kw_only=True, omit_defaults=True, gc=False, tag_field="do", tag="commit"):
    ops: list[dict[str, _Flat]]
    trace_id: None = None

    def check(self) -> None:
        own = self.id
        if not (
            self.domain in _known
            and self.wait_ms >= 0
            and 0 < len(self.ops) <= requests.MAX_OPS
            and self.regions == 0
            and self.reason is None
            and self.traceparent is None
            and (own is None or (0 < len(own) <= 128 and own.isascii()))
        ):
            super().check()
            _remember(self.domain)


class _FlatRead(_Read, kw_only=True, omit_defaults=True, gc=False, tag_field="do", tag="read"):
    def check(self) -> None:
        key = self.key
        if not (
            self.domain in _known
            and self.collection in _known
            and self.wait_ms >= 0
            and self.consistency == "session"
            and self.max_staleness_ms is None
            and 0 < len(key) <= 128
            and key.isascii()
            and key.isprintable()
            and key[0] != "."
        ):
            super().check()
            _remember(self.domain)
            _remember(self.collection)


class _FlatMembers(_Members, kw_only=True, omit_defaults=True, gc=False, tag_field="do", tag="members"):
    after: _Scalar = None
    has: _Scalar | UnsetType = msgspec.UNSET


class _FlatDeclare(_Declare, kw_only=True, omit_defaults=True, gc=False, tag_field="do", tag="declare"):
    options: dict[str, _Flat] = msgspec.field(default_factory=dict)


_known: set[str] = set()
"""Names that were found good: a glance at these is enough, and most requests are plain."""
_MOST_KNOWN = 4_096


def _remember(name: str) -> None:
    if "@" not in name:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known.add(name)


def _flat(kind: type[Any]) -> type[Any]:
    """One whose fields are flat as they are."""
    return msgspec.defstruct(
        f"_Flat{kind.__name__}",
        [],
        bases=(kind,),
        kw_only=True,
        omit_defaults=True,
        gc=False,
        tag_field="do",
        tag=kind.do,
        forbid_unknown_fields=True,
    )


Asked = (
    _Commit
    | _Read
    | _List
    | _Members
    | _Explain
    | _Conflicts
    | _Domain
    | _Collection
    | _DeclareDomain
    | _Declare
    | _Status
)

_OTHERS: tuple[Any, ...] = (_List, _Explain, _Conflicts, _Domain, _Collection, _DeclareDomain, _Status)
_KINDS: dict[str, Any] = {
    kind.do: kind for kind in sorted((_Commit, _Read, _Members, _Declare, *_OTHERS), key=lambda kind: kind.do)
}
_FIELDS = {
    do: frozenset(kind.__struct_fields__) - {"trace_id"} for do, kind in _KINDS.items()
}  # a trace is given by its traceparent, as over HTTP
_Union: Any = _FlatCommit | _FlatRead | _FlatMembers | _FlatDeclare
for _each in _OTHERS:
    _Union |= _flat(_each)

_one = Decoder(_Union).decode
_many = Decoder(list[_Union]).decode
_split = Decoder(list[Raw]).decode
_numbered = Decoder(_Numbered).decode
_encode = Encoder().encode
_TOO_DEEP = "a frame is nested too deeply"
"""Deeper than the parser goes, which is much deeper than a value may be: not even the numbers in it can be found."""
_FLOAT_32 = 0xCA
"""With what such a number begins, though other things have this byte too."""
_NO_FLOAT = frozenset((str, int, bool, type(None)))
_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)


# --- in


def count_of(frame: bytes) -> int:
    """How many requests a frame says it has, from its first bytes.

    Raises:  BadFrame for what is neither a map nor an array.
    """
    first = frame[0] if frame else 0xC1
    if first >> 4 == 0x9:
        return first & 0xF
    if first in (0xDC, 0xDD):
        return int.from_bytes(frame[1 : 3 if first == 0xDC else 5], "big")
    if first >> 4 == 0x8 or first in (0xDE, 0xDF):
        return 1
    raise BadFrame(1007, "a frame is one msgpack map, or an array of maps")


def decode(frame: bytes) -> tuple[list[Asked], list[Refused]]:
    """The requests of a frame, in order: those that are good, checked, and those that are not.

    Raises:  BadFrame when one of them cannot even be answered; nothing changed.
    """
    is_many = frame[0] >> 4 == 0x9 or frame[0] in (0xDC, 0xDD)
    try:
        found: Any = _many(frame) if is_many else _one(frame)
        written = len(_encode(found))
        if not is_many:
            found = [found]
        if _is_all(found, written, frame):
            for request in found:
                request.check()
            return found, []
    except (*_BROKEN, CrdtStoreError):
        pass
    return _decode_closely(frame, is_many)


def _is_all(found: list[Any], written: int, frame: bytes) -> bool:
    """Whether a frame holds nothing but what was found in it, which is so long when it is ``written`` again. A float of 32 bits has 64
    then, and could make up for what was dropped: where one may be, nothing is certain.
    """
    return written == len(frame) and not (_FLOAT_32 in frame and _may_have_float(found))


def _may_have_float(found: list[Any]) -> bool:
    for request in found:
        if type(request) is _FlatCommit:
            for op in request.ops:
                if not _NO_FLOAT.issuperset(map(type, op.values())):
                    return True
        elif type(request) in (_FlatDeclare, _FlatMembers):
            return True
    return False


def _decode_closely(frame: bytes, is_many: bool) -> tuple[list[Asked], list[Refused]]:
    """The same, one by one: something is not plainly good."""
    try:
        parts = _split(frame) if is_many else [Raw(frame)]
    except RecursionError:
        raise BadFrame(1007, _TOO_DEEP) from None
    except _BROKEN:
        raise BadFrame(1007, "a frame is msgpack, and this one is not") from None
    good: list[Asked] = []
    bad: list[Refused] = []
    for part in parts:
        request = _decode_alone(bytes(part))
        if isinstance(request, Refused):
            bad.append(request)
        else:
            good.append(request)
    return good, bad


def _decode_alone(part: bytes) -> Asked | Refused:
    try:
        request = _one(part)
        if _is_all([request], len(_encode(request)), part):
            request.check()
            return request  # type: ignore[no-any-return]
    except (*_BROKEN, CrdtStoreError):
        pass
    try:
        head = _numbered(part)
    except RecursionError:
        raise BadFrame(1007, _TOO_DEEP) from None
    except _BROKEN:
        raise BadFrame(1007, "a request is a map with a number n, an integer from 0") from None
    try:
        return _parse(part)
    except CrdtStoreError as error:
        return Refused(head.n, error, head.traceparent if isinstance(head.traceparent, str) else None)


def _parse(part: bytes) -> Asked:
    """The request, looked at as closely as a body of HTTP.

    Raises:  UsageError; nothing changed.
    """
    fields = bodies.decode(part, bodies.MSGPACK)
    do = fields.pop("do", None)
    if not isinstance(do, str):
        raise UsageError("a request says in its field do what is to be done. Nothing changed.")
    if not fields.keys() <= _FIELDS.get(do, fields.keys()):
        del fields["n"]
        raise unknown_fields(fields, _FIELDS[do] - {"n"})
    if do == "commit":
        check_ops(fields.get("ops"))
    return requests.parse(do, fields, _KINDS)  # type: ignore[return-value]


# --- out


def encode(message: Any) -> bytes:
    """The bytes of one message, or of many."""
    try:
        return _encode(message)
    except OverflowError:  # an integer beyond 64 bits
        return pack(message)


def frames_of(replies: Sequence[dict[str, Any]], write: Callable[[bytes], None]) -> None:
    """Write the replies of a turn: one frame, or some where that would be long."""
    data = encode(replies if len(replies) > 1 else replies[0])
    if len(data) <= SPLIT_BYTES or len(replies) == 1:
        write(data)
        return
    middle = len(replies) // 2
    frames_of(replies[:middle], write)
    frames_of(replies[middle:], write)
