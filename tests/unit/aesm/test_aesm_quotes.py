"""Tokens and quotes over the daemon's socket, with the software platform behind it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inclavare.aesm.messages import (
    GetLaunchTokenRequest,
    GetLaunchTokenResponse,
    GetQuoteExRequest,
    GetQuoteExResponse,
    GetQuoteSizeExRequest,
    GetQuoteSizeExResponse,
    GetSupportedAttKeyIDsRequest,
    GetSupportedAttKeyIDsResponse,
    InitQuoteExRequest,
    InitQuoteExResponse,
    SelectAttKeyIDRequest,
    SelectAttKeyIDResponse,
)
from inclavare.sgx.arch import EinitToken, Report, TargetInfo
from inclavare.sgx.quote import parse_quote
from inclavare.sgx.softkeys import LAUNCH_ENCLAVE, QUOTING_ENCLAVE, SoftKeys
from inclavare.sgx.softquote import SoftPlatform
from tests.unit.aesm.serving import Serving
from tests.unit.aesm.soft_platform import SEED, soft_platform

KEYS = SoftKeys(SEED)
IDENTITY = soft_platform().att_key_id()
REPORT = KEYS.report(LAUNCH_ENCLAVE, QUOTING_ENCLAVE.target_info(), bytes(64))
OTHER_KEY = b"\1" + IDENTITY[1:]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, soft_platform())
    yield serving
    serving.close()


def initialize(daemon: Serving) -> InitQuoteExResponse:
    answer = daemon.ask(InitQuoteExRequest(att_key_id=IDENTITY, b_pub_key_id=True, buf_size=32))
    assert isinstance(answer, InitQuoteExResponse)
    return answer


def quote_request(report: bytes, qe_report_info: bytes | None = None, buf_size: int = 1 << 16) -> GetQuoteExRequest:
    return GetQuoteExRequest(report=report, att_key_id=IDENTITY, qe_report_info=qe_report_info, buf_size=buf_size)


def test_the_flow_of_dcap_from_the_choice_of_a_key_to_the_quote(daemon: Serving) -> None:
    selected = daemon.ask(SelectAttKeyIDRequest())
    assert selected == SelectAttKeyIDResponse(error_code=0, selected_att_key_id=IDENTITY)
    size_query = daemon.ask(InitQuoteExRequest(att_key_id=IDENTITY, b_pub_key_id=False))
    assert isinstance(size_query, InitQuoteExResponse)
    assert (size_query.error_code, size_query.pub_key_id_size, size_query.pub_key_id) == (0, 32, None)
    made = initialize(daemon)
    assert made.target_info is not None
    report = KEYS.report(LAUNCH_ENCLAVE, TargetInfo.from_bytes(made.target_info), bytes(range(64)))
    size = daemon.ask(GetQuoteSizeExRequest(att_key_id=IDENTITY))
    assert isinstance(size, GetQuoteSizeExResponse)
    assert size.quote_size is not None
    answer = daemon.ask(quote_request(report.to_bytes(), buf_size=size.quote_size))
    assert isinstance(answer, GetQuoteExResponse)
    assert answer.quote is not None
    assert len(answer.quote) == size.quote_size
    quote = parse_quote(answer.quote)
    assert quote.body.reportdata == bytes(range(64))
    assert made.pub_key_id == hashlib.sha256(quote.attestation_key).digest()


def test_a_report_of_the_quoting_enclave_covers_nonce_and_quote(daemon: Serving) -> None:
    initialize(daemon)
    nonce, target = b"n" * 16, LAUNCH_ENCLAVE.target_info()
    answer = daemon.ask(quote_request(REPORT.to_bytes(), nonce + target.to_bytes() + bytes(432)))
    assert isinstance(answer, GetQuoteExResponse)
    assert answer.quote is not None
    assert answer.qe_report_info is not None
    assert answer.qe_report_info[:528] == nonce + target.to_bytes()
    report = Report.from_bytes(answer.qe_report_info[528:])
    KEYS.check_report(report, target)
    assert report.mrenclave == QUOTING_ENCLAVE.mrenclave
    assert report.reportdata == hashlib.sha256(nonce + answer.quote).digest() + bytes(32)


def test_without_room_for_a_report_none_is_made(daemon: Serving) -> None:
    initialize(daemon)
    answer = daemon.ask(quote_request(REPORT.to_bytes()))
    assert isinstance(answer, GetQuoteExResponse)
    assert answer.qe_report_info is None


@pytest.mark.parametrize(
    "change", [{"mac": bytes(16)}, {"reportdata": b"x" * 64}, {"mrenclave": bytes(32)}, {"attributes": 7}]
)
def test_a_forged_report_is_the_error_47(daemon: Serving, change: dict[str, bytes]) -> None:
    initialize(daemon)
    forged = replace(REPORT, **change)  # type: ignore[arg-type]
    assert daemon.ask(quote_request(forged.to_bytes())) == GetQuoteExResponse(error_code=47)


def test_a_report_of_another_platform_or_for_another_target_is_the_error_47(daemon: Serving) -> None:
    initialize(daemon)
    foreign = SoftKeys(bytes(32)).report(LAUNCH_ENCLAVE, QUOTING_ENCLAVE.target_info(), bytes(64))
    elsewhere = KEYS.report(LAUNCH_ENCLAVE, LAUNCH_ENCLAVE.target_info(), bytes(64))
    for report in (foreign, elsewhere):
        assert daemon.ask(quote_request(report.to_bytes())).error_code == 47


def test_a_quote_before_the_key_was_made_is_the_error_42(daemon: Serving) -> None:
    assert daemon.ask(quote_request(REPORT.to_bytes())).error_code == 42
    initialize(daemon)
    assert daemon.ask(quote_request(REPORT.to_bytes())).error_code == 0


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (quote_request(bytes(431)), 3),
        (quote_request(REPORT.to_bytes(), bytes(959)), 3),
        (quote_request(REPORT.to_bytes(), buf_size=100), 3),
        (GetQuoteExRequest(report=REPORT.to_bytes(), buf_size=1 << 16), 3),
        (GetQuoteExRequest(report=REPORT.to_bytes(), att_key_id=OTHER_KEY, buf_size=1 << 16), 38),
        (GetQuoteSizeExRequest(), 3),
        (GetQuoteSizeExRequest(att_key_id=OTHER_KEY), 38),
        (InitQuoteExRequest(b_pub_key_id=True, buf_size=32), 3),
        (InitQuoteExRequest(att_key_id=OTHER_KEY, b_pub_key_id=True, buf_size=32), 38),
        (InitQuoteExRequest(att_key_id=IDENTITY, b_pub_key_id=True, buf_size=31), 3),
        (InitQuoteExRequest(att_key_id=IDENTITY, b_pub_key_id=True), 3),
        (GetSupportedAttKeyIDsRequest(buf_size=255), 3),
    ],
)
def test_what_does_not_fit_is_told_by_its_code(
    daemon: Serving, request_: GetQuoteExRequest | GetQuoteSizeExRequest | InitQuoteExRequest, code: int
) -> None:
    initialize(daemon)
    assert daemon.ask(request_) == request_.RESPONSE(error_code=code)


def test_identities_are_compared_up_to_the_algorithm_only(daemon: Serving) -> None:
    with_spid = IDENTITY[:158] + b"s" * 98
    assert daemon.ask(GetQuoteSizeExRequest(att_key_id=with_spid)).error_code == 0


def test_there_is_one_identity(daemon: Serving) -> None:
    answer = daemon.ask(GetSupportedAttKeyIDsRequest(buf_size=256))
    assert answer == GetSupportedAttKeyIDsResponse(error_code=0, att_key_ids=IDENTITY)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", 0),
        (struct.pack("<HHI", 0, 0, 1) + IDENTITY, 0),
        (struct.pack("<HHI", 0, 0, 2) + OTHER_KEY + IDENTITY, 0),
        (struct.pack("<HHI", 0, 0, 1) + OTHER_KEY, 38),
        (struct.pack("<HHI", 0, 0, 0), 3),
        (struct.pack("<HHI", 0, 0, 2) + IDENTITY, 3),
        (struct.pack("<HHI", 0, 0, 11) + IDENTITY * 11, 3),
        (struct.pack("<HHI", 1, 0, 1) + IDENTITY, 3),
        (struct.pack("<HHI", 0, 1, 1) + IDENTITY, 3),
        (b"\0", 3),
    ],
)
def test_a_key_is_chosen_from_the_clients_list(daemon: Serving, raw: bytes, code: int) -> None:
    assert daemon.ask(SelectAttKeyIDRequest(att_key_id_list=raw)).error_code == code


def test_a_debug_enclave_gets_a_token_and_another_does_not(daemon: Serving) -> None:
    def request(attributes: int) -> GetLaunchTokenRequest:
        return GetLaunchTokenRequest(
            mr_enclave=b"e" * 32, mr_signer=b"m" * 384, se_attributes=struct.pack("<QQ", attributes, 3)
        )

    answer = daemon.ask(request(6))
    assert isinstance(answer, GetLaunchTokenResponse)
    assert answer.token is not None
    assert EinitToken.from_bytes(answer.token).mrenclave == b"e" * 32
    for attributes in (4, 6 | 0x10, 6 | 1 << 60):
        assert daemon.ask(request(attributes)) == GetLaunchTokenResponse(error_code=6)
    assert "its signer is on no list" in daemon.log.read_text()


def test_a_platform_without_a_certificate_says_so(tmp_path: Path) -> None:
    daemon = Serving(tmp_path, SoftPlatform(KEYS, None))
    try:
        assert initialize(daemon).error_code == 44
        assert daemon.ask(GetQuoteSizeExRequest(att_key_id=IDENTITY)).error_code == 44
        assert daemon.ask(InitQuoteExRequest(att_key_id=IDENTITY, b_pub_key_id=False)).error_code == 0
    finally:
        daemon.close()
