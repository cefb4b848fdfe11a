"""Ports of loopback: having one to oneself, and knowing who serves it.

The question: a port is free between our closing it and the node opening it; who guarantees that the node which then
answers there is ours? Nobody, and two clusters that both prefer 7401 do meet. So whoever waits for a node asks the
kernel whose listener it is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["hold_port", "is_served_by"]

_LISTEN = "0A"


def hold_port(preferred: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """A port that is ours until the socket is closed: ``preferred`` if it is free, else any.

    It listens, because a socket that is only bound does not keep others from the port.
    """
    for port in (preferred, 0) if preferred else (0,):
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host, port))
            held.listen(1)
        except OSError:
            held.close()
            if port == 0:
                raise
        else:
            return held
    raise AssertionError("port 0 either binds or raises")


def is_served_by(port: int, leader: int) -> bool:
    """Whether the listener at ``port`` belongs to the process group of ``leader``; true where the system does not tell."""
    listeners = {f"socket:[{inode}]" for inode in _listeners(port)}
    return not listeners or any(not listeners.isdisjoint(_open_files(pid)) for pid in _group(leader))


def _listeners(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _group(leader: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                if os.getpgid(int(name)) == leader:
                    yield int(name)


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")
