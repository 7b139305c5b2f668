from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from struct import pack, pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import AttestationError
from inclavare.sgx.arch import Report, ReportBody
from inclavare.sgx.quote import (
    CERT_PCK_CHAIN,
    CertificationData,
    EpidQuote,
    QEReportCertification,
    Quote,
    QuoteHeader,
    encode_quote,
    parse_epid_quote,
    parse_quote,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "attestation"
QUOTES = [*sorted((VECTORS / "quotes").iterdir()), VECTORS / "qvl_sample/quote.dat"]
# Offsets in a quote with 32 bytes of authentication data.
SIGNATURE_SIZE, AUTH_SIZE, CERTIFICATION = 432, 1012, 1046


@pytest.fixture(scope="module")
def quote() -> bytes:
    return (VECTORS / "quotes/phala_sgx.bin").read_bytes()


def changed(data: bytes, offset: int, code: str, value: int) -> bytes:
    copy = bytearray(data)
    pack_into("<" + code, copy, offset, value)
    return bytes(copy)


def as_version_4(quote: Quote) -> Quote:
    return replace(quote, header=replace(quote.header, version=4, qe_svn=0, pce_svn=0))


@pytest.mark.parametrize("path", QUOTES, ids=lambda path: path.name)
def test_quotes_of_the_world_are_written_again_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()
    assert encode_quote(parse_quote(data)) == data


def test_what_a_quote_says_is_read_from_its_places(quote: bytes) -> None:
    parsed = parse_quote(quote)
    assert (parsed.header.version, parsed.header.qe_svn, parsed.header.pce_svn) == (3, 10, 15)
    assert parsed.body.mrenclave.hex() == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
    assert parsed.body.mrsigner.hex()[:32] == "815f42f11cf64430c30bab7816ba596a"
    assert not parsed.body.debug
    assert parsed.signed() == quote[:432]
    assert parsed.qe.report.mrsigner.hex().startswith("8c4f5775d796503e")
    assert parsed.qe.auth_data == bytes(range(32))
    assert parsed.qe.certification.type == CERT_PCK_CHAIN
    assert parsed.qe.certification.data.startswith(b"-----BEGIN CERTIFICATE-----")


def test_a_debug_enclave_is_seen() -> None:
    assert parse_quote((VECTORS / "quotes/oe_sgx_2023.bin").read_bytes()).body.debug


def test_a_report_body_is_a_report_without_key_id_and_mac() -> None:
    offsets = Report.offsets()
    assert ReportBody.offsets() == {name: offsets[name] for name in offsets if name not in {"keyid", "mac"}}


def test_sgx_may_use_version_4(quote: bytes) -> None:
    fourth = as_version_4(parse_quote(quote))
    data = encode_quote(fourth)
    assert len(data) == len(quote) + 6
    assert parse_quote(data) == fourth


@pytest.mark.parametrize(
    ("offset", "code", "value", "message"),
    [
        (0, "H", 2, "quote.version: at offset 0: expected 3 or 4, found 2, an EPID quote"),
        (0, "H", 5, "quote.version: at offset 0: expected 3 or 4, found 5, as TDX has"),
        (0, "H", 6, "quote.version: at offset 0: expected 3 or 4, found 6"),
        (2, "H", 3, "quote.att_key_type: at offset 2: expected 2 (ECDSA P-256), found 3"),
        (4, "I", 0x81, "quote.tee_type: at offset 4: expected 0 (SGX), found 0x81 (TDX)"),
        (4, "I", 1, "quote.tee_type: at offset 4: expected 0 (SGX), found 0x1"),
        (12, "B", 0, "quote.qe_vendor_id: at offset 12: expected 939a7233f79c4ca9940a0db3957f0607 (Intel), found 009a"),
        (SIGNATURE_SIZE, "I", 4165, "quote.signature_size: at offset 432: expected 4164, the bytes that follow"),
        (SIGNATURE_SIZE, "I", 4163, "quote.signature_size: at offset 432: expected 4164, the bytes that follow"),
        (AUTH_SIZE, "H", 0xFFFF, "quote.qe_report.auth_data: at offset 1014: expected 65535 bytes, found 3586"),
        (CERTIFICATION, "H", 7, "quote.certification.type: at offset 1046: expected 1 to 5, found 7"),
        (CERTIFICATION, "H", 6, "quote.certification.type: at offset 1046: expected 1 to 5, found 6"),
        (CERTIFICATION, "H", 3, "quote.certification.size: at offset 1048: expected 404, found 3548"),
        (CERTIFICATION + 2, "I", 3549, "quote.certification.size: at offset 1048: expected 3548, the bytes that"),
    ],
)
def test_a_refusal_names_field_offset_and_both_values(
    quote: bytes, offset: int, code: str, value: int, message: str
) -> None:
    with pytest.raises(AttestationError) as error:
        parse_quote(changed(quote, offset, code, value))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("size", [0, 1, 47, 48, 431, 432, 435, 436, 1011, 1013, 1045, 1047, 1051, 4599])
@pytest.mark.parametrize("version", [3, 4])
def test_a_quote_that_ends_early_is_refused(quote: bytes, size: int, version: int) -> None:
    data = quote if version == 3 else encode_quote(as_version_4(parse_quote(quote)))
    with pytest.raises(AttestationError, match="expected"):
        parse_quote(data[:size])


@pytest.mark.parametrize("tail", [b"\0", bytes(8), bytes(3000)])
def test_bytes_after_a_quote_are_refused(quote: bytes, tail: bytes) -> None:
    with pytest.raises(AttestationError, match=r"quote\.signature_size"):
        parse_quote(quote + tail)


def test_a_megabyte_is_no_quote() -> None:
    with pytest.raises(AttestationError, match="expected at most 1048576 bytes"):
        parse_quote(bytes((1 << 20) + 1))


@pytest.mark.parametrize("name", ["phala_tdx_quote_v4.bin", "phala_tdx_quote_v5.bin"])
def test_quotes_of_tdx_are_refused_as_such(name: str) -> None:
    with pytest.raises(AttestationError, match="TDX") as error:
        parse_quote((VECTORS / "tdx" / name).read_bytes())
    assert "only quotes of SGX" in error.value.hint


def test_version_4_nests_the_certification_of_the_qe_report(quote: bytes) -> None:
    data = encode_quote(as_version_4(parse_quote(quote)))
    with pytest.raises(AttestationError, match=r"quote\.certification\.type: .* expected 6 \(QE report\), found 5"):
        parse_quote(changed(data, 564, "H", 5))
    with pytest.raises(AttestationError, match=r"quote\.certification\.size"):
        parse_quote(changed(data, 566, "I", 4))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"signature": bytes(63)}, "quote.signature"),
        ({"attestation_key": bytes(65)}, "quote.attestation_key"),
        ({"header": QuoteHeader(version=5)}, "quote.version"),
        ({"header": QuoteHeader(user_data=b"")}, "quote.user_data"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(quote: bytes, change: dict[str, object], path: str) -> None:
    with pytest.raises(AttestationError) as error:
        encode_quote(replace(parse_quote(quote), **change))  # type: ignore[arg-type]
    assert error.value.path == path


@given(
    version=st.sampled_from([3, 4]),
    reportdata=st.binary(min_size=64, max_size=64),
    auth_data=st.binary(max_size=100),
    certification=st.binary(max_size=200),
)
def test_what_is_written_reads_the_same(
    version: int, reportdata: bytes, auth_data: bytes, certification: bytes
) -> None:
    qe = QEReportCertification(ReportBody(isvsvn=9), bytes(64), auth_data, CertificationData(5, certification))
    quote = Quote(QuoteHeader(version=version), ReportBody(reportdata=reportdata), b"s" * 64, b"k" * 64, qe)
    assert parse_quote(encode_quote(quote)) == quote


@given(st.binary(max_size=2000))
def test_bytes_that_are_no_quote_raise_only_our_error(data: bytes) -> None:
    for version in (b"", b"\2\0", b"\3\0\2\0"):
        for parse in (parse_quote, parse_epid_quote):
            try:
                parse(version + data)
            except AttestationError as error:
                assert error.path.startswith("quote")  # noqa: PT017


def epid_quote() -> bytes:
    header = pack("<HH4sHHI32s", 2, 1, bytes.fromhex("c90b0000"), 15, 14, 0, b"spid".ljust(32, b"\0"))
    return header + ReportBody(isvprodid=7).to_bytes()


def test_an_epid_quote_is_read_with_its_signature_and_without() -> None:
    short = parse_epid_quote(epid_quote())
    assert short == EpidQuote(1, bytes.fromhex("c90b0000"), 15, 14, 0, b"spid".ljust(32, b"\0"), short.body, b"")
    assert short.body.isvprodid == 7
    assert parse_epid_quote(epid_quote() + pack("<I", 680) + b"e" * 680) == replace(short, signature=b"e" * 680)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (changed(epid_quote(), 0, "H", 3), "quote.version"),
        (changed(epid_quote(), 2, "H", 2), "quote.sign_type"),
        (epid_quote()[:-1], "quote.body"),
        (epid_quote() + b"\1", "quote.signature_size"),
        (epid_quote() + pack("<I", 2) + b"e", "quote.signature_size"),
    ],
)
def test_an_epid_quote_has_exact_sizes_too(data: bytes, path: str) -> None:
    with pytest.raises(AttestationError) as error:
        parse_epid_quote(data)
    assert error.value.path == path
