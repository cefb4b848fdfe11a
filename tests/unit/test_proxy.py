"""The fault proxy does to a TCP connection what a network does, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from crdtstore.errors import UsageError
from crdtstore.testing.proxy import Direction, Link, Proxy
from crdtstore.testing.proxy_flow import Flow

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
DEADLINE_S = 5.0
SILENCE_S = 0.05  # how long "nothing arrives" is watched


class Target:
    """An echo server that keeps what every connection sent."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.ends: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.echo = True
        self.deaf: set[int] = set()  # connections, by number from 0, that are not read
        self._over = asyncio.Event()

    async def __aenter__(self) -> Target:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._over.set()
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        is_deaf = len(self.received) in self.deaf
        self.received.append(mine)
        self.writers.append(writer)
        try:
            if is_deaf:
                await self._over.wait()
            while data := await reader.read(65536):
                mine += data
                if self.echo:
                    writer.write(data)
                    await writer.drain()
            self.ends.append("closed")
        except OSError:
            self.ends.append("reset")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with Target() as target:
        yield target


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy(seed=7) as proxy:
        yield proxy


@pytest.fixture
async def link(proxy: Proxy, target: Target) -> Link:
    return await proxy.add("us>eu", target.address)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Link], Awaitable[Streams]]]:
    opened: list[asyncio.StreamWriter] = []

    async def _connect(link: Link) -> Streams:
        reader, writer = await asyncio.open_connection(*link.address)
        opened.append(writer)
        return reader, writer

    yield _connect
    for writer in opened:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


Connect = Callable[[Link], Awaitable[Streams]]


async def say(streams: Streams, data: bytes) -> bytes:
    """Send and read the echo."""
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readexactly(len(data))


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process or a socket
            await asyncio.sleep(0.002)


async def assert_reset(reader: asyncio.StreamReader) -> None:
    async def read_to_the_end() -> None:
        while await reader.read(65536):
            pass

    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(read_to_the_end(), DEADLINE_S)


async def test_bytes_pass_both_ways_and_are_counted(link: Link, target: Target, connect: Connect) -> None:
    data = random.Random(1).randbytes(300_000)
    reader, writer = await connect(link)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read(-1) == data
    await until(lambda: link.counters.open == 0)
    counters = link.counters
    assert (counters.connections, counters.forwarded_out, counters.forwarded_in) == (1, len(data), len(data))
    assert (counters.dropped_out, counters.dropped_in, counters.resets, counters.refused) == (0, 0, 0, 0)
    assert target.ends == ["closed"]


async def test_black_hole_is_silence_and_old_connections_are_reset_at_heal(
    link: Link, target: Target, connect: Connect
) -> None:
    old = await connect(link)
    assert await say(old, b"before") == b"before"
    link.cut()
    old[1].write(b"during")
    new = await connect(link)  # accepted and left hanging
    new[1].write(b"hello")
    assert await is_silent(old[0])
    assert await is_silent(new[0])
    assert target.received == [b"before"]
    assert link.heal() == 2
    await assert_reset(old[0])
    await assert_reset(new[0])
    await until(lambda: target.ends == ["reset"])
    assert target.received == [b"before"], "nothing that was held slips through"
    assert link.counters.dropped_out == len(b"during" + b"hello")
    assert await say(await connect(link), b"after") == b"after"


async def test_heal_without_reset_lets_held_bytes_flow_in_order(link: Link, target: Target, connect: Connect) -> None:
    old = await connect(link)
    assert await say(old, b"1") == b"1"
    link.cut()
    old[1].write(b"2")
    new = await connect(link)
    assert await is_silent(old[0])
    assert link.heal(reset=False) == 0
    assert await say(old, b"3") == b"2"
    assert await old[0].readexactly(1) == b"3"
    assert await say(new, b"n") == b"n"
    assert sorted(bytes(each) for each in target.received) == [b"123", b"n"]


async def test_cut_stops_reading_so_that_the_sender_is_pushed_back(
    proxy: Proxy, target: Target, connect: Connect
) -> None:
    link = await proxy.add("small", target.address, buffer_bytes=100_000)
    _, writer = await connect(link)
    link.cut()
    data = bytes(64 << 20)  # more than all socket buffers on the way
    writer.write(data)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await writer.drain()
    assert link.counters.forwarded_out == 0
    writer.transport.abort()
    link.heal()
    await until(lambda: link.counters.open == 0)
    assert link.counters.dropped_out <= 100_000 + 65536
    assert not target.received or not target.received[0]


