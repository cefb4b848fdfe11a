"""Errors: one tree, one table of codes, used by node, simulator and client alike.

A user who meets an error asks three things: what was wrong, did anything change, may I try again. The code answers all three; the
sentence (``detail``) is for people. Statuses are those of HTTP (RFC 9110) and the body is a problem document (RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "CODES",
    "PUT_BACK",
    "AccessError",
    "Code",
    "Compacted",
    "CrdtStoreError",
    "DecodeError",
    "HoldEnded",
    "InsufficientRights",
    "InvariantViolation",
    "NotReplicated",
    "OutcomeUnknown",
    "PreconditionFailed",
    "ProtocolError",
    "ReplicaBehind",
    "StorageError",
    "Unavailable",
    "UsageError",
    "from_problem",
    "not_replicated",
    "problem",
]

Effect = Literal["none", "applied", "unknown"]
PROBLEM_PREFIX = "urn:crdtstore:problem:"
MAX_DETAIL = 1_000
PUT_BACK = (
    "Put it back from a copy or snapshot of this directory, if there is one; for what else there is, see "
    "'A node that does not start' in docs/backup.md"
)
"""What an operator can do about a file that is damaged: this version cannot replace the node."""


class InvariantViolation(AssertionError):
    """Our own bug: a law of the store does not hold. Never caught, never an answer to a user."""


def _printable(detail: str) -> str:
    """The sentence as a reply can carry it: it may quote what a user sent, a lone surrogate or a megabyte."""
    text = detail.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."


class CrdtStoreError(Exception):
    """The root of all errors that others can cause.

    ``code`` is one of ``CODES``; ``effect`` says whether the write took place; ``retryable`` whether the same request may succeed
    later; ``retry_after`` is in seconds; ``more`` holds the further fields of the problem document.
    """

    default_code = "bad-request"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        trace_id: str | None = None,
        retryable: bool | None = None,
        **more: Any,
    ) -> None:
        detail = _printable(detail)
        super().__init__(detail)
        self.code = code or self.default_code
        known = CODES.get(self.code)
        self.detail = detail
        self.status = known.status if known else 500
        self.effect: Effect = known.effect if known else "unknown"
        self.retryable = retryable if retryable is not None else bool(known and known.retryable)
        self.retry_after = retry_after
        self.trace_id = trace_id
        self.more = more

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class UsageError(CrdtStoreError):
    """The request itself is wrong; nothing changed."""


class AccessError(CrdtStoreError):
    """Who asks is unknown or may not do this; nothing changed."""

    default_code = "forbidden"


class PreconditionFailed(CrdtStoreError):
    """The key is not as the caller expected it in this region; nothing changed."""

    default_code = "precondition-failed"


class InsufficientRights(CrdtStoreError):
    """This region holds too few rights of a bounded counter; nothing changed."""

    default_code = "insufficient-rights"

    @property
    def here(self) -> int:
        return int(self.more.get("here", 0))

    @property
    def elsewhere(self) -> int:
        """What all other regions together appeared to hold."""
        return sum(self.by_region.values())

    @property
    def by_region(self) -> dict[str, int]:
        """What each other region appeared to hold."""
        return dict(self.more.get("elsewhere", {}))

    @property
    def requested(self) -> int:
        return int(self.more.get("requested", 0))


class HoldEnded(CrdtStoreError):
    """The reservation was confirmed, released or has expired; nothing changed."""

    default_code = "hold-ended"

    @property
    def outcome(self) -> str | None:
        """``confirmed``, ``released`` or ``expired``; None when that is not known (any more)."""
        found = self.more.get("outcome")
        return found if isinstance(found, str) else None


class Compacted(CrdtStoreError):
    """What the token asks for is no longer there; nothing changed."""

    default_code = "compacted"

    @property
    def snapshot(self) -> str | None:
        return self.more.get("snapshot")


class Unavailable(CrdtStoreError):
    """This region cannot serve the request now; nothing changed."""

    default_code = "not-ready"


class ReplicaBehind(Unavailable):
    """This region has not yet seen what the token names; ``regions`` are those that have."""

    default_code = "replica-behind"

    @property
    def regions(self) -> list[str]:
        return list(self.more.get("regions", []))


class NotReplicated(CrdtStoreError):
    """Durable here, but not yet in as many other regions as was asked."""

    default_code = "not-replicated"

    @property
    def durable_in(self) -> list[str]:
        return list(self.more.get("durable_in", []))


class OutcomeUnknown(CrdtStoreError):
    """The reply was lost; repeating the request with ``op_id`` is safe and counts once."""

    default_code = "outcome-unknown"

    @property
    def op_id(self) -> str | None:
        return self.more.get("op_id")


class DecodeError(CrdtStoreError):
    """Bytes that are not what they should be; a node's own, reaches users as bad-request."""


class ProtocolError(CrdtStoreError):
    """A peer said something that cannot be true; refused as a whole, state unchanged."""


