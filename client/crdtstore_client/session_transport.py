"""The transport that ``connect`` uses: a session per node for data, HTTP for everything else.

The question: when is a request not for the session? When it is about the node itself (status, members, metrics), when the
node offers none, and when it is too long for a frame: over HTTP what is wrong is said in words, and ends no connection
that others use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crdtstore_client.http import HttpTransport
from crdtstore_client.over_http import ask_over_http
from crdtstore_client.session_line import Line
from crdtstore_client.transport import NotSent, Response

if TYPE_CHECKING:
    import ssl

__all__ = ["SessionTransport"]

_CARRIED = frozenset(
    {
        "collection",
        "commit",
        "conflicts",
        "declare",
        "declare_domain",
        "domain",
        "explain",
        "list",
        "members",
        "read",
    }
)
"""What goes over the session."""


class SessionTransport:
    """Requests that tasks make at the same time share a frame, and those of one task keep their order."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._http = HttpTransport(tls)
        self._lines: dict[str, Line] = {}
        self._is_closed = False

    async def ask(
        self,
        url_base: str,
        do: str,
        fields: Mapping[str, Any],
        authorization: str | None,
        deadline: float,
    ) -> Response:
        if do in _CARRIED:
            line = self._lines.get(url_base)
            if line is None:
                if self._is_closed:
                    raise NotSent("this store is closed")
                line = self._lines[url_base] = Line(url_base, self._http.open_session)
            answer = await line.ask(do, fields, authorization, deadline)
            if answer is not None:
                return answer
        return await ask_over_http(self._http, url_base, do, fields, authorization, deadline)

    async def request(
        self,
        url_base: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        return await self._http.request(url_base, method, path, body=body, headers=headers, timeout=timeout)

    async def close(self) -> None:
        self._is_closed = True
        await asyncio.gather(*(line.close() for line in self._lines.values()))
        await self._http.close()
