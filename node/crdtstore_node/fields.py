"""What files of an operator are made of: TOML, and addresses in it.

The question: what is wrong with it, in words? The file, the field, what was expected.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import ValidationError

from crdtstore.errors import UsageError

__all__ = ["Address", "parse_address", "read_toml", "where"]


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, field: str) -> Address:
    """``host:port``.

    Raises:  UsageError naming the field; nothing changed.
    """
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"{field}: expected host:port such as 127.0.0.1:7400, got {text[:100]!r}")
    return Address(host, int(port))


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a TOML file. Nothing changed.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}. Nothing changed.") from None


def where(error: ValidationError, sources: Mapping[str, str]) -> str:
    """The sentence of msgspec with the field in our words, and the environment variable when it came from there."""
    sentence, _, at = str(error).partition(" - at ")
    field = at.strip("`").removeprefix("$.") or None
    if field is None:
        return sentence
    said = f" ({sources[field]})" if field in sources else ""
    return f"{field}{said}: {sentence[:1].lower()}{sentence[1:]}"
