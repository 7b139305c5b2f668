"""Inclavare Containers: an OCI runtime that hosts enclaves, and a software SGX platform."""

__version__ = "0.1.0"
