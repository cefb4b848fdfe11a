"""Where backups are kept: a folder, or a bucket of an object storage.

The question: what may an address give away? Credentials of an object storage come from the environment, as its own tools read them, and
never from the address: it is printed, logged and kept in shell histories. What is printed of an address is scheme, bucket and path only,
and of an error of the storage its first line, without what looks like a secret.

An object is there whole or not at all: a folder gets it under another name first, synced and then renamed; a bucket does so by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from crdtstore.errors import StorageError, UsageError
from crdtstore.storage import segment

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["Bucket", "Folder", "Target", "open_target"]

SCHEMES = ("s3", "gs", "az", "file")
_UNFINISHED = ".new"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""With one slash too: a folder of the name ``s3:`` is not what was meant."""
_SECRET = re.compile(
    r"(?i)(?:secret|token|password|passwd|signature|sig|credential|access_?key|account_?key|sas)[\w-]*\s*[=:]\s*\S+"
)
_USER = re.compile(r"//[^/\s@]*@")
_QUERY = re.compile(r"\?\S*")
_SECRET_NAME = re.compile(r"(?i)secret|token|password|key|sas|credential")
_ASKS_MACHINE = re.compile(r"169\.254\.169\.254|metadata\.google\.internal")
"""Where virtual machines ask who they are."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION; AWS_ENDPOINT_URL for another than Amazon)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_LEAST_SECRET = 6
"""A shorter value of the environment is no secret, and would stand in half of all sentences."""


class Target(Protocol):
    """Objects by name; ``/`` makes folders. ``shown`` is what may be printed."""

    shown: str

    def put(self, name: str, data: bytes) -> None:
        """Keep these bytes under this name, durably, all of them or none.

        Raises:  StorageError naming the object.
        """

    def get(self, name: str) -> bytes:
        """All bytes of an object.

        Raises:  StorageError naming the object: ``not-there`` in ``more`` when there is none.
        """

    def names(self, below: str = "") -> list[str]:
        """The names of all objects, or of those in a folder, in order; one that ends with ``/`` is of a folder with nothing in it.

        Raises:  StorageError; UsageError when there is no such place.
        """

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is removed already.

        Raises:  StorageError.
        """


def open_target(text: str, environ: Mapping[str, str] = os.environ) -> Target:
    """The target with this address: a path, or a URL.

    Raises:  UsageError; nothing changed.
    """
    if not _URL.match(text):
        return Folder(Path(text))
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise UsageError(f"the address of the target is no URL: {error}. Nothing changed.") from None
    scheme = url.scheme
    shown = f"{scheme}://{url.hostname or ''}{url.path}"
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}: expected a folder or a URL of {', '.join(SCHEMES)}. Nothing changed.")
    if scheme != "file" and not url.netloc:
        raise UsageError(f"expected {scheme}://bucket/folder. Nothing changed.")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise UsageError(
            f"{shown}: credentials and settings of an object storage come from the environment (such as AWS_ACCESS_KEY_ID, "
            "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY), not from the address. Nothing changed."
        )
    if scheme == "file":
        return Folder(Path(unquote(url.path)))
    return Bucket(_store(text, shown, environ), shown, environ)


def _store(url: str, shown: str, environ: Mapping[str, str]) -> ObjectStore:
    try:
        from obstore.store import from_url  # noqa: PLC0415 - only object storage needs it
    except ImportError:
        raise UsageError(
            f"{shown}: object storage needs the package obstore: pip install 'crdtstore[backup]'. Nothing changed."
        ) from None
    try:
        return from_url(url)
    except Exception as error:
        raise UsageError(f"{shown}: {_said(error, environ)}. Nothing changed.") from None


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.shown = str(path)

    def put(self, name: str, data: bytes) -> None:
        path = self._path / name
        draft = path.with_name(path.name + _UNFINISHED)
        with segment.naming(path):
            segment.make_directory(path.parent)
            try:
                fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
                try:
                    segment.write_all(fd, data, 0)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                draft.replace(path)
            except OSError:
                with suppress(OSError):
                    draft.unlink(missing_ok=True)
                raise
            segment.sync_directory(path.parent)

    def get(self, name: str) -> bytes:
        path = self._path / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(str(path)) from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}", file=str(path)) from error

    def names(self, below: str = "") -> list[str]:
        if not self._path.is_dir():
            raise UsageError(f"{self.shown}: there is no backup, for there is no such folder. Nothing changed.")
        found: list[str] = []
        with segment.naming(self._path):
            for path, folders, files in os.walk(self._path / below):
                at = Path(path).relative_to(self._path)
                found += [(at / name).as_posix() for name in files]
                if not folders and not files and at.parts:
                    found.append(f"{at.as_posix()}/")
        return sorted(found)

    def delete(self, name: str) -> None:
        path = self._path / name
        with segment.naming(path):
            if name.endswith("/"):
                with suppress(FileNotFoundError):
                    path.rmdir()
                return
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder may hold more
                path.parent.rmdir()


class Bucket:
    """A bucket of an object storage, or a folder in it."""

    def __init__(self, store: ObjectStore, shown: str, environ: Mapping[str, str] = os.environ) -> None:
        self._store = store
        self._environ = environ
        self.shown = shown

    def put(self, name: str, data: bytes) -> None:
        import obstore  # noqa: PLC0415 - see _store

        try:
            obstore.put(self._store, name, data)
        except Exception as error:
            raise self._failed(name, error) from None

    def get(self, name: str) -> bytes:
        import obstore  # noqa: PLC0415 - see _store

        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            raise _missing(f"{self.shown.rstrip('/')}/{name}") from None
        except Exception as error:
            raise self._failed(name, error) from None

    def names(self, below: str = "") -> list[str]:
        import obstore  # noqa: PLC0415 - see _store

        try:
            return sorted(self._paths(obstore.list(self._store, prefix=below or None)))
        except Exception as error:
            raise self._failed(below, error) from None

    @staticmethod
    def _paths(batches: Any) -> Iterator[str]:
        for batch in batches:
            for meta in batch:
                yield str(meta["path"])

    def delete(self, name: str) -> None:
        import obstore  # noqa: PLC0415 - see _store

        try:
            obstore.delete(self._store, name)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._failed(name, error) from None

    def _failed(self, name: str, error: Exception) -> StorageError:
        where = f"{self.shown.rstrip('/')}/{name}"
        if _ASKS_MACHINE.search(
            str(error)
        ):  # nothing in the environment: then the machine is asked, which is none of a cloud
            how = _CREDENTIALS.get(self.shown.partition(":")[0], "those of its own tools")
            return StorageError(f"{where}: there are no credentials for it in the environment: set {how}.", file=where)
        return StorageError(f"{where}: {_said(error, self._environ)}", file=where)


def _missing(where: str) -> StorageError:
    return StorageError(f"{where}: there is no such object. Nothing changed.", file=where, is_missing=True)


def _said(error: Exception, environ: Mapping[str, str]) -> str:
    """The first line of what an object storage says, without anything secret."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
    for name, value in environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET_NAME.search(name):
            line = line.replace(value, "…")
    return _SECRET.sub("…", _QUERY.sub("", _USER.sub("//", line)))
