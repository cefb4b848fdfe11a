"""A load that comes whether or not the node keeps up: so many requests a second to random keys, each timed from when it was due.

The question: what does a stall of the node look like? To clients that wait for their answer before they ask again it is one late answer
each; here everything that was due meanwhile is late. Run as its own process, ``python -m benchmarks.steady HOST PORT DO RATE CONNECTIONS
SECONDS KEYS SEED``; DO is ``add`` or ``read``; RATE 0: as fast as the connections allow; a SIGTERM ends it before its time. Prints one
JSON line: how many were answered, how many failed, and for each when it was due (Unix ms) and how long it took (ms).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from random import Random
from typing import cast

import uvloop

from crdtstore.values import to_msgpack

__all__: list[str] = []

_BODY = to_msgpack({"ops": [{"op": "add", "amount": 1}]})


class _Load:
    """What is due, and who is free to send it. Mutable."""

    def __init__(self, do: str, rate: float, keys: int, seed: int, host: str) -> None:
        self.rate = rate
        self.took: list[tuple[float, float]] = []
        self.failed = 0
        self.is_over = False
        """Nothing more becomes due."""
        self.due: deque[float] = deque()
        self.free: list[_Connection] = []
        self._do, self._keys, self._random, self._host = do, keys, Random(seed), host

    def request(self) -> bytes:
        path = f"/v1/data/bench/orders/key-{self._random.randrange(self._keys)}"
        if self._do == "read":
            return f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/msgpack\r\n"
            f"Accept: application/msgpack\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        )
        return head.encode() + _BODY

    def go_on(self) -> None:
        """Let those who are free send what is due."""
        while self.free and (self.due or (not self.rate and not self.is_over)):
            self.free.pop().send(self.due.popleft() if self.due else time.time())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own classes
        self._load.free.append(self)

    def send(self, due: float) -> None:
        self._due = due
        self._transport.write(self._load.request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        self._buffer = b""
        load = self._load
        load.took.append((self._due * 1e3, (time.time() - self._due) * 1e3))
        load.failed += not head.startswith(b"HTTP/1.1 200")
        load.free.append(self)
        load.go_on()


async def _main(
    host: str, port: int, do: str, rate: float, connections: int, seconds: float, keys: int, seed: int
) -> None:
    loop = asyncio.get_running_loop()
    load = _Load(do, rate, keys, seed, f"{host}:{port}")
    loop.add_signal_handler(signal.SIGTERM, setattr, load, "is_over", True)
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(load), host, port)
    start = time.time()
    sent = 0
    while (now := time.time()) < start + seconds and not load.is_over:
        while rate and start + sent / rate <= now:
            load.due.append(start + sent / rate)
            sent += 1
        load.go_on()
        await asyncio.sleep(0.001 if rate else 0.05)
    load.is_over = True
    took_s = time.time() - start
    while (load.due or len(load.free) < connections) and time.time() < start + seconds + 30:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    print(json.dumps({"answered": len(load.took), "failed": load.failed, "seconds": took_s, "took": load.took}))


if __name__ == "__main__":
    host, port, do, rate, connections, seconds, keys, seed = sys.argv[1:]
    uvloop.run(_main(host, int(port), do, float(rate), int(connections), float(seconds), int(keys), int(seed)))
