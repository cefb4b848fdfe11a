"""A load generator for sessions that costs little: prebuilt frames over raw sockets.

Run as its own process, ``python -m benchmarks.session_load HOST PORT SESSIONS OUTSTANDING SECONDS``: so many sessions, each with so many
adds that are not answered; the adds that follow the replies of one turn leave in one frame, as those of a client's tasks do. Prints one
JSON line: how many adds were acknowledged, how long they took (sorted sample of milliseconds), and how many frames went either way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from typing import Any, cast

import msgspec
import uvloop

KEYS = 1_000
_decode = msgspec.msgpack.Decoder().decode


class _Sent:
    """The parts of an add's bytes that do not change: only its number and its operation id do."""

    def __init__(self) -> None:
        pack = msgspec.msgpack.encode
        self.heads = [
            pack(
                {
                    "do": "commit",
                    "domain": "bench",
                    "ops": [{"collection": "orders", "key": f"key-{key}", "op": "add", "amount": 1}],
                    "id": "",
                }
            )[1:-1]
            + b"\xd9\x25~"
            for key in range(KEYS)
        ]

        self.numbers = [b"\x85\xa1n" + pack(n) for n in range(1 << 16)]

    def add(self, n: int, key: int, operation: bytes) -> bytes:
        return self.numbers[n] + self.heads[key] + operation


_SENT = _Sent()


def _operations(count: int) -> list[bytes]:
    """Operation ids as the client makes them, without the ~: UUIDs of version 7."""
    made = int(time.time() * 1000)
    head = f"{made >> 16:08x}-{made & 0xFFFF:04x}-7".encode()
    tails = os.urandom(10 * count).hex().encode()
    found = []
    for at in range(0, 20 * count, 20):
        found.append(head + tails[at : at + 3] + b"-8" + tails[at + 3 : at + 6] + b"-" + tails[at + 6 : at + 18])
    return found


def _framed(payload: bytes) -> bytes:
    """A client's frame: masked, with a mask of zeros, which changes nothing and costs nothing."""
    size = len(payload)
    if size < 126:
        return bytes((0x82, 0x80 | size)) + b"\0\0\0\0" + payload
    if size < 1 << 16:
        return b"\x82\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
    return b"\x82\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + payload


class _Session(asyncio.Protocol):
    """Keeps so many adds unanswered until told to stop."""

    def __init__(self, number: int, host: str, outstanding: int, deadline: float) -> None:
        self.acknowledged = self.failed = self.frames_in = self.frames_out = 0
        self.latencies: list[float] = []
        self.problem: Any = None
        self.done = asyncio.get_running_loop().create_future()
        self._number, self._host, self._deadline, self._outstanding = number, host, deadline, outstanding
        self._buffer = b""
        self._is_open = False
        self._at = [0.0] * outstanding
        self._sent = number * 7919
        self._unanswered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own classes
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /v1/session HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._is_open, self._buffer = True, rest
        at, buffer = 0, self._buffer
        free: list[int] = []
        while (found := _whole(buffer, at)) is not None:
            is_binary = buffer[at] == 0x82  # else a ping, of which this is no test, or a close
            start, at = found
            if is_binary:
                self._on_frame(_decode(memoryview(buffer)[start:at]), free)
        self._buffer = buffer[at:]
        if free:
            self._send(free)

    def _on_frame(self, message: Any, free: list[int]) -> None:
        self.frames_in += 1
        now = time.perf_counter()
        for reply in message if type(message) is list else (message,):
            n = reply.get("n")
            if n is None:  # the hello
                free.extend(range(self._outstanding))
                continue
            self._unanswered -= 1
            if "problem" in reply:
                self.failed += 1
                self.problem = reply["problem"]
            else:
                self.acknowledged += 1
                if not self.acknowledged & 15:
                    self.latencies.append((now - self._at[n]) * 1000)
            free.append(n)

    def _send(self, free: list[int]) -> None:
        now = time.perf_counter()
        if now >= self._deadline:
            if not self._unanswered:
                self._transport.close()
            return
        parts, add, sent = [], _SENT.add, self._sent
        for n, operation in zip(free, _operations(len(free)), strict=True):
            sent += 1
            parts.append(add(n, sent % KEYS, operation))
            self._at[n] = now
        self._sent = sent
        self._unanswered += len(free)
        count = len(free)
        head = b"" if count == 1 else b"\xdc" + count.to_bytes(2, "big")
        self.frames_out += 1
        self._transport.write(_framed(head + b"".join(parts)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += self._unanswered
        if not self.done.done():
            self.done.set_result(None)


def _whole(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at ``at`` begins and ends, if all of it is here."""
    left = len(buffer) - at
    if left < 2:
        return None
    size, start = buffer[at + 1], at + 2
    if size == 126:
        start += 2
        size = int.from_bytes(buffer[at + 2 : start], "big")
    elif size == 127:
        start += 8
        size = int.from_bytes(buffer[at + 2 : start], "big")
    return (start, start + size) if start <= len(buffer) and start + size <= len(buffer) else None


async def _main(host: str, port: int, sessions: int, outstanding: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    protocols = [_Session(number, f"{host}:{port}", outstanding, start + seconds) for number in range(sessions)]
    for protocol in protocols:
        await loop.create_connection(lambda protocol=protocol: protocol, host, port)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    latencies = sorted(latency for protocol in protocols for latency in protocol.latencies)
    step = max(1, len(latencies) // 1000)
    result = {
        "acknowledged": sum(protocol.acknowledged for protocol in protocols),
        "failed": sum(protocol.failed for protocol in protocols),
        "seconds": time.perf_counter() - start,
        "latencies_ms": latencies[::step],
        "frames_out": sum(protocol.frames_out for protocol in protocols),
        "frames_in": sum(protocol.frames_in for protocol in protocols),
        "cpu_seconds": time.process_time(),
    }
    problems = [protocol.problem for protocol in protocols if protocol.problem is not None]
    print(json.dumps({**result, "problem": problems[0]} if problems else result))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
