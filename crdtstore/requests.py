"""Requests as they come from users: every field checked before anything happens.

The question: what may a caller get wrong? Names, fields that do not exist, types, sizes, keys that no URL can carry. Each has an error
that says what was wrong, what was expected, and that nothing changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from msgspec import UNSET, Struct, UnsetType, ValidationError, convert

from crdtstore.commit import REASON, TRACE, operation_id, request_hash
from crdtstore.declarations import Declared, check_name
from crdtstore.engine.events import Draft
from crdtstore.engine.options import Options
from crdtstore.errors import UsageError
from crdtstore.ops import asked_of, check_collection, check_key, check_op
from crdtstore.shards import MAX_SHARDS
from crdtstore.types import REGISTRY
from crdtstore.values import check_text, show

__all__ = [
    "Base",
    "CollectionRequest",
    "CommitRequest",
    "ConflictsRequest",
    "DeclareDomainRequest",
    "DeclareRequest",
    "DomainRequest",
    "ExplainRequest",
    "ListRequest",
    "MembersRequest",
    "ReadRequest",
    "StatusRequest",
    "parse",
]

MAX_OPS = 1_000
MAX_LIST = 1_000
MAX_NOTE = 1_024
MAX_ID_BYTES = 128
"""Of an idempotency key."""
MAX_REGIONS = 255
"""No cluster has more members; how many there are is looked up before the commit is made."""
_OWN_ID_MS = 600_000
"""How long an idempotency key that the client made by itself is remembered."""
_AHEAD_MS = 300_000
_OWN_ID = re.compile("~[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""Such a key: ``~`` and a UUID of version 7 (RFC 9562), of which the first 48 bits say when it was made (Unix ms)."""