class StorageError(CrdtStoreError):
    """The disk failed or holds what was never written there; names file and offset."""

    default_code = "storage-failed"


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table: what a code means to a machine."""

    error: type[CrdtStoreError]
    status: int
    title: str
    effect: Effect = "none"
    retryable: bool = False


CODES: dict[str, Code] = {
    "bad-request": Code(UsageError, 400, "The request cannot be understood"),
    "not-declared": Code(UsageError, 404, "This domain or collection is not declared here"),
    "no-such-route": Code(UsageError, 404, "There is nothing at this path"),
    "method-not-allowed": Code(UsageError, 405, "This path does not take this method"),
    "type-mismatch": Code(UsageError, 409, "The collection has another type"),
    "membership-changed": Code(UsageError, 409, "The members have changed since"),
    "confirm-needed": Code(UsageError, 409, "This has a price, and has to be confirmed"),
    "not-one-line": Code(UsageError, 409, "The survivors do not all follow one configuration"),
    "too-large": Code(UsageError, 413, "The request is too large"),
    "unsupported-media-type": Code(UsageError, 415, "Bodies are JSON or msgpack"),
    "cross-shard": Code(UsageError, 422, "A commit stays within one shard"),
    "invalid-op": Code(UsageError, 422, "The type has no such operation"),
    "invalid-value": Code(UsageError, 422, "A value is not what the operation takes"),
    "not-deletable": Code(UsageError, 422, "Keys of this type cannot be deleted"),
    "schema-violation": Code(UsageError, 422, "The value does not fit the schema"),
    "key-reused": Code(UsageError, 422, "This idempotency key belongs to another request"),
    "key-expired": Code(UsageError, 422, "This idempotency key has expired"),
    "foreign-token": Code(UsageError, 422, "The token was not made by this cluster"),
    "unauthenticated": Code(AccessError, 401, "Who are you?"),
    "forbidden": Code(AccessError, 403, "Not allowed"),
    "precondition-failed": Code(PreconditionFailed, 412, "The key has another state in this region"),
    "insufficient-rights": Code(InsufficientRights, 409, "This region holds too few rights", retryable=True),
    "hold-ended": Code(HoldEnded, 409, "The reservation has ended"),
    "compacted": Code(Compacted, 410, "The log no longer reaches back to this token"),
    "token-lost": Code(Compacted, 410, "The token names commits that went with an evicted replica"),
    "replica-behind": Code(ReplicaBehind, 503, "This region has not caught up with the token", retryable=True),
    "overloaded": Code(Unavailable, 503, "Too many requests wait here", retryable=True),
    "not-ready": Code(Unavailable, 503, "This node is not ready", retryable=True),
    "leaving": Code(Unavailable, 503, "This node is leaving the cluster", retryable=True),
    "no-quorum": Code(Unavailable, 503, "Too few members can be reached", effect="unknown", retryable=True),
    "fenced": Code(Unavailable, 503, "This node may not write under its id", retryable=True),
    "identity-unproven": Code(Unavailable, 503, "This node has not proven its id yet", retryable=True),
    "storage-failed": Code(Unavailable, 503, "The disk of this node failed", retryable=True),
    "storage-full": Code(Unavailable, 507, "The disk of this node is full", retryable=True),
    "rate-limited": Code(Unavailable, 429, "Too many requests", retryable=True),
    "unreachable": Code(Unavailable, 503, "No region answered", retryable=True),
    "wrong-worker": Code(Unavailable, 421, "Another worker of this region holds the key", retryable=True),
    "not-replicated": Code(NotReplicated, 202, "Durable here, not yet elsewhere", effect="applied"),
    "outcome-unknown": Code(OutcomeUnknown, 504, "The reply was lost", effect="unknown", retryable=True),
    "internal": Code(Unavailable, 500, "The node failed; its log says why", effect="unknown", retryable=True),
}


def problem(error: CrdtStoreError) -> dict[str, Any]:
    """The problem document of an error (RFC 9457), for HTTP and the session alike."""
    code = error.code if error.code in CODES else "internal"
    document: dict[str, Any] = {
        "type": PROBLEM_PREFIX + code,
        "title": CODES[code].title,
        "status": CODES[code].status,
        "detail": error.detail,
        "code": code,
        "effect": error.effect,
        "retryable": error.retryable,
    }
    if error.trace_id is not None:
        document["trace_id"] = error.trace_id
    if error.retry_after is not None:
        document["retry_after"] = error.retry_after
    return document | error.more


def not_replicated(body: dict[str, Any], regions: int) -> NotReplicated | None:
    """What the answer to a commit means to who asked for so many other regions: None when they have it, else it is answered with 202."""
    durable_in = body["durable_in"]
    if len(durable_in) > regions:
        return None
    known = {name: body[name] for name in ("dot", "token", "values", "replayed") if name in body}
    asked = "1 other region" if regions == 1 else f"{regions} other regions"
    return NotReplicated(
        f"durable in {', '.join(durable_in)} and asked for {asked}: it goes there as soon as they can be reached, "
        "and is not to be repeated",
        durable_in=durable_in,
        **known,
    )


def from_problem(document: dict[str, Any]) -> CrdtStoreError:
    """The error a problem document stands for; an unknown code becomes a plain ``CrdtStoreError``."""
    fields = dict(document)
    for name in ("type", "title", "status", "effect"):
        fields.pop(name, None)
    code = str(fields.pop("code", "internal"))
    detail = str(fields.pop("detail", code))
    known = CODES.get(code)
    error = (known.error if known else CrdtStoreError)(detail, code=code, **fields)
    effect = document.get("effect")
    if effect in ("none", "applied", "unknown"):  # a node knows more than the table: a write that waits for its disk
        error.effect = effect
    return error
