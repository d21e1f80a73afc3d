"""Where a store lives: keys and bytes, in a local folder or under `s3://bucket/prefix`.

Zarr's own stores do the reading, the listing and the writing to S3. Local files are written here, in Zarr's way (under
a temporary name, then renamed), because they must be fsynced, and because Zarr would first copy a shard into one piece.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from synth_pipeline.errors import ConfigError, MissingExtraError, ResourceError, StoreError
from synth_pipeline.runs import friendly_os_errors

PARTIAL = ".partial"
MAX_PARTS = os.sysconf("SC_IOV_MAX")  # of one call that reads or writes several pieces of memory
_PROTOTYPE = default_buffer_prototype()
_T = TypeVar("_T")
Part = bytes | memoryview
Change = Callable[[bytes | None], bytes | None]


class Folder(ABC):
    """Keys and bytes. Every `put` is atomic: a reader sees all of the old bytes or all of the new ones.

    Attributes:
        url: The absolute path, or the `s3://` address.
        local: The path, or None when remote.
    """

    def __init__(self, url: str, local: Path | None, store: Store) -> None:
        self.url, self.local, self._store = url, local, store

    def __repr__(self) -> str:
        return f"Folder('{self.url}')"

    def get(self, key: str, first: int = 0, last: int | None = None) -> bytes | None:
        """Bytes `first <= i < last` of a key, or None when there is no such key."""
        span = OffsetByteRequest(first) if last is None else RangeByteRequest(first, last)
        return self._get(key, span if (first, last) != (0, None) else None)

    def tail(self, key: str, count: int) -> bytes | None:
        """The last `count` bytes of a key, or None when there is no such key."""
        return self._get(key, SuffixByteRequest(count))

    def get_many(self, keys: Iterable[str]) -> list[bytes | None]:
        """Whole values, fetched together."""

        async def fetch() -> list[Any]:
            return await asyncio.gather(*(self._store.get(key, _PROTOTYPE) for key in keys))

        return [None if found is None else found.to_bytes() for found in self._run(fetch())]

    def put(self, key: str, data: bytes) -> None:
        """Write a key atomically; on a local disk it is durable when the call returns."""
        self.write(key, [data])

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Write the parts of a key atomically; on a local disk they are durable after `sync`."""
        self._run(self._store.set(key, _PROTOTYPE.buffer.from_bytes(b"".join(parts))))

    @abstractmethod
    def sync(self, key: str) -> None:
        """Make a written key durable."""

    def delete(self, key: str) -> None:
        """Remove a key; a missing one is fine."""
        self._run(self._store.delete(key))

    def list_keys(self, prefix: str = "") -> list[str]:
        """Every key inside the folder `prefix`, sorted."""

        async def listed() -> list[str]:
            return [key async for key in self._store.list_prefix(prefix)]

        return sorted(key for key in self._run(listed()) if not prefix or key.startswith(f"{prefix}/"))

    @abstractmethod
    def exists(self) -> bool:
        """Whether keys can be looked up; asking a local folder that is not there would make it."""

    @abstractmethod
    def update(self, key: str, change: Change) -> None:
        """Read a key, change it, write it back, as one step that no other process can come between.

        Args:
            key: The key.
            change: Gets the present bytes or None; returns the new bytes, or None to remove the key.
        """

    def _get(self, key: str, span: Any) -> bytes | None:
        found = self._run(self._store.get(key, _PROTOTYPE, span))
        return None if found is None else found.to_bytes()

    @abstractmethod
    def _run(self, operation: Coroutine[Any, Any, _T]) -> _T: ...


class LocalFolder(Folder):
    """A folder on a local disk. Files and the folders above them are fsynced before `put` returns."""

    local: Path

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path, LocalStore(path))

    def exists(self) -> bool:
        """Whether there is a folder."""
        return self.local.is_dir()

    def put(self, key: str, data: bytes) -> None:
        """Write a key atomically and durably, new folders included."""
        path = self.local / key
        made = [folder for folder in path.parents if not folder.exists()]
        self._replace(path, [data], durable=True)
        with friendly_os_errors(path):
            for folder in (path.parent, *(folder.parent for folder in made)):
                _fsync(folder)

    def write(self, key: str, parts: Sequence[Part]) -> None:
        """Write the parts of a key one after another; the bytes are durable after `sync`."""
        self._replace(self.local / key, parts, durable=False)

    def _replace(self, path: Path, parts: Sequence[Part], *, durable: bool) -> None:
        """As Zarr's local store does: under a name of its own first. Two who write the same key do not meet."""
        staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        with friendly_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with staged.open("wb", buffering=0) as file:
                    _write_all(file.fileno(), parts)
                    if durable:
                        os.fsync(file.fileno())
                os.replace(staged, path)
            finally:
                staged.unlink(missing_ok=True)

    def sync(self, key: str) -> None:
        """Fsync a written file and the folder that names it."""
        path = self.local / key
        with friendly_os_errors(path):
            _fsync(path)
            _fsync(path.parent)

    def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        with friendly_os_errors(self.local):
            return sync(operation)

    def update(self, key: str, change: Change) -> None:
        """Change a small file in place under `flock`, which the kernel releases when the process dies."""
        path = self.local / key
        with friendly_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._locked(path)
            try:
                before = os.pread(descriptor, 1 << 20, 0)
                after = change(before or None)
                if after is None:
                    path.unlink()
                else:
                    os.pwrite(descriptor, after, 0)
                    os.ftruncate(descriptor, len(after))
            finally:
                os.close(descriptor)

    @staticmethod
    def _locked(path: Path) -> int:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # The holder before us may have removed the file while we waited for it.
                with suppress(FileNotFoundError):
                    if os.fstat(descriptor).st_ino == path.stat().st_ino:
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


