"""A stand-in for an object storage: as much of the S3 protocol as a backup needs, on loopback, with refusals on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

NAME = "backups"


class Storage(ThreadingHTTPServer):
    """One bucket. ``refuse``: every request is answered 403 with this text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.authorizations: set[str] = set()
        self.refuse: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Storage
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "ETag": '"0"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def _key(self) -> str | None:
        """The object that is meant, "" for the bucket; None: the request is refused."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        if self.server.refuse is not None:
            self._answer(403, f"<Error><Message>{self.server.refuse}</Message></Error>".encode())
            return None
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        assert bucket == NAME
        return key

    def do_PUT(self) -> None:
        if key := self._key():
            self.server.objects[key] = self.body
            self._answer(200)

    def do_GET(self) -> None:
        key = self._key()
        if key is None:
            return
        if not key:
            self._list(parse_qs(urlsplit(self.path).query).get("prefix", [""])[0])
        elif key in self.server.objects:
            self._answer(200, self.server.objects[key], Last_Modified="Mon, 05 Jan 2026 10:00:00 GMT")
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        if self._key() is not None:
            keys = re.findall(r"<Key>(.*?)</Key>", self.body.decode())
            for key in keys:
                self.server.objects.pop(unescape(key), None)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, prefix: str) -> None:
        found = sorted(key for key in self.server.objects if key.startswith(prefix))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            "<LastModified>2026-01-05T10:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag></Contents>"
            for key in found
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        self._answer(200, body.encode())


@contextmanager
def storage() -> Iterator[Storage]:
    server = Storage()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
