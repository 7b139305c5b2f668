"""What the host's administrator allows and has set up: /etc/inclavare-containers/config.toml.

    [sgx]
    platform = "hardware"        # or "emulated", "auto"
    provision = false            # give enclave containers the provisioning device
    init_timeout = 120           # seconds an enclave runtime may take to initialise, 0 for ever

    [enclave_runtime]
    carrier = "none"             # what makes an enclave of a container's image, where the container does not say

`KEYS` in settings.py has every key. rune and the shim read the same file and refuse the same faults in it; each uses
what concerns it.

Hot path: TOML, and what each key means, are loaded only when the file is there.
"""

from __future__ import annotations

import os

from inclavare.enclave.trust import require_trusted
from inclavare.errors import EnclaveError
from inclavare.linux.files import read_file

PATH = "/etc/inclavare-containers/config.toml"
INIT_TIMEOUT_S = 120


class HostConfig:
    """The settings, at their defaults. Sizes are bytes; an empty text stands for what is said beside it."""

    # Table [sgx].
    platform = ""  # hardware
    provision = False
    init_timeout_s = INIT_TIMEOUT_S  # 0: for ever
    # In no table.
    log_level = "info"  # one of inclavare.log.LEVELS
    sgx_tool_sign = "/opt/intel/sgxsdk/bin/x64/sgx_sign"
    # Tables [containerd] and [epm]: the original's, used by nothing here.
    containerd_socket = "/run/containerd/containerd.sock"
    epm_socket = ""
    # Table [cache].
    cache_directory = "/var/cache/inclavare"
    cache_size = 10 << 30  # 0: no cache
    # Table [signature].
    signature_server = ""  # no server
    signature_ca_file = ""  # the system's authorities
    signature_token_file = ""  # no token
    signature_throw_away_key = False  # only with platform "emulated"
    # Table [enclave_runtime].
    signature_method = "server"  # or client: the image has a signed enclave already
    carrier = "none"
    build_timeout_s = 600  # 0: for ever
    # Table [enclave_runtime.occlum].
    occlum_pal = "/opt/occlum/build/lib/libocclum-pal.so"  # "": liberpal-occlum.so of the container
    occlum_libos = "/opt/occlum/build/lib/libocclum-libos.so"
    occlum_build_image = ""  # the original's, used by nothing here
    # Table [enclave_runtime.skeleton].
    skeleton_pal = ""  # the installed one
    skeleton_enclave = ""  # the installed one


def may_choose_carrier(path: str = PATH) -> bool:
    """Tell whether the file may set a default carrier, without the time that it takes to understand it.

    A file that cannot be read may do so: read() says why it cannot.
    """
    try:
        text = read_file(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return b"carrier" in text or b"\\" in text  # in TOML a letter may be an escape sequence


def read(path: str = PATH) -> HostConfig:
    """Read the file; without it give the defaults. Raises EnclaveError for what is unknown or not to be trusted."""
    config = HostConfig()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return config
    except OSError as error:
        raise EnclaveError(f"cannot read {path}: {error.strerror}") from error
    try:
        require_trusted(path, os.fstat(fd))
    except EnclaveError:
        os.close(fd)
        raise
    with open(fd, "rb") as file:
        text = file.read()
    from inclavare.enclave.settings import apply  # noqa: PLC0415  # only hosts with a configuration pay for it

    apply(config, path, text)
    return config
