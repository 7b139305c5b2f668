"""How containerd starts a shim, and cleans up after one that died: `start`, `delete`, `-info`.

Each version of containerd passes the same flags in another order, and from 2.3 on a message on stdin, which it wants
answered by a message; all others understand a plain address. What is printed is all that may be printed: containerd
reads stdout and stderr together.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import time

from inclavare import __version__
from inclavare.errors import HostError, InclavareError, WireError
from inclavare.linux.digest import sha256
from inclavare.linux.files import read_file
from inclavare.oci import jsontext
from inclavare.shim import actions, options
from inclavare.shim import messages as m
from inclavare.shim.log import ShimLog
from inclavare.wire import protobuf, ttrpc

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.options import Options

NAME = "io.containerd.rune.v2"
SOCKETS = "/run/containerd/s"
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
STDIN_MAX = 4 << 20
ANSWER_TIMEOUT_S = 1.0
KILLED = 137  # the exit status of a task whose shim has died


class Invocation:
    """What the flags and the environment say. `bootstrap`: containerd asked by message, and wants one."""

    __slots__ = (
        "bootstrap",
        "bundle",
        "debug",
        "grpc_address",
        "id",
        "namespace",
        "options",
        "sockets",
        "ttrpc_address",
    )

    def __init__(self, container_id: str, namespace: str, grpc_address: str) -> None:
        self.id = container_id
        self.namespace = namespace
        self.grpc_address = grpc_address
        self.ttrpc_address = os.getenv("TTRPC_ADDRESS", "")
        self.bundle = os.getcwd()
        self.sockets = SOCKETS
        self.debug = False
        self.bootstrap = False
        self.options: Options = options.Options()

    def read_stdin(self) -> None:
        """Take what containerd wrote: the runtime's options, or from 2.3 on a bootstrap message. Raises WireError.

        Options may look like that message; so it counts only with our own id and namespace in it.
        """
        raw = _read_stdin()
        if not raw:
            return
        try:
            given = protobuf.parse(m.BOOTSTRAP, raw)
        except WireError:
            given = {}
        if given.get("instance_id") == self.id and given.get("namespace") == self.namespace:
            self.bootstrap = True
            self.sockets = given["socket_dir"] or self.sockets
            self.ttrpc_address = given["containerd_ttrpc_address"] or self.ttrpc_address
            self.grpc_address = given["containerd_grpc_address"] or self.grpc_address
            self.debug = self.debug or given["log_level"] < 0
            for extension in given["extensions"]:
                value = extension.get("value") or {}
                if str(value.get("type_url", "")).endswith((m.RUNC_OPTIONS_TYPE, m.RUNTIME_OPTIONS_TYPE)):
                    self.options = options.parse(value)
        else:
            self.options = options.parse(protobuf.parse(m.ANY, raw))


def start(invocation: Invocation) -> bytes:
    """Find the group's shim, or become a new one (then this returns twice: in the child it does not return).

    Gives what containerd wants to read. Raises HostError.
    """
    path = _address(invocation)
    listener = _listen(path)
    answer = _answer(invocation, path)
    _write_atomically(f"{invocation.bundle}/address", f"unix://{path}".encode())
    if listener is None:
        return answer
    from inclavare.shim import daemon  # noqa: PLC0415  # only a new shim is one

    score = daemon.oom_score()
    pid = os.fork()
    if not pid:
        try:
            log = ShimLog(daemon.detach(score), level="debug" if invocation.debug else "info")
            daemon.run(invocation, listener, path, log)
        finally:
            os._exit(1)
    try:
        _join(invocation.options.values["shim_cgroup"], pid)
    except OSError as error:
        os.kill(pid, 9)
        os.unlink(path)
        raise HostError(f"cannot put the shim into its cgroup: {error.strerror}") from error
    return answer


def delete(invocation: Invocation) -> bytes:
    """Remove what a task has left whose shim is gone; give a DeleteResponse. It is asked for after every task."""
    bundle = invocation.bundle
    try:
        given = options.from_json(read_file(f"{bundle}/options.json"))
    except (FileNotFoundError, InclavareError):
        given = options.Options()
    actions.delete(given.root(invocation.namespace), invocation.id, bundle, ShimLog(2), force=True)
    try:
        pid = int(read_file(f"{bundle}/init.pid"))
    except (FileNotFoundError, ValueError):
        pid = 0
    _remove_socket(bundle)
    answer = {"pid": pid, "exit_status": KILLED, "exited_at": m.timestamp(time.time_ns())}
    return protobuf.encode(m.DELETED, answer)


def info() -> bytes:
    """Give the RuntimeInfo that containerd 2 asks for. stdin is the runtime's options, or nothing."""
    from inclavare.container import features  # noqa: PLC0415  # only this wants to know

    raw = _read_stdin()
    document = jsontext.dumps(features.document()).encode()
    return protobuf.encode(
        m.RUNTIME_INFO,
        {
            "name": NAME,
            "version": {"version": __version__},
            "options": protobuf.decode(m.ANY, raw) if raw else None,
            "features": {
                "type_url": "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
                "value": document,
            },
        },
    )


