"""Transport: the seam between the client's rules and the wire.

The question: what must the wire tell, so that a write is never sent twice under two names and never called failed when
it was done? One thing beyond the answer: whether a request that got no answer can have reached a node. Hence two
exceptions, and nothing else is expected from a transport (after httpx's ``BaseTransport``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

__all__ = ["Asks", "NotSent", "Refused", "ReplyLost", "Response", "Transport"]


class NotSent(Exception):
    """No node can have seen the request: refused, unresolvable, not connected in time."""


class ReplyLost(Exception):
    """The request may have reached a node, but no whole answer came back."""


class Refused(Exception):
    """Somebody is there, and opens no session."""


class Response(Struct, frozen=True):
    """One answer: HTTP's status, the decoded body (a problem from 400 on), headers with lower-case names."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = {}
    heard: tuple[str, int] | None = None
    """On which connection it came, and as the how-manyth: a node answers on one connection in the order in which it saw things. None: by
    itself, in no order."""


class Transport(Protocol):
    """What carries one request to one node."""

    async def request(
        self,
        url_base: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109 (the deadline belongs to the wire: only it knows what had been sent by then)
    ) -> Response:
        """Send ``method`` and ``path`` (percent-encoded, with its query) to the node at ``url_base``.

        Raises:  NotSent or ReplyLost, after ``timeout`` seconds at the latest.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


@runtime_checkable
class Asks(Transport, Protocol):
    """A transport that carries the requests of the session (API.md 3) as they are; the others get them as HTTP."""

    async def ask(
        self,
        url_base: str,
        do: str,
        fields: Mapping[str, Any],
        authorization: str | None,
        deadline: float,
    ) -> Response:
        """Send the request ``do`` to the node at ``url_base``; ``token``, ``id`` and ``traceparent`` are among its fields.

        ``authorization`` is the header of that name, ``deadline`` an instant of ``time.monotonic``.
        Raises:  NotSent or ReplyLost, at ``deadline`` at the latest.
        """
        ...
