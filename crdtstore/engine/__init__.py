"""One group at one replica, sans I/O: events in, one output out. ``engine.py`` dispatches, the rules stand beside it."""

from crdtstore.engine.engine import Engine
from crdtstore.engine.options import Options

__all__ = ["Engine", "Options"]
