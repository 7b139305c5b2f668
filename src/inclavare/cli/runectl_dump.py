"""SGX structures as the original's `--verbose` printed them: its labels (with its spelling), its order, its numbers.

Scripts read these lines, so nothing is mended but the columns, which the original's first releases had ragged in two
lines, and the build date, which is read as BCD where it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from inclavare.sgx.arch import EinitToken, Report, Sigstruct, TargetInfo
from inclavare.sgx.sigstruct import build_date

_SIGSTRUCT_COLUMN = 36
_TOKEN_COLUMN = 44
_REPORT_COLUMN = 34
_TARGET_INFO_COLUMN = 22
_QUOTE_COLUMN = 40
_SHOWN_BYTES = 32  # of numbers with 384 bytes

Rows = list[tuple[str, str]]


def sigstruct_lines(sigstruct: Sigstruct) -> Iterator[str]:
    """Give the lines of a SIGSTRUCT."""
    yield "SIGSTRUCT:"
    yield from _lines(
        _SIGSTRUCT_COLUMN,
        [
            ("Enclave Vendor", _u32(sigstruct.vendor)),
            ("Enclave Build Date", build_date(sigstruct.date) if sigstruct.date else "0-0-0"),
            ("Software Defined", _u32(sigstruct.swdefined)),
            ("ISV assigned Product Family ID", _hex(sigstruct.isvfamilyid)),
            ("ISV assigned Produdct ID", _u16(sigstruct.isvprodid)),
            ("ISV assigned Extended Product ID", _hex(sigstruct.isvextprodid)),
            ("ISV assigned SVN", str(sigstruct.isvsvn)),
            ("Enclave Attributes", _pair(sigstruct.attributes, sigstruct.xfrm)),
            ("Enclave Attributes Mask", _pair(sigstruct.attributes_mask, sigstruct.xfrm_mask)),
            ("Enclave Misc Select", _u32(sigstruct.miscselect)),
            ("Enclave Misc Mask", _u32(sigstruct.miscmask)),
            ("Enclave Hash", _hex(sigstruct.enclavehash)),
            ("Modulus", _start(sigstruct.modulus)),
            ("Exponent", str(sigstruct.exponent)),
            ("Signature", _start(sigstruct.signature)),
            ("Q1", _start(sigstruct.q1)),
            ("Q2", _start(sigstruct.q2)),
        ],
    )


def token_lines(token: EinitToken) -> Iterator[str]:
    """Give the lines of an EINITTOKEN."""
    yield "EINITTOKEN:"
    yield from _lines(
        _TOKEN_COLUMN,
        [
            ("Valid", str(token.valid)),
            ("Enclave Attributes", _pair(token.attributes, token.xfrm)),
            ("Enclave Hash", _hex(token.mrenclave)),
            ("Enclave Signer", _hex(token.mrsigner)),
            ("Launch Enclave's CPU SVN ", _hex(token.cpusvnle)),
            ("Launch Enclave's ISV assigned Product ID", _u16(token.isvprodidle)),
            ("Launch Enclave's ISV assigned SVN", str(token.isvsvnle)),
            ("Launch Enclave's Masked Misc Select", _u32(token.maskedmiscselectle)),
            ("Launch Enclave's Masked Attributes", _pair(token.maskedattributesle, token.maskedxfrmle)),
            ("Key ID", _hex(token.keyid)),
            ("MAC", _hex(token.mac)),
        ],
    )


def target_info_lines(target: TargetInfo) -> Iterator[str]:
    """Give the lines of the quoting enclave's TARGETINFO."""
    yield "Quoting Enclave's TARGETINFO:"
    yield from _lines(
        _TARGET_INFO_COLUMN,
        [
            ("Enclave Hash", _hex(target.mrenclave)),
            ("Enclave Attributes", _pair(target.attributes, target.xfrm)),
            ("CET Attributes", f"0x{target.cet_attributes:02x}"),
            ("Config SVN", _u16(target.configsvn)),
            ("Misc Select", _u32(target.miscselect)),
            ("Config ID", _hex(target.configid)),
        ],
    )


def report_lines(report: Report) -> Iterator[str]:
    """Give the lines of a REPORT."""
    yield "REPORT:"
    yield from _lines(
        _REPORT_COLUMN,
        [
            ("CPU SVN", _hex(report.cpusvn)),
            ("Misc Select", _u32(report.miscselect)),
            ("Product ID", _hex(report.isvextprodid)),
            ("Attributes", _pair(report.attributes, report.xfrm)),
            ("Enclave Hash", _hex(report.mrenclave)),
            ("Enclave Signer", _hex(report.mrsigner)),
            ("Config ID", _hex(report.configid)),
            ("ISV assigned Produdct ID", _u16(report.isvprodid)),
            ("ISV assigned SVN", str(report.isvsvn)),
            ("Config SVN", _u16(report.configsvn)),
            ("ISV assigned Product Family ID", _hex(report.isvfamilyid)),
            ("Report Data", _hex(report.reportdata)),
        ],
    )


def quote_lines(quote: bytes) -> Iterator[str]:
    """Give the lines of a quote, version 2 (EPID) or another (ECDSA), which has at least 436 bytes."""
    version = _number(quote, 0, 2)
    yield "QUOTE:"
    rows = [("Version", str(version)), ("Signature Type", str(_number(quote, 2, 2)))]
    if version == 2:
        rows += [
            ("Gid", _u32(_number(quote, 4, 4))),
            ("ISV assigned SVN for Quoting Enclave", str(_number(quote, 8, 2))),
            ("ISV assigned SVN for PCE", str(_number(quote, 10, 2))),
            ("Base name", _hex(quote[16:48])),
        ]
    else:
        rows += [
            ("Quoting Enclave SVN", str(_number(quote, 8, 2))),
            ("PCE SVN", str(_number(quote, 10, 2))),
            ("Quoting Enclave Vendor Id", _hex(quote[12:28])),
            ("User Data", _hex(quote[28:48])),
        ]
    yield from _lines(_QUOTE_COLUMN, rows)
    # A quote has the body of a report, without what its target needs to check it.
    body = Report.from_bytes(quote[48:432].ljust(Report.SIZE, b"\0"))
    yield from (f"  {line}" for line in report_lines(body))
    yield from _lines(_QUOTE_COLUMN, [("Signature Length", str(_number(quote, 432, 4)))])


def _lines(column: int, rows: Rows) -> Iterator[str]:
    for label, value in rows:
        yield f"{'  ' + label + ':':<{column - 1}} {value}"


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def _u32(number: int) -> str:
    return f"0x{number:08x}"


def _u16(number: int) -> str:
    return f"0x{number:04x}"


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _pair(attributes: int, xfrm: int) -> str:
    """Return the sixteen bytes of ATTRIBUTES as they lie in memory."""
    return _hex(attributes.to_bytes(8, "little") + xfrm.to_bytes(8, "little"))


def _start(number: bytes) -> str:
    return f"{_hex(number[:_SHOWN_BYTES])}..."
