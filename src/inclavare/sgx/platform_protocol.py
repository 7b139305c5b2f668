"""What a daemon for tokens and quotes needs of the platform behind it.

The software platform has both; a daemon for hardware would have a quoting enclave. Sizes are those of the structures in
`arch`. Nothing here does anything.
"""

from __future__ import annotations

from typing import Protocol

from inclavare.errors import EnclaveError


class InvalidReportError(EnclaveError):
    """The MAC of a report is not that of this platform's quoting enclave."""


class LaunchRefusedError(EnclaveError):
    """The launch enclave's rules give no token to this enclave."""


class NoCertificateError(EnclaveError):
    """The platform has no PCK certificate, so that nobody could check its quotes."""


class Quoting(Protocol):
    """A quoting enclave with its attestation key."""

    def att_key_id(self) -> bytes:
        """Return the identity of the attestation key, 256 bytes (sgx_att_key_id_ext_t, algorithm 2: ECDSA P-256)."""

    def qe_target_info(self) -> bytes:
        """Return the TARGETINFO of the quoting enclave, 512 bytes."""

    def pub_key_id(self) -> bytes:
        """Return the SHA-256 of the attestation public key, 32 bytes. Raises NoCertificateError."""

    def quote_size(self) -> int:
        """Return the size of every quote, in bytes, exactly. Raises NoCertificateError."""

    def quote(self, report: bytes) -> bytes:
        """Return the quote of a REPORT (432 bytes) for the quoting enclave.

        Raises InvalidReportError, NoCertificateError.
        """

    def qe_report(self, target_info: bytes, reportdata: bytes) -> bytes:
        """Return the quoting enclave's own REPORT (432 bytes) for a target (512 bytes) with 64 bytes of data."""


class Launching(Protocol):
    """A launch enclave."""

    def launch_token(self, mrenclave: bytes, modulus: bytes, attributes: bytes) -> bytes:
        """Return an EINITTOKEN, 304 bytes.

        `modulus` is the signer's, 384 bytes little endian; `attributes` are the 16 bytes of ATTRIBUTES with XFRM.
        Raises LaunchRefusedError.
        """


class Platform(Quoting, Launching, Protocol):
    """Both."""
