"""Load: any number of ops through one store, many at a time.

The question: how are writes to one key kept in order while others overtake? A request takes ops that follow each other
on the same key, and a key has at most one request under way. Ops are taken from their source only when there is room to
send them, so a generator of a million ops never stands in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from crdtstore_client.ops import Op

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["load"]

IN_FLIGHT = 256
OPS_PER_REQUEST = 100


async def _each(ops: Iterable[Op[Any]] | AsyncIterable[Op[Any]]) -> AsyncGenerator[Op[Any], None]:
    if isinstance(ops, AsyncIterable):
        async for op in ops:
            yield op
    else:
        for op in ops:
            yield op


async def _chunks(ops: Iterable[Op[Any]] | AsyncIterable[Op[Any]]) -> AsyncGenerator[list[Op[Any]], None]:
    chunk: list[Op[Any]] = []
    async with aclosing(_each(ops)) as each:
        async for op in each:
            op.discard()  # from here on the load answers for it
            is_same_key = chunk and (op.collection, op.key) == (chunk[0].collection, chunk[0].key)
            if chunk and (not is_same_key or len(chunk) >= OPS_PER_REQUEST):
                yield chunk
                chunk = []
            chunk.append(op)
    if chunk:
        yield chunk


class _Load:
    """One load: what is under way, and how it went so far."""

    def __init__(self, domain: Domain, progress: Callable[[int], None] | None) -> None:
        self._domain = domain
        self._progress = progress
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self.done = 0
        self.failure: Exception | None = None

    async def run(self, ops: Iterable[Op[Any]] | AsyncIterable[Op[Any]]) -> None:
        try:
            async with aclosing(_chunks(ops)) as chunks:
                async for chunk in chunks:
                    key = (chunk[0].collection, chunk[0].key)
                    await self._room_for(key)
                    if self.failure is not None:
                        break
                    self._under_way[key] = asyncio.create_task(self._send(key, chunk))
            await self._room_for(None)
        except BaseException:
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _room_for(self, key: tuple[str, str] | None) -> None:
        """Wait until one more request may start, none under way being on the same key; None waits for all to end."""
        while self._under_way and (key is None or key in self._under_way or len(self._under_way) >= IN_FLIGHT):
            self._room.clear()
            await self._room.wait()

    async def _send(self, key: tuple[str, str], chunk: list[Op[Any]]) -> None:
        try:
            await self._domain.commit(*chunk)
            self.done += len(chunk)
            if self._progress is not None:
                self._progress(self.done)
        except Exception as error:
            self.failure = self.failure or error
        finally:
            del self._under_way[key]
            self._room.set()


async def load(
    domain: Domain, ops: Iterable[Op[Any]] | AsyncIterable[Op[Any]], progress: Callable[[int], None] | None
) -> int:
    """See ``Domain.load``."""
    run = _Load(domain, progress)
    await run.run(ops)
    if run.failure is not None:
        run.failure.add_note(f"{run.done} ops of this load are durable")
        raise run.failure
    return run.done
