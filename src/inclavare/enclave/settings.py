"""The keys of /etc/inclavare-containers/config.toml: what each may be, and which setting it is. Pure.

The keys of the original are all known, its mistakes are not repeated: what no key is called, what a key cannot be, and
what would be promised but not kept, is an error that names the line.
"""

from __future__ import annotations

from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import EnclaveError
from inclavare.log import LEVELS

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CARRIERS = ("none", "empty", "occlum", "skeleton")
SIZE_LIMIT = 1 << 62
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class _WrongError(Exception):
    """The value is none for this key; the argument says what is one."""


def apply(config: HostConfig, path: str, text: bytes) -> None:
    """Set in `config` what the file's `text` says. `path` is for the messages. Raises EnclaveError."""
    import tomllib  # noqa: PLC0415  # not in the saved rune: it is large, and few hosts have the file

    try:
        source = text.decode()
        document = tomllib.loads(source)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise EnclaveError(f"{path} is not valid TOML: line {line} is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond reason, too
        raise EnclaveError(f"{path} is not valid TOML: {error}") from error
    try:
        _apply_table(config, (), document)
        _check(config)
    except _FaultError as fault:
        from inclavare.enclave.toml_lines import line_of  # noqa: PLC0415  # only a fault has a line

        line = line_of(source, fault.keys)
        raise EnclaveError(f"{path}, line {line}: {fault}" if line else f"{path}: {fault}", fault.hint) from fault


class _FaultError(Exception):
    def __init__(self, keys: tuple[str, ...], message: str, hint: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.hint = hint


def _apply_table(config: HostConfig, table: tuple[str, ...], members: dict[str, Any]) -> None:
    for name, value in members.items():
        keys = (*table, name)
        shown = ".".join(keys)
        if keys in _TABLES:
            if not isinstance(value, dict):
                raise _FaultError(keys, f"{shown} is not a table", f"It is written [{shown}].")
            _apply_table(config, keys, value)
        elif keys in KEYS:
            attribute, read = KEYS[keys]
            try:
                setattr(config, attribute, read(value))
            except _WrongError as wrong:
                raise _FaultError(keys, f"{shown} is {value!r}", f"It is {wrong}.") from wrong
        else:
            what = f"unknown key {shown}" if table else f"unknown table or key {name!r}"
            raise _FaultError(keys, what, f"Known{' here' if table else ''}: {_known(table) or 'nothing'}.")


def _known(table: tuple[str, ...]) -> str:
    depth = len(table)
    keys = [key[-1] for key in KEYS if key[:-1] == table]
    tables = [f"[{'.'.join(key)}]" for key in _TABLES if key[:depth] == table and len(key) == depth + 1]
    return ", ".join(keys + tables)


def _check(config: HostConfig) -> None:
    """Refuse settings that are right one by one and wrong together."""
    if config.signature_throw_away_key and config.platform != "emulated":
        raise _FaultError(
            ("signature", "throw_away_key"),
            f"signature.throw_away_key with sgx.platform {config.platform or 'hardware'!r}",
            'A key that nobody keeps vouches for nothing: it is for sgx.platform = "emulated" alone.',
        )
    scheme, _, rest = config.signature_server.partition("://")
    if scheme == "http" and not _is_here(rest.partition("/")[0]):
        raise _FaultError(
            ("signature", "server_address"),
            f"signature.server_address is {config.signature_server!r}: plain http is for this machine only",
            "Use https, or a tunnel to localhost.",
        )
    if scheme == "http" and config.signature_ca_file:
        raise _FaultError(
            ("signature", "ca_file"),
            f"signature.ca_file with the server {config.signature_server}",
            "Only an https:// address has authorities.",
        )


def _is_here(host: str) -> bool:
    """Whether a server's HOST[:PORT] is on this machine, whatever the network says."""
    name, _, port = host.rpartition(":")
    if not name or not port.isdigit():
        name = host
    numbers = name.split(".")
    is_loopback = len(numbers) == 4 and numbers[0] == "127" and all(number.isdigit() for number in numbers)
    return is_loopback or name in ("localhost", "[::1]")


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _WrongError("a text")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise _WrongError("an absolute path")
    return value


def _path_or_none(value: object) -> str:
    if value == "":
        return ""
    try:
        return _path(value)
    except _WrongError as wrong:
        raise _WrongError('an absolute path, or ""') from wrong


def _address(value: object) -> str:
    """Read the base of a server's URLs; a path below it may follow, and ends without a slash."""
    if value == "":
        return ""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        scheme, _, rest = value.partition("://")
        host, _, _ = rest.partition("/")
        if scheme in ("http", "https") and host and not set(rest) & set(" ?#@\\\"'<>"):
            return value.rstrip("/")
    raise _WrongError("a URL such as https://signer.example:9080")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongError("true or false")
    return value


def _seconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise _WrongError("a number of seconds, 0 for no limit")
    return value


def _size(value: object) -> int:
    size = value
    if isinstance(value, str):
        unit = _UNITS.get(value[-3:], 0)
        digits = value[:-3] if unit else value
        # So many digits are beyond the limit with any unit.
        size = int(digits) * (unit or 1) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < SIZE_LIMIT:
        raise _WrongError('a number of bytes or a size such as "10GiB" (KiB, MiB, GiB, TiB), 0 for none')
    return size


def _level(value: object) -> str:
    if value == "warn":
        return "warning"
    if not isinstance(value, str) or value not in LEVELS:
        raise _WrongError("trace, debug, info, warn, error, fatal, panic or off")
    return value


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _WrongError(f"{', '.join(choices[:-1])} or {choices[-1]}")
        return value

    return read


KEYS: dict[tuple[str, ...], tuple[str, Callable[[object], object]]] = {
    ("log_level",): ("log_level", _level),
    ("sgx_tool_sign",): ("sgx_tool_sign", _path),
    ("sgx", "platform"): ("platform", _one_of("hardware", "emulated", "auto")),
    ("sgx", "provision"): ("provision", _boolean),
    ("sgx", "init_timeout"): ("init_timeout_s", _seconds),
    ("containerd", "socket"): ("containerd_socket", _path),
    ("epm", "socket"): ("epm_socket", _path_or_none),
    ("cache", "directory"): ("cache_directory", _path),
    ("cache", "size"): ("cache_size", _size),
    ("signature", "server_address"): ("signature_server", _address),
    ("signature", "ca_file"): ("signature_ca_file", _path_or_none),
    ("signature", "token_file"): ("signature_token_file", _path_or_none),
    ("signature", "throw_away_key"): ("signature_throw_away_key", _boolean),
    ("enclave_runtime", "signature_method"): ("signature_method", _one_of("server", "client")),
    ("enclave_runtime", "carrier"): ("carrier", _one_of(*CARRIERS)),
    ("enclave_runtime", "build_timeout"): ("build_timeout_s", _seconds),
    ("enclave_runtime", "occlum", "enclave_runtime_path"): ("occlum_pal", _path_or_none),
    ("enclave_runtime", "occlum", "enclave_libos_path"): ("occlum_libos", _path),
    ("enclave_runtime", "occlum", "build_image"): ("occlum_build_image", _text),
    ("enclave_runtime", "skeleton", "enclave_runtime_path"): ("skeleton_pal", _path_or_none),
    ("enclave_runtime", "skeleton", "enclave_path"): ("skeleton_enclave", _path_or_none),
}
# Every table above, and the original's stub, which has no keys.
_TABLES = dict.fromkeys(key[:length] for key in KEYS for length in range(1, len(key)))
_TABLES["enclave_runtime", "graphene"] = None
