"""Store: the door. ``connect`` makes one, which is a session over all regions it was given."""

from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crdtstore.errors import UsageError
from crdtstore_client.address import check_part
from crdtstore_client.admin import Admin
from crdtstore_client.domain import Domain, seconds_of
from crdtstore_client.link import Auth, Call, Link
from crdtstore_client.session import Session
from crdtstore_client.session_transport import SessionTransport
from crdtstore_client.status import Status

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from crdtstore_client.transport import Transport

__all__ = ["Store", "connect"]


def connect(
    *urls: str,
    auth: Auth = None,
    timeout: float | timedelta = 5.0,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    transport: Transport | None = None,
) -> Store:
    """A store over these nodes, nearest first: ``async with connect(…) as store`` or ``store = await connect(…)``.

    Without urls: ``$CRDTSTORE_URL`` (comma separated) and, unless ``auth`` is given, ``$CRDTSTORE_AUTH``. ``timeout``
    is the deadline of each call over all its attempts. ``token`` continues a session. Data goes over one WebSocket per
    node, in frames that tasks share, or over HTTP where a node offers none; ``transport=HttpTransport()`` (of
    ``crdtstore_client.http``) uses HTTP only, and any ``Transport`` of your own may stand in its place.
    Raises:  UsageError when there is no url.
    """
    chosen = list(urls) or [url.strip() for url in os.environ.get("CRDTSTORE_URL", "").split(",") if url.strip()]
    if not chosen:
        raise UsageError(
            "no url: give one (connect(url), --url) or set CRDTSTORE_URL; after crdtstore dev up, "
            'eval "$(crdtstore dev env)" sets it. Nothing changed.',
            code="bad-request",
        )
    for url in chosen:
        if not url.startswith(("http://", "https://")) or not url.partition("//")[2].strip("/"):
            raise UsageError(
                f"a url is like http://127.0.0.1:7401 or https://host, got {url!r:.100}. Nothing changed.",
                code="bad-request",
            )
    if auth is None:
        auth = os.environ.get("CRDTSTORE_AUTH") or None
    link = Link(dict.fromkeys(chosen), transport if transport is not None else SessionTransport(tls), auth)
    return Store(link, Session(token), seconds_of(timeout), owns_link=True)


class Store:
    """One session: it never reads back in time, in any region."""

    def __init__(self, link: Link, session: Session, timeout: float, *, owns_link: bool) -> None:
        self._link = link
        self._session = session
        self._timeout = timeout
        self._owns_link = owns_link
        self._declared: set[str] = set()

    @property
    def token(self) -> str:
        """What this session has seen: hand it to another service, another region, a cookie."""
        return self._session.token

    @property
    def region(self) -> str:
        """The region asked first; empty until a node has answered."""
        return self._link.nodes.nearest.region

    @property
    def admin(self) -> Admin:
        """Who belongs to the cluster, and orders that change it."""
        return Admin(self._link, self._timeout)

    def domain(self, name: str) -> Domain:
        """A domain in this session; no I/O."""
        return Domain(self, name)

    def session(self, token: str | None = None) -> Store:
        """Another session over the same connections: one per end user or request; it closes with its parent."""
        return Store(self._link, Session(token), self._timeout, owns_link=False)

    async def status(self) -> Status:
        """What the nearest node says about itself."""
        return Status.of(await self.call(Call("status")))

    async def call(self, call: Call, timeout: float | timedelta | None = None) -> dict[str, Any]:  # noqa: ASYNC109
        """Send one request of this session; the body of its answer."""
        return await self._link.call(call, self._session, self._timeout if timeout is None else seconds_of(timeout))

    async def ensure_domain(self, name: str) -> None:
        """Declare a domain, once per session: its token makes other regions wait for the declaration."""
        if name not in self._declared:
            check_part(name, "the domain")
            await self.call(Call("declare_domain", {"domain": name}))
            self._declared.add(name)

    async def close(self) -> None:
        """Give connections back. A session of another store has none of its own."""
        if self._owns_link and not self._link.is_closed:
            await self._link.close()

    async def _open(self) -> Store:
        await self._link.nodes.start()
        return self

    def __await__(self) -> Generator[Any, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<store {', '.join(node.url for node in self._link.nodes)}>"
