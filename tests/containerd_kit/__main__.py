"""Runs one container under a shim, from `start` to `delete`, and prints what containerd would have seen.

Its output and input are the terminal's own, by FIFOs. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from tests.containerd_kit.bundle import Bundle
from tests.containerd_kit.containerd import VERSIONS, Containerd, StartError, Task, runc_options
from tests.containerd_kit.fifo import Input, Output
from tests.containerd_kit.ttrpc import RpcError

SHIM = Path(__file__).parents[2] / "build/bin/containerd-shim-rune-v2"


def main() -> int:
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="containerd-kit-") as directory:
        containerd = Containerd(Path(directory), options.containerd)
        name = f"kit-{os.getpid()}"
        rootfs = Path(options.rootfs) if options.rootfs else _busybox(Path(directory) / "image")
        bundle = Bundle(Path(directory) / name, rootfs, options.words or ["sh"], f"/inclavare-kit/{name}")
        root = runc_options(binary_name=options.runtime, root=f"{directory}/state")
        task = Task(containerd, Path(options.shim).absolute(), name, bundle.write(), root)
        try:
            status = _run(task)
        except (RpcError, StartError) as error:
            print(f"{error}\n{task.log()}", file=sys.stderr)
            status = 125
        finally:
            task.abandon()
            containerd.close()
        for event in containerd.events.seen:
            print(f"event   {event}", file=sys.stderr)
        for group in Path("/sys/fs/cgroup").glob("**/inclavare-kit"):
            group.rmdir()
        return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="containerd_kit", description="Run a container under a shim, without containerd."
    )
    parser.add_argument("--containerd", choices=VERSIONS, default="1.6", help="the version to be (default: 1.6)")
    parser.add_argument("--shim", default=str(SHIM), help="the shim's program (default: that of this checkout)")
    parser.add_argument("--runtime", default="", help="the runtime for a shim that executes one")
    parser.add_argument("--rootfs", help="a root filesystem (default: busybox)")
    parser.add_argument("words", nargs="*", help="what the container runs (default: sh)")
    return parser.parse_args()


def _busybox(root: Path) -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise SystemExit("containerd_kit: needs busybox (Debian package busybox-static)")
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(found, root / "bin/busybox")
    for name in ("cat", "echo", "env", "ls", "mount", "ps", "sh", "sleep", "true"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def _run(task: Task) -> int:
    stdin = Input(task.bundle / "stdin")
    outputs = [Output(task.bundle / name, file.fileno()) for name, file in (("out", sys.stdout), ("err", sys.stderr))]
    task.begin()
    _say(f"start   {vars(task.address)}, pid {task.shim_pid}")
    pid = task.create(stdin=stdin.path, stdout=outputs[0].path, stderr=outputs[1].path)
    _say(f"Create  pid {pid}")
    _say(f"Start   pid {task.start()}")
    threading.Thread(target=_type, args=(task, stdin), daemon=True).start()
    status = task.wait(timeout_s=1 << 20)
    _say(f"Wait    exit status {status}")
    task.rpc.call("Delete", id=task.id)
    for output in outputs:
        output.end()
    task.shut_down()
    answer = task.clean_up()
    _say(f"delete  exit status {answer.exit_status}")
    return status


def _type(task: Task, stdin: Input) -> None:
    client = task.another_client()
    while data := os.read(0, 1 << 16):
        stdin.write(data)
    stdin.close()
    with contextlib.suppress(RpcError, ConnectionError):  # it has ended
        client.call("CloseIO", id=task.id, stdin=True)
    client.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
