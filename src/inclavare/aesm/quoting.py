"""What one asks of AESM, as the sequences of requests that it takes: a launch token, a target info, a quote.

The daemon keeps no state of a client, so that a quote can be asked for in another process than the target info was. A
daemon that was started anew may have forgotten that its attestation key was made: it is asked for it once more.
ECDSA quotes are those of DCAP. EPID quotes need a daemon and a platform from before Intel retired EPID; their requests
are here so that the reason is the daemon's.
"""

from __future__ import annotations

from typing import Literal

from inclavare.aesm.client import TIMEOUT_MICROSECONDS, AesmClient
from inclavare.aesm.errors import AesmError, AesmMalformedError, code_named
from inclavare.aesm.messages import (
    ATT_KEY_ID_SIZE,
    REPORT_SIZE,
    TARGET_INFO_SIZE,
    TOKEN_SIZE,
    GetLaunchTokenRequest,
    GetLaunchTokenResponse,
    GetQuoteExRequest,
    GetQuoteExResponse,
    GetQuoteRequest,
    GetQuoteResponse,
    GetQuoteSizeExRequest,
    GetQuoteSizeExResponse,
    GetSupportedAttKeyIDNumRequest,
    GetSupportedAttKeyIDNumResponse,
    GetSupportedAttKeyIDsRequest,
    GetSupportedAttKeyIDsResponse,
    InitQuoteExRequest,
    InitQuoteExResponse,
    InitQuoteRequest,
    InitQuoteResponse,
    SelectAttKeyIDRequest,
    SelectAttKeyIDResponse,
)

QuoteType = Literal["ecdsa", "epidUnlinkable", "epidLinkable"]
QUOTE_TYPES: tuple[QuoteType, ...] = ("ecdsa", "epidUnlinkable", "epidLinkable")

ECDSA_P256 = 2  # algorithm of an attestation key
EPID_QUOTE_SIZE = 2048  # with an empty list of revoked signatures it has 1116
QUOTE_HEAD_SIZE = 436  # header, report body and the length of the signature
KEY_IDS_MAX = 64  # Intel's daemon has two

_ALGORITHM_OFFSET = 154  # in an attestation key's identity, four bytes


def launch_token(client: AesmClient, mrenclave: bytes, modulus: bytes, attributes: bytes) -> bytes:
    """Return the EINITTOKEN (304 bytes) of an enclave.

    `modulus` is its signer's, 384 bytes little endian; `attributes` are the 16 bytes of ATTRIBUTES with XFRM. Raises
    AesmError and its like.
    """
    attempted = "get a launch token"
    request = GetLaunchTokenRequest(
        mr_enclave=mrenclave, mr_signer=modulus, se_attributes=attributes, timeout=TIMEOUT_MICROSECONDS
    )
    answer = client.ask(attempted, request, GetLaunchTokenResponse)
    return _sized(attempted, "token", answer.token, TOKEN_SIZE)


def qe_target_info(client: AesmClient, quote_type: QuoteType) -> bytes:
    """Return the TARGETINFO (512 bytes) that a report must name to become a quote. Raises AesmError and its like."""
    attempted = "get the quoting enclave's target info"
    if quote_type != "ecdsa":
        old = client.ask(attempted, InitQuoteRequest(timeout=TIMEOUT_MICROSECONDS), InitQuoteResponse)
        return _sized(attempted, "target info", old.target_info, TARGET_INFO_SIZE)
    att_key_id = ecdsa_att_key_id(client, attempted)
    size = client.ask(
        attempted,
        InitQuoteExRequest(att_key_id=att_key_id, b_pub_key_id=False, timeout=TIMEOUT_MICROSECONDS),
        InitQuoteExResponse,
    ).pub_key_id_size
    if not size:
        raise AesmMalformedError(f"cannot {attempted}: the daemon gives no size of the public key's identity")
    # The second request is what makes the attestation key and has it certified.
    request = InitQuoteExRequest(att_key_id=att_key_id, b_pub_key_id=True, buf_size=size, timeout=TIMEOUT_MICROSECONDS)
    answer = client.ask(attempted, request, InitQuoteExResponse)
    return _sized(attempted, "target info", answer.target_info, TARGET_INFO_SIZE)


