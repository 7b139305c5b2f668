"""The messages of the AESM protocol: one frozen value a request or response, with what each member is on the wire.

A request travels as the member NUMBER of a protobuf message Request, its response as the same member of Response. The
names are those of Intel's aesm.message package. `codec` turns these values into bytes and back; nothing here or there
knows what a message means. A member that is None was not sent, which is not the same as one that is empty or 0.

Members of requests that say how long a client would wait (`timeout`) are kept because they are sent; no daemon minds
them. Numbers 5 to 9 were platform services, which are gone; 20 is an answer that nobody sends.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Literal

Kind = Literal["u32", "u64", "bool", "bytes"]

REPORT_SIZE = 432
TARGET_INFO_SIZE = 512
ATT_KEY_ID_SIZE = 256
QE_REPORT_INFO_SIZE = 960
TOKEN_SIZE = 304
PUB_KEY_ID_SIZE = 32

UNEXPECTED_ERROR = 1


def _member(number: int, kind: Kind, *, default: Any = None) -> Any:
    """Declare an optional member."""
    return field(default=default, metadata={"number": number, "kind": kind})


def _required(number: int, kind: Kind) -> Any:
    """Declare a member without which the message is refused."""
    return field(metadata={"number": number, "kind": kind})


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request or a response."""

    NUMBER: ClassVar[int]


def members(message: type[Message]) -> dict[int, tuple[str, Kind, bool]]:
    """Return the members of a message by their number: name, kind, whether required."""

    def required(item: Field[Any]) -> bool:
        return item.default is MISSING

    return {item.metadata["number"]: (item.name, item.metadata["kind"], required(item)) for item in fields(message)}


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """What a client asks; RESPONSE is the type of the answer."""

    RESPONSE: ClassVar[type[Response]]


@dataclass(frozen=True, kw_only=True)
class Response(Message):
    """What the daemon answers. Without success (0) only the code counts. An answer without a code is the error 1."""

    error_code: int = _member(1, "u32", default=UNEXPECTED_ERROR)


@dataclass(frozen=True, kw_only=True)
class InitQuoteResponse(Response):
    """`gid` has 4 bytes, little endian."""

    NUMBER = 1
    target_info: bytes | None = _member(2, "bytes")
    gid: bytes | None = _member(3, "bytes")


@dataclass(frozen=True, kw_only=True)
class InitQuoteRequest(Request):
    """Ask for the EPID quoting enclave's target info and the EPID group."""

    NUMBER = 1
    RESPONSE = InitQuoteResponse
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetQuoteResponse(Response):
    """The quote fills the buffer that was asked for; what its signature length does not cover is 0."""

    NUMBER = 2
    quote: bytes | None = _member(2, "bytes")
    qe_report: bytes | None = _member(3, "bytes")


@dataclass(frozen=True, kw_only=True)
class GetQuoteRequest(Request):
    """Ask for an EPID quote; `quote_type` is 0 for unlinkable, 1 for linkable."""

    NUMBER = 2
    RESPONSE = GetQuoteResponse
    report: bytes = _required(1, "bytes")
    quote_type: int = _required(2, "u32")
    spid: bytes = _required(3, "bytes")
    nonce: bytes | None = _member(4, "bytes")
    sig_rl: bytes | None = _member(5, "bytes")
    buf_size: int = _required(6, "u32")
    qe_report: bool | None = _member(7, "bool")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetLaunchTokenResponse(Response):
    """`token` is an EINITTOKEN."""

    NUMBER = 3
    token: bytes | None = _member(2, "bytes")


@dataclass(frozen=True, kw_only=True)
class GetLaunchTokenRequest(Request):
    """Ask the launch enclave for a token; `mr_signer` is, despite its name, the modulus (384 bytes, little endian)."""

    NUMBER = 3
    RESPONSE = GetLaunchTokenResponse
    mr_enclave: bytes = _required(1, "bytes")
    mr_signer: bytes = _required(2, "bytes")
    se_attributes: bytes = _required(3, "bytes")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class ReportAttestationErrorResponse(Response):
    """What the platform should update, 0 bytes for nothing."""

    NUMBER = 4
    platform_update_info: bytes | None = _member(2, "bytes")


