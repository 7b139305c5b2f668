"""The daemon's side of AESM: bytes in, bytes out, or nothing, which means that the connection is to be closed. No I/O.

`Service` answers as Intel's daemon does: a message that cannot be read, or has no known request, gets no answer; a
request that lacks a required member is the error 1, one with a member of the wrong size the error 3. What it offers is
DCAP's ECDSA quotes and launch tokens. EPID is refused: its keys came from Intel's provisioning service, which has
ended, and nothing that a software platform could say in its place would be checked by anybody.

Behind it is a platform (`sgx.platform_protocol`); all secrets and rules are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from inclavare.aesm.codec import HEAD_SIZE, decode_request, encode, message_size
from inclavare.aesm.errors import AesmMalformedError, AesmMissingMemberError, code_named, meaning
from inclavare.aesm.messages import (
    ATT_KEY_ID_SIZE,
    PUB_KEY_ID_SIZE,
    QE_REPORT_INFO_SIZE,
    REPORT_SIZE,
    REQUESTS,
    UNEXPECTED_ERROR,
    CheckUpdateStatusRequest,
    GetLaunchTokenRequest,
    GetLaunchTokenResponse,
    GetQuoteExRequest,
    GetQuoteExResponse,
    GetQuoteRequest,
    GetQuoteSizeExRequest,
    GetQuoteSizeExResponse,
    GetSupportedAttKeyIDNumRequest,
    GetSupportedAttKeyIDNumResponse,
    GetSupportedAttKeyIDsRequest,
    GetSupportedAttKeyIDsResponse,
    GetWhiteListRequest,
    GetWhiteListResponse,
    GetWhiteListSizeRequest,
    GetWhiteListSizeResponse,
    InitQuoteExRequest,
    InitQuoteExResponse,
    InitQuoteRequest,
    ReportAttestationErrorRequest,
    Request,
    Response,
    SelectAttKeyIDRequest,
    SelectAttKeyIDResponse,
    SGXGetExtendedEpidGroupIdRequest,
    SGXRegisterRequest,
    SGXSwitchExtendedEpidGroupRequest,
)
from inclavare.errors import InclavareError
from inclavare.sgx.platform_protocol import InvalidReportError, LaunchRefusedError, NoCertificateError, Platform

ATT_KEY_ID_BASE_SIZE = 158  # what two identities must share: all up to the algorithm
ATT_KEY_IDS_MAX = 10  # in a client's list
_LIST_HEAD_SIZE = 8

_SUCCESS = 0
_PARAMETER = code_named("AESM_PARAMETER_ERROR")
_NO_TOKEN = code_named("AESM_GET_LICENSETOKEN_ERROR")
_UNAVAILABLE = code_named("AESM_SERVICE_UNAVAILABLE")
_UNSUPPORTED_KEY = code_named("AESM_UNSUPPORTED_ATT_KEY_ID")
_NOT_INITIALIZED = code_named("AESM_ATT_KEY_NOT_INITIALIZED")
_NO_CERTIFICATE = code_named("AESM_NO_PLATFORM_CERT_DATA")
_INVALID_REPORT = code_named("AESM_INVALID_REPORT")

_RETIRED = "Intel has retired EPID and its provisioning service"


class FrameReader:
    """Puts a message together from what comes in, piece by piece."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._size = 0

    def wanted(self) -> int:
        """Return how many bytes are missing, as far as it is known; 0 when the message is there."""
        if len(self._data) < HEAD_SIZE:
            return HEAD_SIZE - len(self._data)
        return HEAD_SIZE + self._size - len(self._data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, at most as many as are wanted. Raises AesmMalformedError for a size out of bounds."""
        self._data += data
        if not self._size and len(self._data) >= HEAD_SIZE:
            self._size = message_size(bytes(self._data[:HEAD_SIZE]))

    def payload(self) -> bytes:
        """Return the message, without its length."""
        return bytes(self._data[HEAD_SIZE:])


class Outcome(NamedTuple):
    """What became of a message: the frame to send (None: close), and a line about it for the log."""

    frame: bytes | None
    said: str


class _Refused(Exception):  # noqa: N818  # an answer with a code, not an error of ours
    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class Service:
    """Answers requests for `platform`. The attestation key counts as made once a client has asked for it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._initialized = False
        self._answers: dict[type[Request], Callable[[Any], Response]] = {
            GetLaunchTokenRequest: self._launch_token,
            InitQuoteRequest: self._epid,
            GetQuoteRequest: self._epid_quote,
            ReportAttestationErrorRequest: self._epid,
            CheckUpdateStatusRequest: self._epid,
            GetWhiteListSizeRequest: self._white_list_size,
            GetWhiteListRequest: self._white_list,
            SGXGetExtendedEpidGroupIdRequest: self._epid,
            SGXSwitchExtendedEpidGroupRequest: self._epid,
            SGXRegisterRequest: self._register,
            InitQuoteExRequest: self._init_quote,
            GetQuoteSizeExRequest: self._quote_size,
            GetQuoteExRequest: self._quote,
            SelectAttKeyIDRequest: self._select,
            GetSupportedAttKeyIDNumRequest: self._key_count,
            GetSupportedAttKeyIDsRequest: self._key_ids,
        }

    def answer(self, payload: bytes) -> Outcome:
        """Return what becomes of a message (without its length). Raises nothing but faults of the platform."""
        try:
            request = decode_request(payload)
        except AesmMissingMemberError as error:
            kind = next(kind for kind in REQUESTS if error.number == kind.NUMBER)
            return _refusal(kind, UNEXPECTED_ERROR, error.message)
        except AesmMalformedError as error:
            return Outcome(None, f"malformed: {error.message}")
        kind = type(request)
        try:
            response = self._answers[kind](request)
        except _Refused as refused:
            return _refusal(kind, refused.code, refused.why)
        except InvalidReportError as error:
            return _refusal(kind, _INVALID_REPORT, error.message)
        except NoCertificateError as error:
            return _refusal(kind, _NO_CERTIFICATE, error.message)
        except LaunchRefusedError as error:
            return _refusal(kind, _NO_TOKEN, error.message)
        except InclavareError as error:
            return _refusal(kind, UNEXPECTED_ERROR, error.message)
        return Outcome(encode(response), f"{kind.__name__}: AESM_SUCCESS")

    def _launch_token(self, request: GetLaunchTokenRequest) -> Response:
        _require_sizes((request.mr_enclave, 32), (request.mr_signer, 384), (request.se_attributes, 16))
        token = self._platform.launch_token(request.mr_enclave, request.mr_signer, request.se_attributes)
        return GetLaunchTokenResponse(error_code=_SUCCESS, token=token)

    def _white_list_size(self, _: GetWhiteListSizeRequest) -> Response:
        return GetWhiteListSizeResponse(error_code=_SUCCESS, white_list_size=0)

    def _white_list(self, request: GetWhiteListRequest) -> Response:
        if request.white_list_size:
            raise _Refused(_PARAMETER, "the list of signers is empty")
        return GetWhiteListResponse(error_code=_SUCCESS, white_list=b"")

    def _register(self, _: SGXRegisterRequest) -> Response:
        raise _Refused(_UNAVAILABLE, "the launch enclave takes no list of signers")

    def _epid(self, _: Request) -> Response:
        raise _Refused(_UNAVAILABLE, _RETIRED)

    def _epid_quote(self, request: GetQuoteRequest) -> Response:
        _require_sizes((request.report, REPORT_SIZE), (request.spid, 16), (request.nonce, 16))
        if request.quote_type > 1:
            raise _Refused(_PARAMETER, f"no quote has the type {request.quote_type}")
        raise _Refused(_UNAVAILABLE, _RETIRED)

    def _select(self, request: SelectAttKeyIDRequest) -> Response:
        own = self._platform.att_key_id()
        if request.att_key_id_list:
            offered = _att_key_id_list(request.att_key_id_list)
            if not any(identity[:ATT_KEY_ID_BASE_SIZE] == own[:ATT_KEY_ID_BASE_SIZE] for identity in offered):
                raise _Refused(_UNSUPPORTED_KEY, "none of the identities in the list is ours")
        return SelectAttKeyIDResponse(error_code=_SUCCESS, selected_att_key_id=own)

    def _key_count(self, _: GetSupportedAttKeyIDNumRequest) -> Response:
        return GetSupportedAttKeyIDNumResponse(error_code=_SUCCESS, att_key_id_num=1)

    def _key_ids(self, request: GetSupportedAttKeyIDsRequest) -> Response:
        if request.buf_size != ATT_KEY_ID_SIZE:
            raise _Refused(_PARAMETER, f"one identity has {ATT_KEY_ID_SIZE} bytes, the buffer {request.buf_size}")
        return GetSupportedAttKeyIDsResponse(error_code=_SUCCESS, att_key_ids=self._platform.att_key_id())

    def _init_quote(self, request: InitQuoteExRequest) -> Response:
        self._require_key(request.att_key_id)
        pub_key_id = None
        if request.b_pub_key_id:
            if (request.buf_size or 0) < PUB_KEY_ID_SIZE:
                raise _Refused(_PARAMETER, f"the key's identity has {PUB_KEY_ID_SIZE} bytes, not {request.buf_size}")
            pub_key_id = self._platform.pub_key_id()
            self._initialized = True
        return InitQuoteExResponse(
            error_code=_SUCCESS,
            target_info=self._platform.qe_target_info(),
            pub_key_id_size=PUB_KEY_ID_SIZE,
            pub_key_id=pub_key_id,
        )

    def _quote_size(self, request: GetQuoteSizeExRequest) -> Response:
        self._require_key(request.att_key_id)
        return GetQuoteSizeExResponse(error_code=_SUCCESS, quote_size=self._platform.quote_size())

    def _quote(self, request: GetQuoteExRequest) -> Response:
        _require_sizes((request.report, REPORT_SIZE), (request.qe_report_info, QE_REPORT_INFO_SIZE))
        self._require_key(request.att_key_id)
        if request.buf_size < self._platform.quote_size():
            raise _Refused(_PARAMETER, f"a quote has {self._platform.quote_size()} bytes, not {request.buf_size}")
        if not self._initialized:
            raise _Refused(_NOT_INITIALIZED)
        quote = self._platform.quote(request.report)
        return GetQuoteExResponse(
            error_code=_SUCCESS, quote=quote, qe_report_info=self._report_over(quote, request.qe_report_info)
        )

    def _report_over(self, quote: bytes, qe_report_info: bytes | None) -> bytes | None:
        """Return the information (nonce, target, room for a report) with a report over nonce and quote in its room."""
        if qe_report_info is None:
            return None
        nonce, target_info = qe_report_info[:16], qe_report_info[16:528]
        reportdata = hashlib.sha256(nonce + quote).digest() + bytes(32)
        return nonce + target_info + self._platform.qe_report(target_info, reportdata)

    def _require_key(self, att_key_id: bytes | None) -> None:
        if att_key_id is None or len(att_key_id) < ATT_KEY_ID_SIZE:
            raise _Refused(_PARAMETER, f"an attestation key's identity has {ATT_KEY_ID_SIZE} bytes")
        if att_key_id[:ATT_KEY_ID_BASE_SIZE] != self._platform.att_key_id()[:ATT_KEY_ID_BASE_SIZE]:
            raise _Refused(_UNSUPPORTED_KEY)


def _refusal(kind: type[Request], code: int, why: str) -> Outcome:
    name = meaning(code).name
    return Outcome(encode(kind.RESPONSE(error_code=code)), f"{kind.__name__}: {name}" + (f" ({why})" if why else ""))


def _require_sizes(*members: tuple[bytes | None, int]) -> None:
    """Refuse members of the wrong size; those that were not sent are fine."""
    for value, size in members:
        if value is not None and len(value) != size:
            raise _Refused(_PARAMETER, f"{len(value)} bytes where {size} belong")


def _att_key_id_list(raw: bytes) -> list[bytes]:
    """Return the identities in a client's list: two numbers that are 0, how many, and 256 bytes for each."""
    count = int.from_bytes(raw[4:_LIST_HEAD_SIZE], "little")
    if len(raw) != _LIST_HEAD_SIZE + count * ATT_KEY_ID_SIZE or any(raw[:4]) or not 0 < count <= ATT_KEY_IDS_MAX:
        raise _Refused(_PARAMETER, f"no list of identities: {len(raw)} bytes for {count}")
    return [raw[at : at + ATT_KEY_ID_SIZE] for at in range(_LIST_HEAD_SIZE, len(raw), ATT_KEY_ID_SIZE)]
