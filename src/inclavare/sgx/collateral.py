"""Collateral: what is needed beside a quote to verify it, as one value.

The fields are those of Intel's `sgx_ql_qve_collateral_t` under the names that dcap-qvl's QuoteCollateralV3 gives them.
Certificate chains are PEM; revocation lists PEM, DER or hexadecimal DER; TCB info and QE identity are the exact text
that was signed. One field is optional: `pck_certificate_chain`, for quotes that only name their PCK certificate.

Nothing is believed here: signatures, times and trust are `verification`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inclavare.errors import AttestationError
from inclavare.sgx.certificates import Certificate, Crl, parse_chain, parse_crl
from inclavare.sgx.strict_json import Value, load
from inclavare.sgx.tcb import QeIdentity, TcbInfo, parse_qe_identity, parse_tcb_info

FIELDS = (
    "pck_crl_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "tcb_info_issuer_chain",
    "tcb_info",
    "tcb_info_signature",
    "qe_identity_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
)
_PCK_CHAIN = "pck_certificate_chain"
_SIGNATURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class Collateral:
    """The collateral of one platform; signatures are r and s, 64 bytes."""

    pck_crl_issuer_chain: tuple[Certificate, ...]
    root_ca_crl: Crl
    pck_crl: Crl
    tcb_info_issuer_chain: tuple[Certificate, ...]
    tcb_info: TcbInfo
    tcb_info_signature: bytes
    qe_identity_issuer_chain: tuple[Certificate, ...]
    qe_identity: QeIdentity
    qe_identity_signature: bytes
    pck_certificate_chain: tuple[Certificate, ...] = ()


def parse_collateral(document: str | bytes) -> Collateral:
    """Return the collateral in the JSON object `document`, or in its member `collateral`.

    Raises AttestationError with the path of what is missing, malformed or unknown.
    """
    value = load(document, "")
    inner = value.optional("collateral")
    return read_collateral((inner or value).mapping(), inner.path if inner else "")


def read_collateral(values: Mapping[str, object], path: str = "") -> Collateral:
    """Return the collateral of these fields, each a string or, as Python's dcap_qvl has some of them, bytes.

    Raises AttestationError as `parse_collateral`, under `path`.
    """
    prefix = f"{path}." if path else ""
    unknown = sorted(values.keys() - {*FIELDS, _PCK_CHAIN})
    if unknown:
        raise AttestationError(f"{prefix}{unknown[0]}", f"not a field of collateral, which are: {', '.join(FIELDS)}")
    missing = [name for name in FIELDS if name not in values]
    if missing:
        raise AttestationError(f"{prefix}{missing[0]}", "missing")

    def data(name: str) -> bytes:
        value = values[name]
        if isinstance(value, bytes):
            return value
        return Value(value, prefix + name).text().encode("utf-8", "surrogatepass")

    def chain(name: str) -> tuple[Certificate, ...]:
        return parse_chain(data(name), prefix + name)

    def text(name: str) -> str:
        value = values[name]
        try:
            return value.decode("utf-8") if isinstance(value, bytes) else Value(value, prefix + name).text()
        except UnicodeDecodeError as error:
            raise AttestationError(prefix + name, f"expected UTF-8: {error}") from error

    def signature(name: str) -> bytes:
        value = values[name]
        if isinstance(value, bytes) and len(value) == _SIGNATURE_SIZE:
            return value
        return Value(text(name), prefix + name).hexadecimal(_SIGNATURE_SIZE)

    return Collateral(
        chain("pck_crl_issuer_chain"),
        parse_crl(data("root_ca_crl"), prefix + "root_ca_crl"),
        parse_crl(data("pck_crl"), prefix + "pck_crl"),
        chain("tcb_info_issuer_chain"),
        parse_tcb_info(text("tcb_info"), prefix + "tcb_info"),
        signature("tcb_info_signature"),
        chain("qe_identity_issuer_chain"),
        parse_qe_identity(text("qe_identity"), prefix + "qe_identity"),
        signature("qe_identity_signature"),
        chain(_PCK_CHAIN) if values.get(_PCK_CHAIN) is not None else (),
    )