def _read_stdin() -> bytes:
    if os.isatty(0):
        return b""
    raw = b""
    while chunk := os.read(0, 1 << 16):
        raw += chunk
        if len(raw) > STDIN_MAX:
            raise WireError(f"stdin has more than {STDIN_MAX} bytes")
    return raw


def _address(invocation: Invocation) -> str:
    """Give the path of the socket that all containers of a group share."""
    group = invocation.id
    try:
        document = jsontext.loads(read_file(f"{invocation.bundle}/config.json"))
    except OSError as error:
        raise HostError(f"cannot read {invocation.bundle}/config.json: {error.strerror}") from error
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if isinstance(annotations, dict):
        group = next((annotations[name] for name in GROUPS if isinstance(annotations.get(name), str)), group)
    words = (invocation.grpc_address, invocation.namespace, group)
    return f"{invocation.sockets}/{sha256(os.path.normpath('/'.join(words)).encode()).hex()}"


def _listen(path: str) -> _socket.socket | None:
    """Bind the socket; None when a shim listens there already."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    lock = _lock(path)
    try:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise HostError(f"cannot listen on {path}: {error.strerror}") from error
            if _is_served(path):
                return None
            _unlink(path)
            listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(1024)
        return listener
    finally:
        os.close(lock)


def _lock(path: str) -> int:
    """Let starts and ends of shims come one after the other, so that no two take or remove a socket at once."""
    lock = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _remove_socket(bundle: str) -> None:
    """Remove the socket of a shim that died; the shim of a pod may live."""
    try:
        path = read_file(f"{bundle}/address").decode("utf-8", "surrogateescape").removeprefix("unix://")
        lock = _lock(path)
    except FileNotFoundError:
        return
    try:
        if not _is_served(path, answers=True):
            _unlink(path)
    finally:
        os.close(lock)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # it went with its shim
        return


def _is_served(path: str, *, answers: bool = False) -> bool:
    """Tell whether somebody listens, and with `answers`, whether it is a shim: a dead one's child may, for a moment."""
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.connect(path)
        if answers:
            client.settimeout(ANSWER_TIMEOUT_S)
            client.send(ttrpc.request(1, m.TASK_SERVICES[0], "Connect", b"", 0, {}), _socket.MSG_NOSIGNAL)
            return client.recv(1) != b""
    except TimeoutError:  # it is stopped, not dead
        return True
    except (ConnectionError, FileNotFoundError):
        return False
    finally:
        client.close()
    return True


def _answer(invocation: Invocation, path: str) -> bytes:
    address = f"unix://{path}"
    if not invocation.bootstrap:
        return address.encode()
    return protobuf.encode(m.BOOTSTRAPPED, {"version": 3, "address": address, "protocol": "ttrpc"})


def _join(cgroup: str, pid: int) -> None:
    """Put the shim into the cgroup that its options name."""
    if cgroup:
        from inclavare.linux import cgroups  # noqa: PLC0415  # few name one

        layout = cgroups.read_layout()
        paths = cgroups.paths_for(layout, cgroup, "")
        cgroups.create(layout, paths)
        for path in paths.values():
            cgroups.write(f"{path}/cgroup.procs", str(pid))


def _write_atomically(path: str, content: bytes) -> None:
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    os.rename(temporary, path)