@pytest.mark.parametrize("direction", ["out", "in"])
async def test_one_way_cut(link: Link, target: Target, connect: Connect, direction: Direction) -> None:
    old = await connect(link)
    assert await say(old, b"1") == b"1"
    link.cut(direction)
    old[1].write(b"2")
    await until(lambda: len(target.received[0]) == (1 if direction == "out" else 2))
    target.writers[0].write(b"x")
    if direction == "out":
        assert await old[0].readexactly(1) == b"x"
    assert await is_silent(old[0])
    new = await connect(link)  # a handshake needs both directions
    new[1].write(b"n")
    assert await is_silent(new[0])
    assert len(target.received) == 1
    assert link.heal(reset=False) == 0
    await until(lambda: bytes(target.received[0]) == b"12")
    assert await say(new, b"") == b""
    assert await new[0].readexactly(1) == b"n"


async def test_ends_do_not_travel_during_a_cut(link: Link, target: Target, connect: Connect) -> None:
    leaving, resetting = await connect(link), await connect(link)
    assert await say(leaving, b"a") == b"a"
    assert await say(resetting, b"b") == b"b"
    link.cut()
    leaving[1].close()
    await leaving[1].wait_closed()
    resetting[1].transport.abort()
    await asyncio.sleep(SILENCE_S)
    assert target.ends == []
    assert link.counters.open == 2
    link.heal(reset=False)
    await until(lambda: len(target.ends) == 2)
    await until(lambda: link.counters.open == 0)


async def test_client_that_gives_up_while_hanging_leaves_nothing(link: Link, target: Target, connect: Connect) -> None:
    link.cut()
    _, writer = await connect(link)
    writer.write(b"never")
    await until(lambda: link.counters.open == 1)
    writer.close()
    await until(lambda: link.counters.open == 0)
    link.heal(reset=False)
    assert await say(await connect(link), b"now") == b"now"
    assert target.received == [b"now"]


async def test_delay_with_jitter_keeps_order_and_repeats_with_the_seed(link: Link, connect: Connect) -> None:
    link.delay(30, jitter_ms=20)
    streams = await connect(link)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await say(streams, b"x") == b"x"
    assert loop.time() - start >= 0.060  # there and back
    data = b"".join(number.to_bytes(4, "big") for number in range(1000))
    reader, writer = streams
    for position in range(0, len(data), 40):
        writer.write(data[position : position + 40])
        await asyncio.sleep(0)
    assert await reader.readexactly(len(data)) == data

    def draws(seed: int, name: str) -> list[float]:
        dice = Link(name, ("127.0.0.1", 1), seed=seed)._dice(1, "out")
        return [dice.random() for _ in range(3)]

    assert draws(7, "a") == draws(7, "a")
    assert draws(7, "a") != draws(8, "a")
    assert draws(7, "a") != draws(7, "b")


async def test_delay_is_never_earlier_than_what_came_before() -> None:
    flow = Flow()
    flow.delay_ms, flow.jitter_ms = 10, 100
    dice, due = random.Random(3), 0.0
    for _ in range(100):
        later = flow.due(due, dice)
        assert later >= due
        due = later


async def test_throttle_limits_all_connections_together(link: Link, target: Target, connect: Connect) -> None:
    target.echo = False
    link.throttle(100_000, "out")
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(2):
        _, writer = await connect(link)
        writer.write(bytes(15_000))
    await until(lambda: sum(map(len, target.received)) == 30_000)
    assert loop.time() - start >= 0.25
    link.throttle(None)
    assert link.faults()["out"]["bytes_per_second"] is None


async def test_reset_reaches_both_sides(link: Link, target: Target, connect: Connect) -> None:
    streams = await connect(link)
    assert await say(streams, b"x") == b"x"
    assert link.reset() == 1
    assert link.reset() == 0
    await assert_reset(streams[0])
    await until(lambda: target.ends == ["reset"])
    assert await say(await connect(link), b"y") == b"y"


async def test_reset_before_the_first_step_leaks_no_socket(link: Link) -> None:
    accepted = asyncio.Event()
    on_accept = link._on_accept

    def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_accept(reader, writer)
        link.reset()
        accepted.set()

    link._on_accept = reset_at_once  # type: ignore[method-assign]
    await link.stop()
    await link.start()
    reader, writer = await asyncio.open_connection(*link.address)
    async with asyncio.timeout(DEADLINE_S):
        await accepted.wait()
    await assert_reset(reader)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def test_reset_of_a_peer_is_passed_on(link: Link, target: Target, connect: Connect) -> None:
    streams = await connect(link)
    assert await say(streams, b"x") == b"x"
    target.writers[0].transport.abort()
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionResetError):
            assert await streams[0].read() == b""
    await until(lambda: link.counters.open <= 1)


