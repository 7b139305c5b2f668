"""What a shim is configured with, in each of the three ways that containerd has.

runc's Options come from `ctr` and from whoever takes us for runc; any other runtime's options are TOML, by their path
or (from containerd 1.7 on) in the message; and mostly there are none. The keys of the TOML are those that containerd's
own configuration has for runc: SystemdCgroup, NoPivotRoot and so on.
"""

from __future__ import annotations

from inclavare.errors import WireError
from inclavare.linux.files import read_file
from inclavare.oci import jsontext
from inclavare.shim.messages import RUNC_OPTIONS, RUNC_OPTIONS_TYPE, RUNTIME_OPTIONS, RUNTIME_OPTIONS_TYPE
from inclavare.wire import protobuf

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any

RUNTIME_ROOT = "/run/containerd/runc"
# Keys of containerd's configuration, and those that its JSON has.
KEYS = {
    "NoPivotRoot": "no_pivot_root",
    "NoNewKeyring": "no_new_keyring",
    "ShimCgroup": "shim_cgroup",
    "IoUid": "io_uid",
    "IoGid": "io_gid",
    "BinaryName": "binary_name",
    "Root": "root",
    "CriuPath": "criu_path",
    "SystemdCgroup": "systemd_cgroup",
    "CriuImagePath": "criu_image_path",
    "CriuWorkPath": "criu_work_path",
}


class Options:
    """The options by runc's names for them. `binary_name` and `criu_path` are taken and mean nothing: both are ours."""

    __slots__ = ("values",)

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values = protobuf.parse(RUNC_OPTIONS, b"") if values is None else values

    def root(self, namespace: str) -> str:
        """Give the directory where the runtime keeps its state."""
        return f"{self.values['root'] or RUNTIME_ROOT}/{namespace}"

    def json(self) -> bytes:
        """Write them down for the time when this shim has gone."""
        return jsontext.dumps(dict(self.values)).encode()


def parse(message: dict[str, Any] | None) -> Options:
    """Read the Any of a request. Raises WireError for what is malformed or not known, and a file that is not there."""
    if message is None or not (message.get("type_url") or message.get("value")):
        return Options()
    kind = str(message.get("type_url", "")).rpartition("/")[2]
    value = message.get("value", b"")
    if kind == RUNC_OPTIONS_TYPE:
        return Options(protobuf.parse(RUNC_OPTIONS, value))
    if kind == RUNTIME_OPTIONS_TYPE:
        given = protobuf.parse(RUNTIME_OPTIONS, value)
        if given["config_body"]:
            return _from_toml(given["config_body"], "the runtime's options")
        return _from_file(given["config_path"]) if given["config_path"] else Options()
    raise WireError(f"options of type {kind!r} are not known", f"Known: {RUNC_OPTIONS_TYPE}, {RUNTIME_OPTIONS_TYPE}.")


def from_json(raw: bytes) -> Options:
    """Read what json() wrote. Raises SpecError."""
    written = jsontext.loads(raw, "options.json")
    options = Options()
    for name, value in written.items() if isinstance(written, dict) else ():
        if name in options.values and type(value) is type(options.values[name]):
            options.values[name] = value
    return options


def _from_file(path: str) -> Options:
    try:
        raw = read_file(path)
    except OSError as error:
        raise WireError(f"cannot read the runtime's options in {path}: {error.strerror}") from error
    return _from_toml(raw, path)


def _from_toml(raw: bytes, where: str) -> Options:
    import tomllib  # noqa: PLC0415  # few have some

    try:
        document = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"{where}: not valid TOML: {error}") from error
    options = Options()
    for key, value in document.items():
        name = KEYS.get(key, key)
        if name not in options.values:
            raise WireError(f"{where}: unknown key {key!r}", f"Known: {', '.join(KEYS)}.")
        if type(value) is not type(options.values[name]):
            raise WireError(f"{where}: {key} is {value!r}", f"It is of type {type(options.values[name]).__name__}.")
        options.values[name] = value
    return options
