"""The shim's log: lines in the FIFO `log` of the bundle, which containerd reads into its own."""

from __future__ import annotations

from inclavare.log import Log


class ShimLog(Log):
    """A log whose reader may be slow or gone: then lines are lost, and nothing else."""

    __slots__ = ("level",)

    def __init__(self, fd: int, *, level: str = "info") -> None:
        super().__init__(fd, level=level)
        self.level = level

    def _write(self, level: str, message: str) -> None:
        try:
            super()._write(level, message)
        except (BlockingIOError, BrokenPipeError):
            return


def describe(error: BaseException) -> str:
    """Say in one line what went wrong and where: for errors that nobody foresaw."""
    words = [f"{type(error).__name__}: {error}"]
    trace = error.__traceback__
    while trace is not None:
        words.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return ", ".join(words)
