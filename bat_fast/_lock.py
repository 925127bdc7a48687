"""One writer at a time: a lock that ends with the process that holds it. Standard library only."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from bat_fast._atomic import writing

_SEEN = 60.0  # seconds between two signs of life
_GONE = 600.0  # seconds without one after which a holder on another computer is taken to have ended


class _Held:
    """What this process holds: the open file, and how many locks of its own share it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.count, self.ended = descriptor, 0, threading.Event()


_HELD: dict[str, _Held] = {}  # a second descriptor would end the lock when it is closed


class Lock:
    """The file ``path``, which says who holds it: host, process and when it began.

    On one computer the system ends the lock with its process, whatever ends that; so it is where a network
    file system carries locks. Where it does not, the holder on another computer is known by the file, whose
    time it renews. A process that holds a lock gets it again, and has it until each of its locks has ended.

    Args:
        path: of the file. It is made with the lock, and gone when that ends.
        what: is locked, for the message.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._mine = False

    def take(self) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: another process holds it; the message says which.
        """
        if self._mine:
            return
        key = str(self.path.absolute())
        held = _HELD.get(key)
        if held is None or not self._is_there(held.descriptor):
            with writing(self.path):
                held = _HELD[key] = self._taken()
        held.count += 1
        self._mine = True

    def end(self) -> None:
        """Give the lock back; nothing where it is not held."""
        if not self._mine:
            return
        self._mine = False
        key = str(self.path.absolute())
        held = _HELD[key]
        held.count -= 1
        if not held.count:
            del _HELD[key]
            held.ended.set()
            self.path.unlink(missing_ok=True)
            os.close(held.descriptor)

    def _taken(self) -> _Held:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                self._refuse(descriptor)
            except OSError:  # a file system without locks: the file alone says who is there
                self._refuse_if_alive(descriptor, also_here=True)
            if self._is_there(descriptor):
                break
            os.close(descriptor)  # whoever held it has ended and taken the file away in between
        self._refuse_if_alive(descriptor, also_here=False)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
        held = _Held(descriptor)
        threading.Thread(target=_renew, args=(self.path, held.ended), daemon=True).start()
        return held

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _refuse_if_alive(self, descriptor: int, *, also_here: bool) -> None:
        """Raise where the file names a holder that the system's lock does not speak for."""
        holder, age = _holder(descriptor), time.time() - os.fstat(descriptor).st_mtime
        if not holder:
            return
        here = holder.get("host") == socket.gethostname()
        if (here and also_here and _runs(holder)) or (not here and age < _GONE):
            self._refuse(descriptor)

    def _refuse(self, descriptor: int) -> None:
        holder = _holder(descriptor)
        os.close(descriptor)
        who = "another process"
        if holder:
            began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("began", 0)))
            who = f"process {holder.get('pid')} on {holder.get('host')}, since {began}"
        raise BlockingIOError(
            f"{self.what} is written by {who}: wait for its end or stop it; if it has ended, delete "
            f"{self.path}"
        )


def _me() -> dict[str, Any]:
    began = {"host": socket.gethostname(), "pid": os.getpid(), "began": round(time.time())}
    return began | {"started": _started(os.getpid())}


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 1000, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _runs(holder: dict[str, Any]) -> bool:
    """Whether the process of that number is still the same one, and not this one."""
    pid, started = holder.get("pid"), holder.get("started")
    if not isinstance(pid, int) or pid == os.getpid() or started is None:
        return False
    return _started(pid) == started


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the system did; None where there is none, or no /proc."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _renew(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_SEEN):
        try:
            os.utime(path)
        except OSError:
            return
