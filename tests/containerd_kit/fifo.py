"""The client's ends of a task's stdio."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path

CHUNK = 1 << 16
TIMEOUT_S = 20.0


class Output:
    """A FIFO that is read to its end. `seen` is what came; `to` is a file that gets it, too."""

    def __init__(self, path: Path, to: int | None = None) -> None:
        os.mkfifo(path, 0o700)
        self.path = str(path)
        self.seen = b""
        self._to = to
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._changed = threading.Condition()
        self._ended = False
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, words: bytes, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until something was written."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while words not in self.seen:
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise TimeoutError(f"no {words!r} in {self.seen!r}")
                self._changed.wait(left)

    def end(self, timeout_s: float = TIMEOUT_S) -> bytes:
        """Wait until all who could write are gone; give all that they wrote."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"somebody has {self.path} still open; {self.seen!r} came")
        return self.seen

    def close(self) -> None:
        """Read no more."""
        os.write(self._stopper, b".")
        self._thread.join()
        os.close(self._stop)
        os.close(self._stopper)

    def _read(self) -> None:
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)  # a FIFO that nobody has written to yet is not at its end
        ready.register(self._stop, select.POLLIN)
        while all(fd != self._stop for fd, _ in ready.poll()):
            data = os.read(self._fd, CHUNK)
            if not data:
                break
            if self._to is not None:
                os.write(self._to, data)
            with self._changed:
                self.seen += data
                self._changed.notify_all()
        os.close(self._fd)
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Input:
    """A FIFO that is written to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o700)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # containerd's clients do so: to open it does not block

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Let go of it; the shim has an end of its own until CloseIO."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
