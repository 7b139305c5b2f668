"""The steps that prove a quote and its collateral and find the status, in the order of `verification.STEPS`."""

from __future__ import annotations

import hashlib
from typing import Final

from inclavare.errors import AttestationError
from inclavare.sgx.certificates import Certificate, Crl, load_key, parse_chain, verify_raw
from inclavare.sgx.collateral import Collateral, parse_collateral
from inclavare.sgx.pck import parse_pck_extension
from inclavare.sgx.quote import CERT_PCK_CHAIN, CERT_PCK_LEAF, parse_quote
from inclavare.sgx.tcb import REVOKED, converge
from inclavare.sgx.verdict import CANNOT_TELL, NOT_GENUINE, UNACCEPTABLE, State, StepError, date_text

# The public key of "Intel SGX Root CA", x and y; Intel has issued certificates for it twice.
INTEL_ROOT_KEY: Final = bytes.fromhex(
    "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
    "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
)
_EMULATED = "simulated"


# --- what the quote is -------------------------------------------------------------------------------------------


def quote_format(state: State) -> str:
    """Parse the quote."""
    try:
        state.quote = parse_quote(state.given_quote) if isinstance(state.given_quote, bytes) else state.given_quote
    except AttestationError as error:
        raise StepError(NOT_GENUINE, "an ECDSA quote of an SGX enclave", error.message) from error
    body = state.quote.body
    state.report(
        mrenclave=body.mrenclave,
        mrsigner=body.mrsigner,
        isvprodid=body.isvprodid,
        isvsvn=body.isvsvn,
        report_data=body.reportdata,
        debug=body.debug,
    )
    return f"version {state.quote.header.version}, certification data of type {state.quote.qe.certification.type}"


def collateral_format(state: State) -> str:
    """Parse the collateral."""
    given = state.given_collateral
    try:
        state.collateral = given if isinstance(given, Collateral) else parse_collateral(given)
    except AttestationError as error:
        raise StepError(CANNOT_TELL, "collateral", error.message) from error
    return f"TCB info version {state.collateral.tcb_info.version}"


def pck_chain(state: State) -> str:
    """Find the three certificates, in whatever order they come: platforms differ, and Intel's library does not mind."""
    certification = state.quote.qe.certification
    try:
        if certification.type == CERT_PCK_CHAIN:
            chain = parse_chain(certification.data, "quote.certification.data")
        elif certification.type == CERT_PCK_LEAF:
            leaf = parse_chain(certification.data, "quote.certification.data")
            chain = (*leaf, *state.collateral.pck_crl_issuer_chain)
        elif state.collateral.pck_certificate_chain:
            chain = state.collateral.pck_certificate_chain
        else:
            found = f"certification data of type {certification.type} and no pck_certificate_chain in the collateral"
            raise StepError(CANNOT_TELL, "a PCK certificate", found)
        names = ", ".join(certificate.common_name for certificate in chain)
        state.report(emulated=any(_EMULATED in _names(certificate) for certificate in chain))
        leaves = [certificate for certificate in chain if certificate.sgx_extension is not None]
        roots = [certificate for certificate in chain if certificate.subject == certificate.issuer]
        if len(chain) != 3 or len(leaves) != 1 or len(roots) != 1 or leaves[0] is roots[0]:
            raise StepError(NOT_GENUINE, "a PCK certificate, its CA and a root", names)
        (state.pck,), (state.root,) = leaves, roots
        state.pck_ca = next(item for item in chain if item is not state.pck and item is not state.root)
        state.extension = parse_pck_extension(state.pck.sgx_extension or b"", "pck.sgx_extension")
    except AttestationError as error:
        raise StepError(NOT_GENUINE, "a PCK certificate chain", error.message) from error
    state.report(fmspc=state.extension.fmspc)
    _named(state.pck, "SGX PCK Certificate")
    _named(state.pck_ca, "SGX PCK ")
    _named(state.root, "SGX Root CA")
    _issued(state.root, state.root)
    _issued(state.root, state.pck_ca)
    _issued(state.pck_ca, state.pck)
    if state.pck.signs_certificates:
        raise StepError(NOT_GENUINE, "a PCK certificate that is no CA's", state.pck.common_name)
    return names


def trusted_root(state: State) -> str:
    """Compare the chain's root with the one that is trusted, by its key."""
    trusted = INTEL_ROOT_KEY if state.trusted_root is None else state.trusted_root.key
    if state.root.key != trusted:
        found = f"{state.root.common_name} with the key {state.root.key[:8].hex()}..."
        if state.verdict.emulated and state.trusted_root is None:
            found += ", a simulated platform's: it needs its root given, and emulation allowed"
        expected = "Intel's root" if state.trusted_root is None else "the given root"
        raise StepError(NOT_GENUINE, f"{expected} with the key {trusted[:8].hex()}...", found)
    given = "simulated" if state.verdict.emulated else "other"
    whose = "Intel" if trusted == INTEL_ROOT_KEY else given
    state.report(root=whose)
    return f"{state.root.common_name} ({whose})"