class Base(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every request may say."""

    token: str | None = None
    wait_ms: int = 1_000

    def check(self) -> None:
        if self.wait_ms < 0:
            raise UsageError(f"wait_ms must not be negative, got {self.wait_ms}. Nothing changed.")


class _InDomain(Base, kw_only=True):
    domain: str
    is_reading: ClassVar[bool] = False
    """Whether the domain may be named with a number of shards, ``domain@number``: one that it has, but does not serve by (``shards``)."""

    def check(self) -> None:
        super().check()
        if self.is_reading and "@" in self.domain:
            domain, _, number = self.domain.partition("@")
            if not (number.isascii() and number.isdigit() and len(number) <= 3):
                raise UsageError(
                    f"behind {domain[:63]}@ stands a number of shards, got {show(number)}. Nothing changed."
                )
            check_name(domain, "domain")
        else:
            check_name(self.domain, "domain")


class _InCollection(_InDomain, kw_only=True):
    collection: str

    def check(self) -> None:
        super().check()
        name, at, type_name = self.collection.partition("@")
        check_name(name, "collection")
        if at and type_name not in REGISTRY:
            raise UsageError(f"there is no type {type_name[:100]!r}; there are {', '.join(REGISTRY)}. Nothing changed.")


class CommitRequest(_InDomain, kw_only=True):
    """Operations that take effect together or not at all."""

    ops: list[dict[str, Any]]
    reason: str | None = None
    regions: int = 0
    id: str | None = None
    trace_id: str | None = None

    def check(self) -> None:
        super().check()
        if not 0 < len(self.ops) <= MAX_OPS:
            raise UsageError(f"a commit has 1 to {MAX_OPS} ops, got {len(self.ops)}. Nothing changed.")
        if not 0 <= self.regions <= MAX_REGIONS:
            raise UsageError(f"regions is 0 to {MAX_REGIONS}, got {self.regions}. Nothing changed.")
        if self.reason is not None:
            _check_note(self.reason, "reason")
        if self.trace_id is not None:
            _check_note(self.trace_id, "trace_id")
        key = self.id
        if key is None or (key.isascii() and 0 < len(key) <= MAX_ID_BYTES):
            return
        if not 0 < len(check_text(key, "the idempotency key").encode()) <= MAX_ID_BYTES:
            raise UsageError(f"an idempotency key has 1 to {MAX_ID_BYTES} bytes. Nothing changed.")

    def draft(
        self, ticket: int, author: str, declared: Callable[[str], Declared], now_ms: int, options: Options
    ) -> Draft:
        """The checked commit.

        Raises:  UsageError naming the op that is wrong; nothing changed.
        """
        ops = [check_op(fields, declared) for fields in self.ops]
        attributes: list[Any] = []
        if self.reason is not None:
            attributes += (REASON, self.reason)
        if self.trace_id is not None:
            attributes += (TRACE, self.trace_id)
        if self.id is None:
            return Draft(ticket, ops, author, attributes, None, 0, self.wait_ms)
        operation = (operation_id(author, self.id), request_hash([asked_of(op) for op in ops]))
        return Draft(ticket, ops, author, attributes, operation, _expires_ms(self.id, now_ms, options), self.wait_ms)


def _check_note(text: str, what: str) -> None:
    if len(check_text(text, what)) > MAX_NOTE:
        raise UsageError(f"{what} has at most {MAX_NOTE} characters. Nothing changed.", code="too-large")


def _expires_ms(key: str, now_ms: int, options: Options) -> int:
    if not key.startswith("~"):
        return now_ms + options.retry_window_ms
    if _OWN_ID.fullmatch(key) is None:
        raise UsageError("an idempotency key that begins with ~ is ~ and a UUIDv7 in lower case. Nothing changed.")
    made_ms = int(key[1:9] + key[10:14], 16)
    if made_ms > now_ms + _AHEAD_MS:
        raise UsageError(
            f"the idempotency key was made {made_ms - now_ms} ms in the future: check the clocks. Nothing changed."
        )
    return made_ms + _OWN_ID_MS


def _check_limit(limit: int) -> None:
    if not 0 < limit <= MAX_LIST:
        raise UsageError(f"limit is 1 to {MAX_LIST}, got {limit}. Nothing changed.")


class ReadRequest(_InCollection, kw_only=True):
    """The value of one key."""

    is_reading = True

    key: str
    consistency: str = "session"
    max_staleness_ms: int | None = None

    def check(self) -> None:
        super().check()
        check_key(self.key)
        if self.consistency not in ("session", "local"):
            raise UsageError(f"consistency is session or local, got {self.consistency[:100]!r}. Nothing changed.")
        if self.max_staleness_ms is not None and self.max_staleness_ms < 0:
            raise UsageError(f"max_staleness_ms must not be negative, got {self.max_staleness_ms}. Nothing changed.")
        if self.consistency == "local":
            self.wait_ms, self.token = 0, None


class ListRequest(_InCollection, kw_only=True):
    """Keys of a collection, in the order of their bytes."""

    is_reading = True

    prefix: str = ""
    after: str = ""
    limit: int = 100
    values: bool = False
    shards_of: int | None = None
    """Only those shards that this worker of a node holds; None: all of them, or none of it is answered."""

    def check(self) -> None:
        super().check()
        _check_limit(self.limit)
        for what in ("prefix", "after"):
            check_text(getattr(self, what), what)


class MembersRequest(_InCollection, kw_only=True):
    """A page of the elements, fields or events of one key, or whether one of them is there."""

    is_reading = True

    key: str
    after: Any = None
    limit: int = 100
    has: Any = UNSET

    def check(self) -> None:
        super().check()
        check_key(self.key)
        _check_limit(self.limit)


class ExplainRequest(_InCollection, kw_only=True):
    """The writes behind the value of one key."""

    is_reading = True

    key: str
    limit: int = 100

    def check(self) -> None:
        super().check()
        check_key(self.key)
        _check_limit(self.limit)


class ConflictsRequest(_InDomain, kw_only=True):
    """The keys of a domain behind whose values concurrent writes stand; ``after`` is the ``next`` of the page before."""

    is_reading = True
    after: str | None = None
    limit: int = 100
    shards_of: int | None = None
    """As in a list."""

    def check(self) -> None:
        super().check()
        _check_limit(self.limit)
        if self.after is not None:
            collection, slash, key = check_text(self.after, "after").partition("/")
            if not slash:
                raise UsageError(f"after is collection/key, got {show(self.after)}. Nothing changed.")
            name, at, type_name = collection.partition("@")
            check_name(name, "collection")
            if at and type_name not in REGISTRY:
                raise UsageError(
                    f"there is no type {type_name[:100]!r}; there are {', '.join(REGISTRY)}. Nothing changed."
                )
            check_key(key)


class DeclareDomainRequest(_InDomain, kw_only=True):
    """Declare a domain, or change its owner or description; ``shards`` is fixed when it is declared, and 1 when it is not given."""

    owner: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    shards: int | UnsetType = UNSET

    def check(self) -> None:
        super().check()
        if self.shards is not UNSET and not 0 < self.shards <= MAX_SHARDS:
            raise UsageError(f"a domain has 1 to {MAX_SHARDS} shards, got {self.shards}. Nothing changed.")

    def given(self) -> dict[str, Any]:
        pairs = (("owner", self.owner), ("description", self.description), ("shards", self.shards))
        return {name: value for name, value in pairs if value is not UNSET}


class DeclareRequest(_InCollection, kw_only=True):
    """Declare a collection."""

    type: str
    options: dict[str, Any] = {}

    def check(self) -> None:
        super().check()
        check_collection(self.collection)
        if self.type not in REGISTRY:
            raise UsageError(f"there is no type {self.type[:100]!r}; there are {', '.join(REGISTRY)}. Nothing changed.")


class DomainRequest(_InDomain, kw_only=True):
    """What is declared of a domain."""


class CollectionRequest(_InCollection, kw_only=True):
    """What is declared of a collection."""


class StatusRequest(Base, kw_only=True):
    """How this node and its peers are."""


_REQUESTS: dict[str, type[Base]] = {
    "collection": CollectionRequest,
    "commit": CommitRequest,
    "conflicts": ConflictsRequest,
    "declare": DeclareRequest,
    "declare_domain": DeclareDomainRequest,
    "domain": DomainRequest,
    "explain": ExplainRequest,
    "list": ListRequest,
    "members": MembersRequest,
    "read": ReadRequest,
    "status": StatusRequest,
}


def parse(do: str, fields: Mapping[str, Any], kinds: Mapping[str, type[Base]] = _REQUESTS) -> Base:
    """The checked request, one of these kinds.

    Raises:  UsageError; nothing changed.
    """
    kind = kinds.get(do)
    if kind is None:
        raise UsageError(f"there is no request {do[:100]!r}; there are {', '.join(kinds)}. Nothing changed.")
    try:
        request = convert(fields, kind)
        request.check()
    except ValidationError as error:
        raise UsageError(f"{_said(str(error))}. Nothing changed.") from None
    except (ValueError, RecursionError):  # it cannot even be quoted
        raise UsageError(
            "a field is no valid Unicode, nested too deeply or a number of too many digits. Nothing changed."
        ) from None
    return request


_EXPECTED = re.compile(r"Expected `(?P<expected>.+)`, got `(?P<got>.+)` - at `\$\.(?P<field>.+)`")
_KINDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a map",
    "str": "text",
}


def _said(found: str) -> str:
    """What is wrong with a field, in the words of all other messages."""
    match = _EXPECTED.fullmatch(found)
    if match is None:
        return found
    expected, got = ([_KINDS.get(kind, kind) for kind in match[name].split(" | ")] for name in ("expected", "got"))
    return f"{match['field']} must be {' or '.join(expected)}, got {' or '.join(got)}"
