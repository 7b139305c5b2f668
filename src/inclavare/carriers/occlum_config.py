"""What the carrier `occlum` decides without touching anything: Occlum.json, and the names of what was built.

Defaults, variables and names are the original's; a variable that cannot be understood is an error here, not a 0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from inclavare.errors import EnclaveError, SpecError

_SIZE = re.compile(r"[1-9][0-9]*(B|KB|MB|GB|TB)")
_TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def occlum_json(arguments: list[str], variables: Mapping[str, str]) -> bytes:
    """Give Occlum.json for a program, process.args, as process.env wants it. Raises SpecError, EnclaveError."""
    if not arguments[0].startswith("/"):
        raise SpecError(
            "process.args[0]", f"it is {arguments[0]!r}", "Occlum starts programs by their absolute paths in the image."
        )

    def chosen(name: str, default: Any, read: Callable[[str, str], Any]) -> Any:
        value = variables.get(f"OCCLUM_{name}", "")
        return read(f"OCCLUM_{name}", value) if value else default

    document = {
        "resource_limits": {
            "user_space_size": chosen("USER_SPACE_SIZE", "300MB", _size),
            "kernel_space_heap_size": chosen("KERNEL_SPACE_HEAP_SIZE", "32MB", _size),
            "kernel_space_stack_size": chosen("KERNEL_SPACE_STACK_SIZE", "1MB", _size),
            "max_num_of_threads": chosen("MAX_NUM_OF_THREADS", 32, _number),
        },
        "process": {
            "default_stack_size": chosen("PROCESS_DEFAULT_STACK_SIZE", "4MB", _size),
            "default_heap_size": chosen("PROCESS_DEFAULT_HEAP_SIZE", "32MB", _size),
            "default_mmap_size": chosen("PROCESS_DEFAULT_MMAP_SIZE", "80MB", _size),
        },
        "entry_points": [arguments[0]],
        "env": {
            "default": chosen("DEFAULT_ENV", ["OCCLUM=yes"], _words),
            "untrusted": chosen("UNTRUSTED_ENV", ["EXAMPLE"], _words),
        },
        "metadata": {
            "product_id": chosen("PRODUCT_ID", 0, _number),
            "version_number": chosen("VERSION_NUMBER", 0, _number),
            "debuggable": chosen("DEBUGGABLE", True, _truth),
        },
        "mount": _MOUNT,
    }
    return json.dumps(document, indent=4).encode() + b"\n"


def instance_id(image: str, libos: bytes, configuration: bytes) -> str:
    """Give the original's name (cache1) of an instance: of the image's name, the library OS and Occlum.json."""
    return _md5(f"{image}-{_md5(libos)}-{_md5(configuration)}".encode())


def signed_id(instance: str, public_key: bytes) -> str:
    """Give the original's name (cache2) of an instance's signed enclave, by the signer's public key (PEM)."""
    return _md5(f"{instance}-{_md5(public_key)}".encode())


_MOUNT = [
    {
        "target": "/",
        "type": "unionfs",
        "source": "./build/mount/__ROOT",
        "options": {
            "layers": [
                {"target": "/", "type": "sefs", "source": "./build/mount/__ROOT", "options": {"MAC": ""}},
                {"target": "/", "type": "sefs", "source": "./run/mount/__ROOT"},
            ]
        },
    },
    {"target": "/host", "type": "hostfs", "source": "."},
    {"target": "/tmp", "type": "sefs", "source": "./run/mount/tmp", "options": {"temporary": True}},  # noqa: S108  # the enclave's own
    {"target": "/proc", "type": "procfs"},
    {"target": "/dev", "type": "devfs"},
]


def _size(name: str, value: str) -> str:
    if not _SIZE.fullmatch(value):
        raise EnclaveError(f"{name} is {value!r}", "It is a size such as 300MB (B, KB, MB, GB, TB).")
    return value


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) >= 1 << 16:
        raise EnclaveError(f"{name} is {value!r}", "It is a number below 65536.")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value.lower() not in _TRUTH:
        raise EnclaveError(f"{name} is {value!r}", "It is true or false.")
    return _TRUTH[value.lower()]


def _words(_name: str, value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
