"""Fetches collateral from a PCCS, Intel's or another, and keeps it as long as it is valid.

A server is believed nothing: what it sends is checked for size and form here, and for signatures by
`sgx.verification`. Redirects are refused, and plain http to other machines than this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from inclavare.errors import AttestationError, HostError, UsageError
from inclavare.pcs.routes import BASE
from inclavare.sgx.certificates import parse_chain
from inclavare.sgx.collateral import parse_collateral
from inclavare.sgx.pck import parse_pck_extension
from inclavare.sgx.quote import CERT_PCK_CHAIN, parse_quote

TIMEOUT_S = 30
BODY_MAX = 1 << 20
_PLATFORM_CA = "Platform CA"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        """Refuse: urllib then raises the answer as an error."""


class Pccs:
    """The PCCS at a base URL such as `https://localhost:8081`. Raises UsageError for a URL that will not do."""

    def __init__(self, url: str, ca_file: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"{url} is not the URL of a PCCS", "It looks like https://HOST:8081")
        if parts.scheme == "http" and not _is_here(parts.hostname):
            raise UsageError(f"{url}: plain http is for this machine only", "Use https.")
        self._base = url.rstrip("/").removesuffix(BASE.rstrip("/")) + BASE
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise HostError(f"cannot read {ca_file}: {error.strerror or error}") from error
        # No proxies: what is asked for is on this machine or in this network.
        self._opener = build_opener(ProxyHandler({}), _NoRedirects(), HTTPSHandler(context=context))
        self._timeout_s = timeout_s

    def collateral(self, fmspc: bytes, ca: str) -> dict[str, str]:
        """Return the fields of `sgx.collateral.Collateral` for a platform of the kind `fmspc` (6 bytes).

        `ca` is "processor" or "platform". Raises HostError for a server that cannot be reached or has no answer,
        AttestationError for an answer that is none.
        """
        crl, crl_chain = self._get(f"pckcrl?ca={ca}&encoding=der", "SGX-PCK-CRL-Issuer-Chain")
        tcb, tcb_chain = self._get(f"tcb?fmspc={fmspc.hex()}", "TCB-Info-Issuer-Chain")
        identity, identity_chain = self._get("qe/identity", "SGX-Enclave-Identity-Issuer-Chain")
        root_crl, _ = self._get("rootcacrl", "")
        tcb_info, tcb_signature = _signed("tcb", tcb, "tcbInfo")
        qe_identity, qe_signature = _signed("qe/identity", identity, "enclaveIdentity")
        return {
            "pck_crl_issuer_chain": crl_chain,
            "root_ca_crl": _hexadecimal(root_crl),
            "pck_crl": crl.hex(),
            "tcb_info_issuer_chain": tcb_chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": identity_chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_signature,
        }

    def _get(self, route: str, chain_header: str) -> tuple[bytes, str]:
        url = self._base + route
        try:
            with self._opener.open(Request(url), timeout=self._timeout_s) as answer:  # noqa: S310  # http(s), see above
                body = answer.read(BODY_MAX + 1)
                chain = unquote(answer.headers.get(chain_header, "")) if chain_header else ""
        except HTTPError as error:
            raise HostError(f"{url}: the PCCS answers {error.code} {error.reason}") from error
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            reason = getattr(reason, "strerror", None) or reason
            raise HostError(f"cannot ask the PCCS for {url}: {reason}", "Does it run? runectl pccs is one.") from error
        if len(body) > BODY_MAX:
            raise AttestationError(url, f"expected at most {BODY_MAX} bytes, found more")
        if chain_header and "BEGIN CERTIFICATE" not in chain:
            raise AttestationError(url, f"expected certificates in the header {chain_header}, found none")
        return body, chain


def collateral_for(quote: bytes, pccs: Pccs, cache: str, now: int, *, refresh: bool = False) -> bytes:
    """Return collateral (JSON) for `quote`, from the directory `cache` as long as it is valid at `now`.

    Raises AttestationError for a quote that does not hold its PCK certificate, and what `Pccs.collateral` raises.
    """
    certification = parse_quote(quote).qe.certification
    if certification.type != CERT_PCK_CHAIN:
        raise AttestationError(
            "quote.certification", f"expected a PCK certificate chain, found type {certification.type}"
        )
    leaf = parse_chain(certification.data, "quote.certification")[0]
    if leaf.sgx_extension is None:
        raise AttestationError("quote.certification", "expected a PCK certificate with the SGX extension, found none")
    fmspc = parse_pck_extension(leaf.sgx_extension).fmspc
    ca = "platform" if _PLATFORM_CA in leaf.issuer.rfc4514_string() else "processor"
    name = hashlib.sha256(f"{pccs._base} {fmspc.hex()} {ca}".encode()).hexdigest()  # noqa: SLF001
    path = os.path.join(cache, f"{name}.json")
    if not refresh and (kept := _kept(path, now)):
        return kept
    document = json.dumps(pccs.collateral(fmspc, ca)).encode()
    parse_collateral(document)  # nothing malformed is kept
    _keep(path, document)
    return document


def _kept(path: str, now: int) -> bytes:
    try:
        with open(path, "rb") as file:
            document = file.read()
        collateral = parse_collateral(document)
    except (OSError, AttestationError):
        return b""
    times = (collateral.tcb_info, collateral.qe_identity, collateral.pck_crl, collateral.root_ca_crl)
    return document if all(each.next_update > now for each in times) else b""


def _keep(path: str, document: bytes) -> None:
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".collateral-", dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
        os.replace(temporary, path)
    except OSError as error:
        raise HostError(f"cannot keep collateral in {directory}: {error.strerror}", "Choose --cache DIR.") from error


def _signed(route: str, body: bytes, member: str) -> tuple[str, str]:
    """Return the text that was signed, exactly as it came, and its signature."""
    try:
        text = body.decode("utf-8")
        head = f'"{member}":'
        begin = text.index(head) + len(head)
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        _, end = json.JSONDecoder().raw_decode(text, begin)
        document: Mapping[str, object] = json.loads(text)
        signature = document["signature"]
        if not isinstance(signature, str):
            raise TypeError("the signature is no text")  # noqa: TRY301
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AttestationError(route, f"expected an object with {member} and signature: {error}") from error
    return text[begin:end], signature


def _hexadecimal(body: bytes) -> str:
    """A PCCS gives the root's list as hexadecimal digits; some give DER."""
    try:
        return bytes.fromhex(body.decode("ascii").strip()).hex()
    except ValueError:
        return body.hex()


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
