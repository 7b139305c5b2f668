"""Resource limit numbers (asm-generic/resource.h). Hot path."""

from __future__ import annotations

_NAMES = (
    *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING"),
    *("MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
)
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_NAMES)}
