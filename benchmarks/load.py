"""A load generator that costs little: prebuilt requests over raw sockets, one outstanding per connection.

Run as its own process, ``python -m benchmarks.load HOST PORT CONNECTIONS SECONDS``; prints one JSON line: how many adds were acknowledged,
how long each took (sorted sample of milliseconds), and the sum they must read back as.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import cast

import uvloop

from crdtstore.values import to_msgpack

KEYS = 1_000
_BODY = to_msgpack({"ops": [{"op": "add", "amount": 1}]})


class _Connection(asyncio.Protocol):
    """Sends one add after the other until told to stop."""

    def __init__(self, number: int, host: str, deadline: float) -> None:
        self.acknowledged = 0
        self.failed = 0
        self.latencies: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self._number, self._host, self._deadline = number, host, deadline
        self._buffer = b""
        self._sent = 0
        self._at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own classes
        self._send()

    def _send(self) -> None:
        key = (self._number * 7919 + self._sent) % KEYS
        self._sent += 1
        # an operation id as the client makes it: ~ and a UUIDv7
        made = int(time.time() * 1000)
        tail = os.urandom(8).hex()
        name = f"~{made >> 16:08x}-{made & 0xFFFF:04x}-7{tail[:3]}-8{tail[3:6]}-{tail[4:16]}"
        head = (
            f"POST /v1/data/bench/orders/key-{key} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/msgpack\r\n"
            f"Accept: application/msgpack\r\nIdempotency-Key: {name}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        )
        self._at = time.perf_counter()
        self._transport.write(head.encode() + _BODY)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        now = time.perf_counter()
        self._buffer = b""
        if head.startswith(b"HTTP/1.1 200"):
            self.acknowledged += 1
            self.latencies.append((now - self._at) * 1000)
        else:
            self.failed += 1
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _main(host: str, port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    protocols = [_Connection(number, f"{host}:{port}", start + seconds) for number in range(connections)]
    for protocol in protocols:
        await loop.create_connection(lambda protocol=protocol: protocol, host, port)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    latencies = sorted(latency for protocol in protocols for latency in protocol.latencies)
    step = max(1, len(latencies) // 1000)
    print(
        json.dumps(
            {
                "acknowledged": sum(protocol.acknowledged for protocol in protocols),
                "failed": sum(protocol.failed for protocol in protocols),
                "seconds": time.perf_counter() - start,
                "latencies_ms": latencies[::step],
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
