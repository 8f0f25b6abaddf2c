"""A container's files and processes, seen from outside: copies both ways, export, changes, top."""

from __future__ import annotations

import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from proa.client.calls import decode, download, exchange
from proa.client.copying import Place, link_target, local_destination, local_source, plan, remote
from proa.client.flow import Exchange, Flow, Open, Read, Request, Stream, operation, stream
from proa.client.http import query
from proa.client.models import CHANGE_KINDS, Change, ExecDetails, PathStat, ProcessTable
from proa.client.sources import Source, pieces
from proa.errors import Corrupt, NotFound

__all__ = ["FilesCore"]

_PIECE = 1 << 20


class FilesCore:
    """The operations on a container's files and processes."""

    @property
    def _path(self) -> str:
        """Of its resource in the API."""
        raise NotImplementedError

    @operation
    def stat_path(self, path: str) -> Flow[PathStat]:
        """What is at a path in it; of a link, the link. Raises NotFound, Invalid."""
        return msgspec.convert((yield from _look(self._path, path)), PathStat)

    @stream
    def get_archive(self, path: str) -> Stream[bytes]:
        """A tar archive of the file or tree at a path, in pieces; it need not run. Raises NotFound, Invalid."""
        yield from download(Request("GET", _target(self._path, path)))

    @operation
    def put_archive(self, path: str, archive: Source, *, own: bool = False, replace_kinds: bool = False) -> Flow[None]:
        """Place the members of a tar archive, compressed or not, in the directory at a path; it need not run.

        own: the files become the container's user's, else they are whose the archive says; replace_kinds: a file may
        replace a directory and the other way round. Raises NotFound, Invalid, Corrupt, Denied, Exhausted.
        """
        target = _target(self._path, path, noOverwriteDirNonDir=not replace_kinds, copyUIDGID=own)
        yield Exchange(Request("PUT", target, pieces(archive)))

    @operation
    def copy_in(self, source: str | Path, path: str, *, follow_link: bool = False, own: bool = False) -> Flow[None]:
        """Copy a file or directory of this machine into it, with the names that `docker cp` would give.

        A source that ends in `/.` stands for what is in the directory. Raises NotFound, Invalid, Denied, Exhausted.
        """
        from proa.client.trees import pack

        destination = yield from _destination(self._path, path)
        place = local_source(str(source), follow=follow_link)
        directory, name = plan(place, destination)
        target = _target(self._path, directory, noOverwriteDirNonDir=True, copyUIDGID=own)
        yield Exchange(Request("PUT", target, pack(place.path, name)))

    @operation
    def copy_out(
        self, path: str, target: str | Path, *, follow_link: bool = False, keep_owner: bool = False
    ) -> Flow[int]:
        """Copy a file or directory out of it, with the names that `docker cp` would give; returns the files' bytes.

        Devices are left out. The archive is kept in a temporary file meanwhile. Raises NotFound, Invalid, OSError.
        """
        from proa.client.trees import unpack

        destination = local_destination(str(target))
        path = path if path.startswith("/") else "/" + path
        found = yield from _look(self._path, path)
        name = ""
        if follow_link and (leads := link_target(path, found)) != path:
            name, path = path.rstrip("/").rpartition("/")[2], leads
            found = yield from _look(self._path, path)
        source = Place(path, exists=True, directory=remote(path, found).directory, name=name)
        directory, wanted = plan(source, destination)
        with tempfile.TemporaryFile() as spool:
            channel = yield Open(Request("GET", _target(self._path, path)))
            try:
                while data := (yield Read(channel)):
                    spool.write(data)
            finally:
                channel.close()
            spool.seek(0)
            rename = None if wanted in (".", "/") else (str(found["name"]), wanted)
            return unpack(_reading(spool), directory, rename=rename, keep_owner=keep_owner)

    @stream
    def export(self) -> Stream[bytes]:
        """A tar archive of its whole file system, without what is mounted in it."""
        yield from download(Request("GET", f"{self._path}/export"))

    @operation
    def changes(self) -> Flow[list[Change]]:
        """What differs from its image."""
        found: list[dict[str, Any]] = msgspec.json.decode((yield from exchange("GET", f"{self._path}/changes"))) or []
        return [Change(change["Path"], CHANGE_KINDS[change["Kind"]]) for change in found]

    @operation
    def top(self, ps_args: str = "-ef") -> Flow[ProcessTable]:
        """Its processes, as `ps` with these options shows them. Raises Conflict when it does not run, Invalid."""
        body = yield from exchange("GET", f"{self._path}/top{query(ps_args=ps_args)}")
        table = decode(body, dict[str, Any])
        return ProcessTable(table["Titles"], table["Processes"] or [])

    @operation
    def execs(self) -> Flow[list[ExecDetails]]:
        """The commands that run in it besides its own, those that ran lately, and those never started."""
        body = yield from exchange("GET", f"/proa/v1{self._path}/execs")
        return decode(body, list[ExecDetails])

    @operation
    def kill_exec(self, exec_id: str, signal: str = "KILL") -> Flow[None]:
        """Send a signal to one of them. Raises NotFound, Conflict when it does not run, Invalid."""
        yield from exchange("POST", f"/proa/v1/exec/{exec_id}/kill{query(signal=signal)}")


def _target(container: str, path: str, **options: bool) -> str:
    return f"{container}/archive{query(path=path, **options)}"


def _look(container: str, path: str) -> Flow[dict[str, Any]]:
    reply = yield Exchange(Request("HEAD", _target(container, path)))
    try:
        found: dict[str, Any] = msgspec.json.decode(b64decode(reply.headers["x-docker-container-path-stat"]))
    except (KeyError, ValueError) as error:
        raise Corrupt("the engine's answer tells nothing of the path", code="bad-reply") from error
    return found


def _destination(container: str, path: str) -> Flow[Place]:
    path = path if path.startswith("/") else "/" + path
    try:
        found = yield from _look(container, path)
        if (leads := link_target(path, found)) != path:
            path = leads
            found = yield from _look(container, path)
    except NotFound:
        return remote(path, None)
    return remote(path, found)


def _reading(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_PIECE):
        yield data