async def test_duplicate_stream_is_heard_twice_and_answered_once(link: Link, target: Target, connect: Connect) -> None:
    link.duplicate()
    streams = await connect(link)
    assert await say(streams, b"hello") == b"hello"
    await until(lambda: [bytes(each) for each in target.received] == [b"hello", b"hello"])
    assert await is_silent(streams[0])
    assert link.counters.copies == 1
    streams[1].write_eof()
    assert await streams[0].read() == b""
    await until(lambda: link.counters.open == 0)
    link.duplicate(False)
    assert await say(await connect(link), b"once") == b"once"
    assert len(target.received) == 3


async def test_duplicate_that_is_refused_does_not_disturb_the_original(
    link: Link, target: Target, connect: Connect
) -> None:
    link.duplicate()
    streams = await connect(link)
    assert await say(streams, b"a") == b"a"
    await until(lambda: len(target.writers) == 2)
    target.writers[1].transport.abort()
    assert await say(streams, b"b" * 1000) == b"b" * 1000
    assert await say(streams, b"c") == b"c"


async def test_duplicate_that_does_not_keep_up_is_dropped(proxy: Proxy, target: Target, connect: Connect) -> None:
    link = await proxy.add("small", target.address, buffer_bytes=100_000)
    link.duplicate()
    target.deaf = {1}
    streams = await connect(link)
    data = bytes(1 << 20)
    for _ in range(32):  # more than the sockets of the copy take
        assert await say(streams, data) == data
    assert len(target.received[0]) == 32 << 20


async def test_writes_to_a_lost_client_are_not_reported_through_a_cut(
    link: Link, target: Target, connect: Connect
) -> None:
    streams = await connect(link)
    assert await say(streams, b"x") == b"x"
    link.cut("out")
    streams[1].transport.abort()
    for _ in range(20):
        target.writers[0].write(b"are you there?")
        await asyncio.sleep(0.002)
    assert target.ends == []
    assert link.counters.open == 1
    link.heal(reset=False)
    await until(lambda: len(target.ends) == 1)
    await until(lambda: link.counters.open == 0)


async def test_dead_target_and_too_many_connections_are_refused_by_reset(
    proxy: Proxy, target: Target, connect: Connect
) -> None:
    link = await proxy.add("one", target.address, max_connections=1)
    first = await connect(link)
    assert await say(first, b"1") == b"1"
    await assert_reset((await connect(link))[0])
    assert await say(first, b"2") == b"2"
    assert link.counters.refused == 1
    dead = await proxy.add("dead", target.address)
    held = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    dead.target = held.sockets[0].getsockname()[:2]
    held.close()
    await held.wait_closed()
    await assert_reset((await connect(dead))[0])
    assert dead.counters.refused == 1


async def test_proxy_cuts_links_by_name(proxy: Proxy, target: Target, connect: Connect) -> None:
    a, b = await proxy.add("a", target.address), await proxy.add("b", target.address)
    proxy.partition("a")
    assert (a.is_cut, b.is_cut) == (True, False)
    assert await say(await connect(b), b"b") == b"b"
    streams = await connect(a)
    assert await is_silent(streams[0])
    assert proxy.heal() == 1, "only what was cut is reset"
    proxy.partition(direction="in")
    assert (a.faults()["out"]["cut"], a.faults()["in"]["cut"], b.is_cut) == (False, True, True)
    proxy.clear()
    assert not a.is_cut
    assert proxy.counters()["b"]["connections"] == 1
    with pytest.raises(UsageError, match="unknown link c, there are: a, b"):
        proxy.partition("a", "c")
    assert not a.is_cut
    with pytest.raises(UsageError, match="already"):
        await proxy.add("a", target.address)


async def test_bad_arguments_say_so(link: Link) -> None:
    with pytest.raises(UsageError, match="out, in or both"):
        link.cut("sideways")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not negative"):
        link.delay(-1)
    with pytest.raises(UsageError, match="at least 1 byte/s"):
        link.throttle(0)
    with pytest.raises(UsageError, match="does not listen"):
        _ = Link("x", ("127.0.0.1", 1)).address


async def test_stop_during_traffic_and_cut_leaves_no_connection(proxy: Proxy, target: Target, connect: Connect) -> None:
    link = await proxy.add("busy", target.address)
    link.delay(500)
    streams = await connect(link)
    streams[1].write(bytes(100_000))
    await until(lambda: link.counters.open == 1)
    link.cut()
    await connect(link)
    await link.stop()
    assert link.counters.open == 0
    await assert_reset(streams[0])
