"""SGX as the manual writes it: layouts, measurement, signatures, quotes and their verification. No I/O, no clock.

This package is also the Python API for other projects: what `__all__` names can be imported from here, and nothing is
loaded before it is used. docs/python-api.md shows how.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without the time that typing takes
if TYPE_CHECKING:
    from inclavare.errors import AttestationError, EnclaveError
    from inclavare.sgx.arch import Report, ReportBody, Sigstruct
    from inclavare.sgx.collateral import Collateral, parse_collateral, read_collateral
    from inclavare.sgx.measure import image_steps, measure_image, mrenclave, mrsigner
    from inclavare.sgx.policy import Policy
    from inclavare.sgx.quote import (
        CertificationData,
        QEReportCertification,
        Quote,
        QuoteHeader,
        encode_quote,
        parse_epid_quote,
        parse_quote,
    )
    from inclavare.sgx.sign import SigningParameters, generate_key, load_private_key, sign_image
    from inclavare.sgx.verdict import Step, Verdict
    from inclavare.sgx.verification import verify

_PLACES = {
    "errors": ("AttestationError", "EnclaveError"),
    "sgx.arch": ("Report", "ReportBody", "Sigstruct"),
    "sgx.collateral": ("Collateral", "parse_collateral", "read_collateral"),
    "sgx.measure": ("image_steps", "measure_image", "mrenclave", "mrsigner"),
    "sgx.policy": ("Policy",),
    "sgx.quote": (
        *("CertificationData", "QEReportCertification", "Quote", "QuoteHeader"),
        *("encode_quote", "parse_epid_quote", "parse_quote"),
    ),
    "sgx.sign": ("SigningParameters", "generate_key", "load_private_key", "sign_image"),
    "sgx.verdict": ("Step", "Verdict"),
    "sgx.verification": ("verify",),
}
_MODULES = {name: f"inclavare.{module}" for module, names in _PLACES.items() for name in names}

__all__ = [
    "AttestationError",
    "CertificationData",
    "Collateral",
    "EnclaveError",
    "Policy",
    "QEReportCertification",
    "Quote",
    "QuoteHeader",
    "Report",
    "ReportBody",
    "SigningParameters",
    "Sigstruct",
    "Step",
    "Verdict",
    "encode_quote",
    "generate_key",
    "image_steps",
    "load_private_key",
    "measure_image",
    "mrenclave",
    "mrsigner",
    "parse_collateral",
    "parse_epid_quote",
    "parse_quote",
    "read_collateral",
    "sign_image",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import what `__all__` names when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # rune imports this package and never comes here

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
