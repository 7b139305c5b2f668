"""What the host's administrator allows: /etc/inclavare-containers/config.toml, as far as rune reads it.

    [sgx]
    platform = "hardware"        # or "emulated", "auto"
    provision = false            # give enclave containers the provisioning device
    init_timeout = 120           # seconds an enclave runtime may take to initialise, 0 for ever

Hot path: TOML is read only when the file is there.
"""

from __future__ import annotations

import os

from inclavare.enclave.trust import require_trusted
from inclavare.errors import EnclaveError

PATH = "/etc/inclavare-containers/config.toml"
INIT_TIMEOUT_S = 120


class HostConfig:
    """The settings of `[sgx]`, at their defaults."""

    __slots__ = ("init_timeout_s", "platform", "provision")

    def __init__(self) -> None:
        self.platform = ""
        self.provision = False
        self.init_timeout_s = INIT_TIMEOUT_S


def read(path: str = PATH) -> HostConfig:
    """Read the file; without it give the defaults. Raises EnclaveError for what is unknown or not to be trusted."""
    config = HostConfig()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return config
    except OSError as error:
        raise EnclaveError(f"cannot read {path}: {error.strerror}") from error
    import tomllib  # noqa: PLC0415  # only hosts with a configuration pay for it

    try:
        require_trusted(path, os.fstat(fd))
    except EnclaveError:
        os.close(fd)
        raise
    with open(fd, "rb") as file:
        try:
            document = tomllib.load(file)
        except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number or a nesting beyond reason
            raise EnclaveError(f"{path} is not valid TOML: {error}") from error
    for name in document:
        if name != "sgx":
            raise EnclaveError(f"{path}: unknown table or key {name!r}", "Known: [sgx].")
    settings = document.get("sgx", {})
    if not isinstance(settings, dict):
        raise EnclaveError(f"{path}: sgx is not a table")
    for name, value in settings.items():
        _set(config, path, name, value)
    return config


def _set(config: HostConfig, path: str, name: str, value: object) -> None:
    if name == "platform":
        if value not in ("hardware", "emulated", "auto"):
            raise EnclaveError(f"{path}: sgx.platform is {value!r}", "It is hardware, emulated or auto.")
        config.platform = str(value)
    elif name == "provision":
        if not isinstance(value, bool):
            raise EnclaveError(f"{path}: sgx.provision is {value!r}", "It is true or false.")
        config.provision = value
    elif name == "init_timeout":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise EnclaveError(f"{path}: sgx.init_timeout is {value!r}", "It is a number of seconds, 0 for no limit.")
        config.init_timeout_s = value
    else:
        raise EnclaveError(f"{path}: unknown key sgx.{name}", "Known: platform, provision, init_timeout.")