def qe_report_signature(state: State) -> str:
    """Require that the PCK signed the report of the quoting enclave."""
    qe = state.quote.qe
    if not state.pck.signed(qe.signature, qe.report.to_bytes()):
        raise StepError(NOT_GENUINE, "a signature by the PCK", f"none: {qe.signature[:8].hex()}...")
    return "signed by the PCK"


def attestation_key(state: State) -> str:
    """Require that the report of the quoting enclave names the attestation key; as Intel, look at the hash only."""
    qe = state.quote.qe
    expected = hashlib.sha256(state.quote.attestation_key + qe.auth_data).digest()
    found = qe.report.reportdata[: len(expected)]
    if found != expected:
        raise StepError(NOT_GENUINE, f"SHA-256 {expected.hex()} in the QE's report", found.hex())
    return f"SHA-256 {found.hex()} in the QE's report"


def quote_signature(state: State) -> str:
    """Require that the attestation key signed the quote."""
    quote = state.quote
    try:
        key = load_key(quote.attestation_key, "quote.attestation_key")
    except AttestationError as error:
        raise StepError(NOT_GENUINE, "an attestation key", error.message) from error
    if not verify_raw(key, quote.signature, quote.signed()):
        raise StepError(NOT_GENUINE, "a signature by the attestation key", f"none: {quote.signature[:8].hex()}...")
    return "signed by the attestation key"


# --- what the collateral is ----------------------------------------------------------------------------------------


def tcb_info_signature(state: State) -> str:
    """Require TCB info signed under the same root."""
    collateral = state.collateral
    state.tcb_signing = _signing(state, collateral.tcb_info_issuer_chain, "the TCB info's issuer chain")
    return _document_signature(state.tcb_signing, collateral.tcb_info_signature, collateral.tcb_info.text)


def qe_identity_signature(state: State) -> str:
    """Require a QE identity signed under the same root."""
    collateral = state.collateral
    state.qe_signing = _signing(state, collateral.qe_identity_issuer_chain, "the QE identity's issuer chain")
    return _document_signature(state.qe_signing, collateral.qe_identity_signature, collateral.qe_identity.text)


def _signing(state: State, chain: tuple[Certificate, ...], what: str) -> Certificate:
    signers = [certificate for certificate in chain if certificate.subject != certificate.issuer]
    roots = [certificate for certificate in chain if certificate.subject == certificate.issuer]
    if len(signers) != 1 or len(chain) != 2:
        names = ", ".join(certificate.common_name for certificate in chain)
        raise StepError(NOT_GENUINE, f"{what}: a signer and a root", names)
    if roots[0].key != state.root.key:
        raise StepError(NOT_GENUINE, f"{what}: the root {state.root.key[:8].hex()}...", roots[0].key[:8].hex())
    _named(signers[0], "SGX TCB Signing")
    _issued(roots[0], signers[0])
    return signers[0]


def _document_signature(signer: Certificate, signature: bytes, text: str) -> str:
    if not signer.signed(signature, text.encode("utf-8", "surrogatepass")):
        raise StepError(NOT_GENUINE, f"a signature by {signer.common_name}", f"none: {signature[:8].hex()}...")
    return f"signed by {signer.common_name}"


def root_crl(state: State) -> str:
    """Require a revocation list signed by the root."""
    return _crl_signature(state.root, state.collateral.root_ca_crl)


def pck_crl(state: State) -> str:
    """Require a revocation list signed by the CA that issued the PCK certificate."""
    crl = state.collateral.pck_crl
    if crl.issuer != state.pck_ca.subject:
        raise StepError(CANNOT_TELL, f"the revocation list of {state.pck_ca.common_name}", f"{crl.issuer_name}'s")
    return _crl_signature(state.pck_ca, crl)


def _crl_signature(issuer: Certificate, crl: Crl) -> str:
    if crl.issuer != issuer.subject or not issuer.signs_crls or not issuer.issued_crl(crl):
        found = f"{crl.issuer_name}'s, which it did not sign"
        raise StepError(NOT_GENUINE, f"the revocation list of {issuer.common_name}", found)
    return f"signed by {issuer.common_name}, {len(crl.revoked)} revoked"


