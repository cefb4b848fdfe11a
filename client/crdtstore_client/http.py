"""The HTTP transport: aiohttp, msgpack bodies.

aiohttp is imported at the first request, so that ``import crdtstore_client`` stays cheap for those who bring another
transport or only want an error class. Paths arrive percent-encoded and leave as they came: aiohttp would turn
``x/../y`` into ``y``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crdtstore.values import from_json, to_msgpack, unpack
from crdtstore_client.transport import NotSent, Refused, ReplyLost, Response

if TYPE_CHECKING:
    import ssl

    import aiohttp

__all__ = ["HttpTransport"]

MSGPACK = "application/msgpack"
MAX_CONNECTIONS = 256
MAX_REPLY_BYTES = 64 << 20
CONNECT_SHARE = 0.9
"""Connecting ends before the whole attempt does, or a timeout would not tell whether anything had been sent."""
CONNECT_SECONDS = 1.5
"""The same for a session, whose handshake may take a little longer."""
HEARTBEAT_SECONDS = 10.0
"""After so long a silence a node is asked for a sign of life, and has half of it to give one."""
CLOSE_SECONDS = 1.0


class HttpTransport:
    """One ``aiohttp.ClientSession``, made when it is first needed."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:  # a late retry must not open what nobody would close
            raise NotSent("this store is closed")
        if self._session is None:
            import aiohttp  # noqa: PLC0415 (dear: see above)

            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._tls if self._tls is not None else True)
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout
            )
        return self._session

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
        session = self._open()
        import aiohttp  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        sent = dict(headers)
        sent["Accept"] = MSGPACK
        data = None
        if body is not None:
            sent["Content-Type"] = MSGPACK
            data = to_msgpack(body)
        try:
            async with session.request(
                method,
                URL(url_base + path, encoded=True),
                data=data,
                headers=sent,
                timeout=aiohttp.ClientTimeout(total=timeout, connect=timeout * CONNECT_SHARE),
                allow_redirects=False,
            ) as reply:
                if (reply.content_length or 0) > MAX_REPLY_BYTES:
                    raise ReplyLost(f"{url_base} answers with more than {MAX_REPLY_BYTES} bytes")
                raw = await reply.read()
                content_type = reply.content_type
                status = reply.status
                answer_headers = {name.lower(): value for name, value in reply.headers.items()}
        except aiohttp.ClientConnectorError as error:
            raise NotSent(f"{url_base}: cannot connect: {error.strerror or error}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSent(f"{url_base}: no connection within {timeout:.2f} s") from error
        except TimeoutError as error:
            raise ReplyLost(f"{url_base} did not answer within {timeout:.2f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ReplyLost(f"{url_base}: {error or type(error).__name__}") from error
        return Response(status, _decode(raw, content_type, url_base), answer_headers)

    async def open_session(self, url_base: str, authorization: str | None) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to ``/v1/session`` of a node.

        Raises:  NotSent when nobody is there; Refused when who is there opens none.
        """
        session = self._open()
        import aiohttp  # noqa: PLC0415

        try:
            return await session.ws_connect(
                f"{url_base}/v1/session",
                headers={} if authorization is None else {"Authorization": authorization},
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MAX_REPLY_BYTES,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(f"{url_base}: cannot connect: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refused(f"{url_base}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _decode(raw: bytes, content_type: str, url_base: str) -> dict[str, Any]:
    """The body as a map; empty for what is no map of ours, such as the page of a gateway in between."""
    try:
        if content_type.endswith("msgpack"):
            body = unpack(raw)
        elif content_type.endswith("json"):
            body = from_json(raw)
        else:
            return {}
    except ValueError as error:
        raise ReplyLost(f"{url_base} answered with a body that cannot be read: {error}") from error
    return body if isinstance(body, dict) else {}