def quote(client: AesmClient, quote_type: QuoteType, report: bytes, spid: bytes = b"") -> bytes:
    """Return the quote of `report` (432 bytes), cut to its length; EPID wants the `spid` (16 bytes).

    Raises AesmError and its like.
    """
    attempted = "get a quote"
    if quote_type == "ecdsa":
        return _ecdsa_quote(client, attempted, report)
    request = GetQuoteRequest(
        report=report,
        quote_type=1 if quote_type == "epidLinkable" else 0,
        spid=spid,
        buf_size=EPID_QUOTE_SIZE,
        qe_report=False,
        timeout=TIMEOUT_MICROSECONDS,
    )
    return _cut(attempted, client.ask(attempted, request, GetQuoteResponse).quote)


def ecdsa_att_key_id(client: AesmClient, attempted: str) -> bytes:
    """Return the identity (256 bytes) of an ECDSA attestation key: the daemon's choice if it fits, else the first."""
    selected = client.ask(
        attempted, SelectAttKeyIDRequest(timeout=TIMEOUT_MICROSECONDS), SelectAttKeyIDResponse
    ).selected_att_key_id
    selected = _sized(attempted, "attestation key's identity", selected, ATT_KEY_ID_SIZE)
    if _algorithm(selected) == ECDSA_P256:
        return selected
    number = client.ask(
        attempted, GetSupportedAttKeyIDNumRequest(timeout=TIMEOUT_MICROSECONDS), GetSupportedAttKeyIDNumResponse
    ).att_key_id_num
    if number is None or not 0 < number <= KEY_IDS_MAX:
        raise AesmMalformedError(f"cannot {attempted}: the daemon speaks of {number} attestation keys")
    size = number * ATT_KEY_ID_SIZE
    request = GetSupportedAttKeyIDsRequest(buf_size=size, timeout=TIMEOUT_MICROSECONDS)
    listed = client.ask(attempted, request, GetSupportedAttKeyIDsResponse).att_key_ids
    listed = _sized(attempted, "attestation keys' identities", listed, size)
    for at in range(0, size, ATT_KEY_ID_SIZE):
        if _algorithm(listed[at:]) == ECDSA_P256:
            return listed[at : at + ATT_KEY_ID_SIZE]
    raise AesmError(attempted, code_named("AESM_UNSUPPORTED_ATT_KEY_ID"))


def _ecdsa_quote(client: AesmClient, attempted: str, report: bytes) -> bytes:
    if len(report) != REPORT_SIZE:
        raise AesmMalformedError(f"a REPORT has {REPORT_SIZE} bytes, found {len(report)}")
    att_key_id = ecdsa_att_key_id(client, attempted)
    size = client.ask(
        attempted, GetQuoteSizeExRequest(att_key_id=att_key_id, timeout=TIMEOUT_MICROSECONDS), GetQuoteSizeExResponse
    ).quote_size
    if not size:
        raise AesmMalformedError(f"cannot {attempted}: the daemon gives no size of a quote")
    request = GetQuoteExRequest(report=report, att_key_id=att_key_id, buf_size=size, timeout=TIMEOUT_MICROSECONDS)
    answer = client.exchange(attempted, request, GetQuoteExResponse)
    if answer.error_code == code_named("AESM_ATT_KEY_NOT_INITIALIZED"):
        qe_target_info(client, "ecdsa")
        answer = client.exchange(attempted, request, GetQuoteExResponse)
    if answer.error_code:
        raise AesmError(attempted, answer.error_code)
    return _cut(attempted, answer.quote)


def _algorithm(att_key_id: bytes) -> int:
    return int.from_bytes(att_key_id[_ALGORITHM_OFFSET : _ALGORITHM_OFFSET + 4], "little")


def _cut(attempted: str, padded: bytes | None) -> bytes:
    """Return a quote without the padding behind its signature."""
    found = padded or b""
    size = QUOTE_HEAD_SIZE + int.from_bytes(found[QUOTE_HEAD_SIZE - 4 : QUOTE_HEAD_SIZE], "little")
    if not QUOTE_HEAD_SIZE < size <= len(found):
        raise AesmMalformedError(
            f"cannot {attempted}: the daemon's quote has {len(found)} bytes and says that it has {size}"
        )
    return found[:size]


def _sized(attempted: str, what: str, value: bytes | None, size: int) -> bytes:
    if value is None or len(value) != size:
        raise AesmMalformedError(
            f"cannot {attempted}: invalid length of {what}: (returned {len(value or b'')}, expected {size})"
        )
    return value
