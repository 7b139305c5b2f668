"""Inclavare Containers: an OCI runtime that hosts enclaves, and a software SGX platform."""

__version__ = "0.1.0"


def installed(name: str) -> str:
    """Give the path of a file of this package. It is asked at use: `rune` is built in one place and used in another."""
    return f"{__file__.rpartition('/')[0]}/{name}"
