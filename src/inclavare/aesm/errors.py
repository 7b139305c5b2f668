"""What goes wrong with AESM: every error code with its name, its cause and what to do next.

The numbers and names are those of Intel's aesm_error.h; causes are told as the daemon's present versions give them.
"""

from __future__ import annotations

from typing import NamedTuple

from inclavare.errors import InclavareError


class AesmCode(NamedTuple):
    """What an error code means. `next_step` is an instruction for the operator of this host."""

    code: int
    name: str
    cause: str
    next_step: str


class AesmError(InclavareError):
    """The daemon answered a request with an error code. `attempted` says what was asked for, as in `get a quote`."""

    def __init__(self, attempted: str, code: int) -> None:
        self.meaning = meaning(code)
        super().__init__(
            f"cannot {attempted}: AESM error {code} ({self.meaning.name}): {self.meaning.cause}", self.meaning.next_step
        )


class AesmUnreachableError(InclavareError):
    """No daemon answers on the socket."""


class AesmTimeoutError(AesmUnreachableError):
    """The daemon did not answer in time."""


class AesmMalformedError(InclavareError):
    """Bytes that are no message of the protocol; a daemon closes the connection, without an answer."""


class AesmMissingMemberError(AesmMalformedError):
    """A known request or response (`number`) lacks a required member; a daemon answers with the code 1."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def meaning(code: int) -> AesmCode:
    """Return what `code` means, also for one that nobody defined."""
    known = CODES.get(code)
    return known or AesmCode(code, "AESM_UNKNOWN", "no such code is known", "See the log of the daemon (aesmd).")


def code_named(name: str) -> int:
    """Return the number of a code that is in the table. Raises KeyError."""
    return _BY_NAME[name]


_LOG = "See the daemon's log: journalctl -u aesmd"
_UPDATE = "Update the platform's BIOS and microcode, then the SGX software."
_GONE = "Use the ECDSA quotes of DCAP (--quote-type ecdsa)."
_AGAIN = "Try again; if it stays so, restart the daemon: systemctl restart aesmd"
_PCCS = "Check the PCCS's address and TLS in /etc/sgx_default_qcnl.conf, and that this host can reach it."
_REGISTER = "Register the platform with the PCCS (PCKIDRetrievalTool), or let the PCCS fetch from Intel."

_TABLE = (
    AesmCode(0, "AESM_SUCCESS", "success", ""),
    AesmCode(1, "AESM_UNEXPECTED_ERROR", "the daemon cannot say what failed, or a required member is missing", _LOG),
    AesmCode(2, "AESM_NO_DEVICE_ERROR", "the daemon finds no SGX device", "Load the SGX driver; see runectl doctor."),
    AesmCode(
        3,
        "AESM_PARAMETER_ERROR",
        "a parameter has the wrong size or value, or a buffer is too small",
        "Check the file given: a REPORT has 432 bytes and must target the quoting enclave (gen-qe-target-info).",
    ),
    AesmCode(4, "AESM_EPIDBLOB_ERROR", "the EPID key's data are damaged; Intel has retired EPID", _GONE),
    AesmCode(5, "AESM_EPID_REVOKED_ERROR", "the platform's EPID key is revoked", _GONE),
    AesmCode(
        6,
        "AESM_GET_LICENSETOKEN_ERROR",
        "the launch enclave refuses a token: not a debug enclave, and its signer is not on the list; or it asks for the"
        " provisioning key, or for reserved attributes",
        "Sign for debugging, have the signer listed, or use a driver with flexible launch control: no token.",
    ),
    AesmCode(7, "AESM_SESSION_INVALID", "the session is not valid (platform services, gone)", _LOG),
    AesmCode(8, "AESM_MAX_NUM_SESSION_REACHED", "there are too many sessions (platform services, gone)", _LOG),
    AesmCode(9, "AESM_PSDA_UNAVAILABLE", "platform services are not available (gone)", "Do without them."),
    AesmCode(10, "AESM_EPH_SESSION_FAILED", "a session with the management engine failed (gone)", "Do without it."),
    AesmCode(11, "AESM_LONG_TERM_PAIRING_FAILED", "pairing with the management engine failed (gone)", "Do without it."),
    AesmCode(12, "AESM_NETWORK_ERROR", "the daemon cannot reach the PCCS (or Intel's service)", _PCCS),
    AesmCode(13, "AESM_NETWORK_BUSY_ERROR", "the service asked is busy", "Try again later."),
    AesmCode(
        14,
        "AESM_PROXY_SETTING_ASSIST",
        "the daemon's proxy does not let it through",
        "Correct the proxy in /etc/aesmd.conf and restart the daemon.",
    ),
    AesmCode(
        15,
        "AESM_FILE_ACCESS_ERROR",
        "the daemon cannot read or write one of its files",
        "Check that /var/opt/aesmd belongs to the user aesmd, and that its disk is not full.",
    ),
    AesmCode(16, "AESM_SGX_PROVISION_FAILED", "the platform could not be provisioned", _REGISTER),
    AesmCode(17, "AESM_SERVICE_STOPPED", "the daemon is stopping", "Start it again: systemctl start aesmd"),
    AesmCode(18, "AESM_BUSY", "the daemon is busy", "Try again in some seconds."),
    AesmCode(19, "AESM_BACKEND_SERVER_BUSY", "the service behind the daemon is busy", "Try again later."),
    AesmCode(20, "AESM_UPDATE_AVAILABLE", "an update of the platform is available", _UPDATE),
    AesmCode(21, "AESM_OUT_OF_MEMORY_ERROR", "the daemon is out of memory", "Give it more memory, then restart it."),
    AesmCode(22, "AESM_MSG_ERROR", "a message of the provisioning protocol is not valid", _LOG),
    AesmCode(23, "AESM_THREAD_ERROR", "the daemon cannot start a thread", "Raise its limit of tasks, then restart it."),
    AesmCode(
        24,
        "AESM_SGX_DEVICE_NOT_AVAILABLE",
        "SGX is there but not usable",
        "Enable SGX in the BIOS, load the driver; see runectl doctor.",
    ),
    AesmCode(25, "AESM_ENABLE_SGX_DEVICE_FAILED", "SGX could not be enabled", "Enable SGX in the BIOS."),
    AesmCode(
        26,
        "AESM_PLATFORM_INFO_BLOB_INVALID_SIG",
        "the platform information is not signed by the attestation service",
        "Pass on the blob exactly as the service sent it.",
    ),
    AesmCode(27, "AESM_SERVICE_NOT_AVAILABLE", "the service is not available", _LOG),
    AesmCode(28, "AESM_KDF_MISMATCH", "the key derivation functions differ", "Use the same SDK on both sides."),
    AesmCode(29, "AESM_OUT_OF_EPC", "there is no enclave memory left", "End other enclaves, or raise the EPC's size."),
    AesmCode(
        30,
        "AESM_SERVICE_UNAVAILABLE",
        "the daemon does not offer this service here",
        "For EPID: Intel has retired EPID, use --quote-type ecdsa. For ECDSA: install libsgx-aesm-quote-ex-plugin."
        " Launch tokens are not needed where the driver has flexible launch control.",
    ),
    AesmCode(31, "AESM_UNRECOGNIZED_PLATFORM", "the service does not know this platform", _REGISTER),
    AesmCode(32, "AESM_ECDSA_ID_MISMATCH", "the platform's identity has changed since its key was made", _AGAIN),
    AesmCode(33, "AESM_PATHNAME_BUFFER_OVERFLOW_ERROR", "a path of the daemon is too long", "Shorten it."),
    AesmCode(34, "AESM_ERROR_STORED_KEY", "the stored attestation key is damaged", _AGAIN),
    AesmCode(35, "AESM_PUB_KEY_ID_MISMATCH", "the attestation key is not the one asked for", _AGAIN),
    AesmCode(36, "AESM_INVALID_PCE_SIG_SCHEME", "the certification enclave signs in an unknown way", _UPDATE),
    AesmCode(37, "AESM_ATT_KEY_BLOB_ERROR", "the stored attestation key cannot be used", _AGAIN),
    AesmCode(
        38,
        "AESM_UNSUPPORTED_ATT_KEY_ID",
        "the daemon has no attestation key of this kind",
        "Install the plug-ins for quotes (libsgx-aesm-quote-ex-plugin, libsgx-aesm-ecdsa-plugin) and restart the"
        " daemon. EPID is retired: use --quote-type ecdsa.",
    ),
    AesmCode(39, "AESM_UNSUPPORTED_LOADING_POLICY", "the way to load the quoting enclave is not supported", _LOG),
    AesmCode(
        40,
        "AESM_INTERFACE_UNAVAILABLE",
        "the daemon's plug-in for this request is not loaded",
        "Install the plug-ins for quotes, then restart the daemon.",
    ),
    AesmCode(
        41,
        "AESM_PLATFORM_LIB_UNAVAILABLE",
        "the library that fetches certificates is missing",
        "Install libsgx-dcap-default-qpl (or your cloud's), then restart the daemon.",
    ),
    AesmCode(
        42,
        "AESM_ATT_KEY_NOT_INITIALIZED",
        "no attestation key has been made yet",
        "Ask for the target info first: runectl gen-qe-target-info",
    ),
    AesmCode(43, "AESM_ATT_KEY_CERT_DATA_INVALID", "the stored certificate of the attestation key is damaged", _PCCS),
    AesmCode(44, "AESM_NO_PLATFORM_CERT_DATA", "there is no PCK certificate for this platform", _REGISTER),
    AesmCode(45, "AESM_ERROR_REPORT", "the report of an architectural enclave is in error", _LOG),
    AesmCode(46, "AESM_ENCLAVE_LOST", "the machine slept or moved, and the enclave is lost", _AGAIN),
    AesmCode(
        47,
        "AESM_INVALID_REPORT",
        "the report's MAC is wrong: it was not made on this host for this quoting enclave, or was changed",
        "Fetch the target info again (runectl gen-qe-target-info) and have the enclave make a new report for it.",
    ),
    AesmCode(
        48,
        "AESM_ENCLAVE_LOAD_ERROR",
        "an architectural enclave cannot be loaded",
        "Check that the user aesmd is in the groups sgx and sgx_prv, and that /dev is not mounted noexec.",
    ),
    AesmCode(49, "AESM_UNABLE_TO_GENERATE_QE_REPORT", "the quoting enclave cannot report to the target given", _LOG),
    AesmCode(50, "AESM_KEY_CERTIFICATION_ERROR", "the attestation key could not be certified", _REGISTER),
    AesmCode(51, "AESM_CONFIG_UNSUPPORTED", "the host's configuration is not supported", _UPDATE),
)
CODES = {entry.code: entry for entry in _TABLE}
_BY_NAME = {entry.name: entry.code for entry in _TABLE}