class S3Folder(Folder):
    """A prefix of an S3 bucket; `put` is atomic there, and `update` uses conditional writes."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        from botocore.exceptions import BotoCoreError

        self._refusals = (BotoCoreError, OSError)
        options = {"use_listings_cache": False, **storage_options}
        self._remote = FsspecStore.from_url(url, storage_options=options)
        super().__init__(url, None, self._remote)

    def exists(self) -> bool:
        """Prefixes need not exist."""
        return True

    def sync(self, key: str) -> None:
        """What S3 has accepted is durable."""

    def update(self, key: str, change: Change) -> None:
        """Change a small object; the write only succeeds when nobody else wrote in between."""
        path, system = f"{self._remote.path}/{key}", self._remote.fs
        while True:
            tag = self._tag(path)
            after = change(self.get(key) if tag else None)
            if after is None:
                return self.delete(key)
            condition = {"IfMatch": tag} if tag else {"mode": "create"}
            try:
                sync(system._pipe_file(path, after, **condition))
            except FileExistsError:
                continue
            except self._refusals as error:
                if "PreconditionFailed" not in repr(error.__cause__):
                    raise self._refused(error) from error
            else:
                return None

    def _tag(self, path: str) -> str | None:
        try:
            return str(sync(self._remote.fs._info(path))["ETag"])
        except FileNotFoundError:
            return None
        except self._refusals as error:
            raise self._refused(error) from error

    def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        try:
            return sync(operation)
        except self._refusals as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> StoreError | ResourceError:
        kind = ResourceError if isinstance(error, PermissionError) else StoreError
        return kind(
            f"the object store refused '{self.url}'",
            found=f"{type(error).__name__}: {error}",
            fix="check that the bucket exists, AWS_ENDPOINT_URL and the credentials, then run the same command again",
        )


def _write_all(descriptor: int, parts: Sequence[Part]) -> None:
    """In as few calls as possible: the kernel then caches the file in large pieces, and reads it a quarter faster."""
    for start in range(0, len(parts), MAX_PARTS):
        group = parts[start : start + MAX_PARTS]
        written = os.writev(descriptor, group)
        if written < sum(map(len, group)):
            rest = memoryview(b"".join(group))[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_folder(url: str | Path, storage_options: Mapping[str, Any] | None = None) -> Folder:
    """The folder behind a local path or an `s3://bucket/prefix` address; nothing is created.

    Args:
        url: Where.
        storage_options: For s3fs, e.g. `{"endpoint_url": ...}`; the environment (`AWS_*`) works as well.

    Raises:
        ConfigError: For another scheme, or a bucket without a prefix.
        MissingExtraError: When s3fs is not installed.
        StoreError: When a file stands where the folder should be.
    """
    text = str(url)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme != "s3" or "/" not in rest.strip("/"):
            raise ConfigError(
                f"a store cannot live at '{text}'",
                found=repr(text),
                accepted="a local folder, or s3://bucket/prefix",
                fix="give a path such as runs/first/store",
            )
        if importlib.util.find_spec("s3fs") is None:
            raise MissingExtraError("s3:// needs s3fs", found=text, fix="pip install 'synth-pipeline[s3]'")
        return S3Folder(text.rstrip("/"), storage_options or {})
    path = Path(text).expanduser().absolute()
    with friendly_os_errors(path):
        stops = next(part for part in (path, *path.parents) if part.exists() or part.is_symlink())
    if not stops.is_dir():
        raise StoreError(
            f"'{path}' cannot be a store: '{stops}' is a file, and a store is a folder",
            found="a file",
            accepted="a folder, or a path that does not exist yet",
            fix="choose another path",
        )
    return LocalFolder(path)