@dataclass(frozen=True, kw_only=True)
class ReportAttestationErrorRequest(Request):
    """Tell the platform what the attestation service said of it."""

    NUMBER = 4
    RESPONSE = ReportAttestationErrorResponse
    platform_info: bytes = _required(1, "bytes")
    attestation_error_code: int = _required(2, "u32")
    update_info_size: int = _required(3, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetWhiteListSizeResponse(Response):
    """Bytes of the launch enclave's list."""

    NUMBER = 10
    white_list_size: int | None = _member(2, "u32")


@dataclass(frozen=True, kw_only=True)
class GetWhiteListSizeRequest(Request):
    """Ask how large the launch enclave's list of signers is."""

    NUMBER = 10
    RESPONSE = GetWhiteListSizeResponse
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetWhiteListResponse(Response):
    """The launch enclave's list of signers."""

    NUMBER = 11
    white_list: bytes | None = _member(2, "bytes")


@dataclass(frozen=True, kw_only=True)
class GetWhiteListRequest(Request):
    """Ask for the launch enclave's list of signers."""

    NUMBER = 11
    RESPONSE = GetWhiteListResponse
    white_list_size: int | None = _member(1, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class SGXGetExtendedEpidGroupIdResponse(Response):
    """The extended EPID group; 0 is Intel's."""

    NUMBER = 12
    x_group_id: int | None = _member(2, "u32")


@dataclass(frozen=True, kw_only=True)
class SGXGetExtendedEpidGroupIdRequest(Request):
    """Ask for the extended EPID group."""

    NUMBER = 12
    RESPONSE = SGXGetExtendedEpidGroupIdResponse
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class SGXSwitchExtendedEpidGroupResponse(Response):
    """Only a code."""

    NUMBER = 13


@dataclass(frozen=True, kw_only=True)
class SGXSwitchExtendedEpidGroupRequest(Request):
    """Change to another extended EPID group."""

    NUMBER = 13
    RESPONSE = SGXSwitchExtendedEpidGroupResponse
    x_group_id: int | None = _member(1, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class SGXRegisterResponse(Response):
    """Only a code."""

    NUMBER = 14


@dataclass(frozen=True, kw_only=True)
class SGXRegisterRequest(Request):
    """Register a certificate chain for the launch enclave's list."""

    NUMBER = 14
    RESPONSE = SGXRegisterResponse
    buf: bytes = _required(1, "bytes")
    data_type: int = _required(2, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class InitQuoteExResponse(Response):
    """`pub_key_id` names the attestation key (its SHA-256) and comes when it was asked for."""

    NUMBER = 15
    target_info: bytes | None = _member(2, "bytes")
    pub_key_id_size: int | None = _member(3, "u64")
    pub_key_id: bytes | None = _member(4, "bytes")


@dataclass(frozen=True, kw_only=True)
class InitQuoteExRequest(Request):
    """Ask for a quoting enclave's target info, and with `b_pub_key_id` have its attestation key made."""

    NUMBER = 15
    RESPONSE = InitQuoteExResponse
    att_key_id: bytes | None = _member(1, "bytes")
    b_pub_key_id: bool = _required(3, "bool")
    buf_size: int | None = _member(4, "u64")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetQuoteSizeExResponse(Response):
    """Bytes of a quote."""

    NUMBER = 16
    quote_size: int | None = _member(2, "u32")


@dataclass(frozen=True, kw_only=True)
class GetQuoteSizeExRequest(Request):
    """Ask how large a quote will be."""

    NUMBER = 16
    RESPONSE = GetQuoteSizeExResponse
    att_key_id: bytes | None = _member(1, "bytes")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetQuoteExResponse(Response):
    """The quote, and the information asked for with the quoting enclave's report filled in."""

    NUMBER = 17
    quote: bytes | None = _member(2, "bytes")
    qe_report_info: bytes | None = _member(3, "bytes")


@dataclass(frozen=True, kw_only=True)
class GetQuoteExRequest(Request):
    """Ask for a quote of a report.

    With `qe_report_info` (nonce, target info, space for a report) the quoting enclave also reports over the quote.
    """

    NUMBER = 17
    RESPONSE = GetQuoteExResponse
    report: bytes = _required(1, "bytes")
    att_key_id: bytes | None = _member(2, "bytes")
    qe_report_info: bytes | None = _member(3, "bytes")
    buf_size: int = _required(4, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class CheckUpdateStatusResponse(Response):
    """What the platform should update, and whether."""

    NUMBER = 18
    platform_update_info: bytes | None = _member(2, "bytes")
    status: int | None = _member(3, "u32")


@dataclass(frozen=True, kw_only=True)
class CheckUpdateStatusRequest(Request):
    """Ask whether the platform should be updated."""

    NUMBER = 18
    RESPONSE = CheckUpdateStatusResponse
    platform_info: bytes | None = _member(1, "bytes")
    update_info_size: int = _required(2, "u32")
    config: int = _required(3, "u32")
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class SelectAttKeyIDResponse(Response):
    """The attestation key's identity to go on with."""

    NUMBER = 19
    selected_att_key_id: bytes | None = _member(2, "bytes")


@dataclass(frozen=True, kw_only=True)
class SelectAttKeyIDRequest(Request):
    """Ask for an attestation key among those that the client's verifier takes; no list means any."""

    NUMBER = 19
    RESPONSE = SelectAttKeyIDResponse
    att_key_id_list: bytes | None = _member(1, "bytes")
    timeout: int | None = _member(2, "u32")  # 2, and 9 everywhere else


@dataclass(frozen=True, kw_only=True)
class GetSupportedAttKeyIDNumResponse(Response):
    """How many there are."""

    NUMBER = 21
    att_key_id_num: int | None = _member(2, "u32")


@dataclass(frozen=True, kw_only=True)
class GetSupportedAttKeyIDNumRequest(Request):
    """Ask how many attestation keys there are."""

    NUMBER = 21
    RESPONSE = GetSupportedAttKeyIDNumResponse
    timeout: int | None = _member(9, "u32")


@dataclass(frozen=True, kw_only=True)
class GetSupportedAttKeyIDsResponse(Response):
    """256 bytes for each attestation key."""

    NUMBER = 22
    att_key_ids: bytes | None = _member(2, "bytes")


@dataclass(frozen=True, kw_only=True)
class GetSupportedAttKeyIDsRequest(Request):
    """Ask for the identities of all attestation keys; `buf_size` is 256 times their number."""

    NUMBER = 22
    RESPONSE = GetSupportedAttKeyIDsResponse
    buf_size: int = _required(1, "u32")
    timeout: int | None = _member(9, "u32")


# In the order in which a daemon looks for them when a message has several.
REQUESTS: tuple[type[Request], ...] = (
    GetLaunchTokenRequest,
    InitQuoteRequest,
    GetQuoteRequest,
    ReportAttestationErrorRequest,
    CheckUpdateStatusRequest,
    GetWhiteListSizeRequest,
    GetWhiteListRequest,
    SGXGetExtendedEpidGroupIdRequest,
    SGXSwitchExtendedEpidGroupRequest,
    SGXRegisterRequest,
    InitQuoteExRequest,
    GetQuoteSizeExRequest,
    GetQuoteExRequest,
    SelectAttKeyIDRequest,
    GetSupportedAttKeyIDNumRequest,
    GetSupportedAttKeyIDsRequest,
)