def revocation(state: State) -> str:
    """Look for every certificate in the list of its issuer."""
    for crl, certificates in (
        (state.collateral.root_ca_crl, (state.pck_ca, state.tcb_signing, state.qe_signing)),
        (state.collateral.pck_crl, (state.pck,)),
    ):
        for certificate in certificates:
            if certificate.serial in crl.revoked:
                found = f"{certificate.common_name} {certificate.serial:x} in that of {crl.issuer_name}"
                raise StepError(NOT_GENUINE, "no certificate in a revocation list", found)
    return "none revoked"


def platform(state: State) -> str:
    """Compare what the collateral is for with what the PCK certificate says of the platform."""
    info, identity, extension = state.collateral.tcb_info, state.collateral.qe_identity, state.extension
    for what, expected, found in (
        ("TCB info for", "SGX", info.id),
        ("an identity of", "QE", identity.id),
        ("TCB info for FMSPC", extension.fmspc.hex(), info.fmspc.hex()),
        ("TCB info for PCE id", extension.pceid.hex(), "none" if info.pceid is None else info.pceid.hex()),
    ):
        if expected != found:
            raise StepError(CANNOT_TELL, f"{what} {expected}", found)
    return f"FMSPC {extension.fmspc.hex()}, PCE id {extension.pceid.hex()}"


def quoting_enclave(state: State) -> str:
    """Compare the quoting enclave with its identity."""
    for name, expected, found in state.collateral.qe_identity.differences(state.quote.qe.report):
        raise StepError(NOT_GENUINE, f"{name} {expected}", found)
    return f"MRSIGNER {state.quote.qe.report.mrsigner.hex()}"


def times(state: State) -> str:
    """Everything must be valid now; certificates and revocation lists by X.509, documents by their own dates."""
    collateral = state.collateral
    spans = [
        *(
            (certificate.common_name, certificate.not_before, certificate.not_after)
            for certificate in (state.root, state.pck_ca, state.pck, state.tcb_signing, state.qe_signing)
        ),
        *(
            (f"the revocation list of {crl.issuer_name}", crl.this_update, crl.next_update)
            for crl in (collateral.root_ca_crl, collateral.pck_crl)
        ),
        ("TCB info", collateral.tcb_info.issue_date, collateral.tcb_info.next_update),
        ("QE identity", collateral.qe_identity.issue_date, collateral.qe_identity.next_update),
    ]
    for what, start, end in spans:
        if not start <= state.now <= end:
            expected = f"{what} valid from {date_text(start)} to {date_text(end)}"
            raise StepError(CANNOT_TELL, expected, f"the time {date_text(state.now)}")
    expires = min(end for _, _, end in spans)
    state.report(expires=expires)
    return f"all valid at {date_text(state.now)}, until {date_text(expires)}"


def tcb_level(state: State) -> str:
    """Find the levels of platform and quoting enclave, and with them the status."""
    extension = state.extension
    level = state.collateral.tcb_info.level(extension.components, extension.pcesvn)
    if level is None:
        found = f"components {' '.join(map(str, extension.components))}, PCESVN {extension.pcesvn}"
        raise StepError(UNACCEPTABLE, "a platform that reaches a level of the TCB info", found)
    isvsvn = state.quote.qe.report.isvsvn
    qe_level = state.collateral.qe_identity.level(isvsvn)
    if qe_level is None:
        lowest = min(item.isvsvn for item in state.collateral.qe_identity.levels)
        raise StepError(UNACCEPTABLE, f"a quoting enclave of ISVSVN {lowest} or more", str(isvsvn))
    status = converge(level.status, qe_level.status)
    advisory_ids = dict.fromkeys((*level.advisory_ids, *qe_level.advisory_ids))
    state.report(status=status, advisory_ids=tuple(advisory_ids), tcb_date=min(level.tcb_date, qe_level.tcb_date))
    if status == REVOKED:
        found = f"{status} (platform {level.status}, quoting enclave {qe_level.status})"
        raise StepError(UNACCEPTABLE, "a level that is not revoked", found)
    return f"{status} (platform {level.status}, quoting enclave {qe_level.status})"


# --- of several steps --------------------------------------------------------------------------------------------


def _names(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string().casefold()


def _named(certificate: Certificate, phrase: str) -> None:
    if phrase not in certificate.common_name:
        raise StepError(NOT_GENUINE, f"a certificate named {phrase!r}", repr(certificate.common_name))


def _issued(issuer: Certificate, certificate: Certificate) -> None:
    if certificate.issuer != issuer.subject or not issuer.signs_certificates or not issuer.issued(certificate):
        expected = f"{certificate.common_name} signed by the CA {issuer.common_name}"
        raise StepError(NOT_GENUINE, expected, f"issuer {certificate.issuer.rfc4514_string()}, not its signature")
