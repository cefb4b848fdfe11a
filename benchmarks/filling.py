"""A node without sockets and threads: the same host, log and state store in one process, each step timed.

For directories of millions of keys, which no client could fill in time, and for figures in CPU time: what a step costs here is not what
other processes on this machine cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from crdtstore.configuration import group_of
from crdtstore.engine.events import Draft, Op, Persisted
from crdtstore.host import HostOutput
from crdtstore.saving import Save, Saved
from crdtstore.types import REGISTRY
from crdtstore_node.config import load
from crdtstore_node.node import Opened

__all__ = ["DOMAIN", "Inside", "adds"]

DOMAIN = "bench"
_COUNTER = REGISTRY["counter"]
_ADD = _COUNTER.mutators["add"]


def adds(keys: Iterable[int], amount: int = 1) -> Draft:
    """One commit that adds to these counters."""
    return Draft(0, [Op(_COUNTER, "orders:counter", f"key-{key}", _ADD, {"amount": amount}) for key in keys])


class Inside:
    """The node of a directory, driven by hand. ``steps_ms`` has the CPU time of every step of the host since it was last cleared."""

    def __init__(self, config: Path, **engine: int) -> None:
        """``engine``: options of it, instead of those of the configuration."""
        environment = {f"CRDTSTORE_ENGINE_{name.upper()}": str(value) for name, value in engine.items()}
        self._opened = Opened(load(config, environment), is_bootstrap=False)
        self.host, self.log, self.store = self._opened.host, self._opened.log, self._opened.store
        self.engine = self.host.groups[group_of(DOMAIN)]
        assert self.host.saving is not None
        self.saving = self.host.saving
        self.steps_ms: list[float] = []
        self.saves: list[Save] = []
        """Not done yet; ``save`` does the next one."""
        self.host.on_replies = lambda replies: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the directory back, without a checkpoint."""
        assert self.store is not None
        self.log.close()
        self.store.close()

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def write(self, drafts: Sequence[Draft]) -> None:
        """One batch of commits, made durable."""
        group = self.engine.group
        self._carry_out(self._step(lambda now_ms, out: self.host.commit(group, list(drafts), now_ms, out)))

    def tick(self) -> int:
        """Let time pass; return when there is more to do (Unix ms)."""
        out = self._step(self.host.tick)
        self._carry_out(out)
        return out.wake_ms

    def save(self) -> None:
        """Let the state store do the next thing it was asked for."""
        assert self.store is not None
        save = self.saves.pop(0)
        if save.part is None:
            self.store.commit()
            saved = Saved(save.number)
        else:
            saved = Saved(save.number, *self.store.write(save.part))
        self._carry_out(self._step(lambda now_ms, out: self.host.saved(saved, now_ms, out)))

    def begin(self) -> None:
        """Begin a checkpoint, whether or not one is due."""

        def begin(now_ms: int, out: HostOutput) -> None:
            self.saving.begin(now_ms)
            self.saving._hand_out(out)  # else only time or size lets it begin

        self._carry_out(self._step(begin))

    def checkpoint(self) -> None:
        """A whole checkpoint of everything that is unsaved."""
        while self.saves:
            self.save()
        self.begin()
        while self.saves:
            self.save()

    def _step(self, do: Callable[[int, HostOutput], None]) -> HostOutput:
        out, now_ms = HostOutput(), self.now_ms
        start = time.thread_time()
        do(now_ms, out)
        self.host.finish(now_ms, out)
        self.steps_ms.append((time.thread_time() - start) * 1e3)
        return out

    def _carry_out(self, out: HostOutput) -> None:
        self.saves += out.save
        if out.cut is not None:
            self.log.cut(out.cut)
        if out.persist:
            position = self.log.write([self.log.encode(out.persist)])
            event = Persisted(out.persist_number, position)
            self._carry_out(self._step(lambda now_ms, later: self.host.persisted(event, now_ms, later)))
