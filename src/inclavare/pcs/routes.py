"""The answers of a PCCS for the software platform: a request's words in, a status, headers and a body out. No I/O.

Routes, parameters, headers and forms are those of Intel's PCS API version 4 and, for `rootcacrl`, of Intel's PCCS. What
is served are the files that `runectl platform init` made. Every answer says that it is simulated.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

BASE = "/sgx/certification/v4/"
_SIMULATED = ("X-Simulated", "this platform protects nothing")
_JSON, _PEM, _DER, _TEXT = "application/json", "application/x-pem-file", "application/pkix-crl", "text/plain"
_HEX = re.compile(r"[0-9A-Fa-f]+\Z")
_UPDATES = ("standard", "early")


class Answer(NamedTuple):
    """What goes back: the status, headers in order, the body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Material(NamedTuple):
    """What there is to serve. Raises ValueError from `of` for files that are not what they should be."""

    pck_chain: str
    collateral: Mapping[str, str]
    fmspc: str
    pceid: str
    tcbm: str

    @classmethod
    def of(cls, pck_chain: bytes, collateral: bytes) -> Material:
        """Take in the files pck.pem and collateral.json."""
        fields = json.loads(collateral)
        tcb_info = json.loads(fields["tcb_info"])
        tcb = tcb_info["tcbLevels"][0]["tcb"]
        cpusvn = bytes(component["svn"] for component in tcb["sgxtcbcomponents"])
        tcbm = (cpusvn + int(tcb["pcesvn"]).to_bytes(2, "little")).hex()
        return cls(pck_chain.decode("ascii"), fields, tcb_info["fmspc"], tcb_info["pceId"], tcbm)


class _BadRequest(Exception):  # noqa: N818  # an answer, not an error of ours
    pass


class _NotFound(Exception):  # noqa: N818
    pass


def answer(material: Material, method: str, target: str) -> Answer:
    """Answer the request `method` for `target` (path and query)."""
    if method not in ("GET", "HEAD"):
        return _answer(405, _TEXT, b"only GET is served\n", ("Allow", "GET, HEAD"))
    try:
        parts = urlsplit(target)
        handler = _ROUTES.get(parts.path.removeprefix(BASE)) if parts.path.startswith(BASE) else None
        if handler is None:
            return _answer(404, _TEXT, f"there is no {parts.path}\n".encode("utf-8", "backslashreplace"))
        values = parse_qs(parts.query, keep_blank_values=True, max_num_fields=16)
        return handler(material, {name: _once(name, value) for name, value in values.items()})
    except (_BadRequest, ValueError) as error:
        return _answer(400, _TEXT, f"{error}\n".encode("utf-8", "backslashreplace"))
    except _NotFound as error:
        return _answer(404, _TEXT, f"{error}\n".encode("utf-8", "backslashreplace"))


def _pckcert(material: Material, values: dict[str, str]) -> Answer:
    _only(values, "qeid", "encrypted_ppid", "cpusvn", "pcesvn", "pceid")
    for name, size in (("cpusvn", 16), ("pcesvn", 2), ("pceid", 2)):
        _hexadecimal(values, name, size)
    if values["pceid"].lower() != material.pceid.lower():
        raise _NotFound("no platform with this pceid is known here: there is the software platform alone")
    pck, rest = _first(material.pck_chain)
    headers = (
        ("SGX-PCK-Certificate-Issuer-Chain", quote(rest)),
        ("SGX-PCK-Certificate-CA-Type", "processor"),
        ("SGX-FMSPC", material.fmspc),
        ("SGX-TCBm", material.tcbm),
    )
    return _answer(200, _PEM, pck.encode(), *headers)


def _pckcrl(material: Material, values: dict[str, str]) -> Answer:
    _only(values, "ca", "encoding")
    if values.get("ca") not in ("processor", "platform"):
        raise _BadRequest("ca is processor or platform")
    encoding = values.get("encoding", "pem")
    if encoding not in ("pem", "der"):
        raise _BadRequest("encoding is pem or der")
    if values["ca"] == "platform":
        raise _NotFound("the software platform's CA is a processor CA")
    der = bytes.fromhex(material.collateral["pck_crl"])
    headers = (("SGX-PCK-CRL-Issuer-Chain", quote(material.collateral["pck_crl_issuer_chain"])),)
    if encoding == "der":
        return _answer(200, _DER, der, *headers)
    lines = base64.encodebytes(der).decode().replace("\n", "")
    text = "\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    return _answer(200, _PEM, f"-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n".encode(), *headers)


def _tcb(material: Material, values: dict[str, str]) -> Answer:
    _only(values, "fmspc", "update")
    _hexadecimal(values, "fmspc", 6)
    _update(values)
    if values["fmspc"].lower() != material.fmspc.lower():
        raise _NotFound("no TCB info for this FMSPC: there is the software platform alone")
    return _signed(material, "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")


def _qe_identity(material: Material, values: dict[str, str]) -> Answer:
    _only(values, "update")
    _update(values)
    return _signed(material, "enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain")


def _rootcacrl(material: Material, values: dict[str, str]) -> Answer:
    _only(values)
    return _answer(200, _TEXT, material.collateral["root_ca_crl"].encode())


_ROUTES = {
    "pckcert": _pckcert,
    "pckcrl": _pckcrl,
    "tcb": _tcb,
    "qe/identity": _qe_identity,
    "rootcacrl": _rootcacrl,
}


def _signed(material: Material, member: str, field: str, header: str) -> Answer:
    """What was signed is passed on as it is, byte by byte."""
    text, signature = material.collateral[field], material.collateral[f"{field}_signature"]
    body = f'{{"{member}":{text},"signature":"{signature}"}}'.encode()
    return _answer(200, _JSON, body, (header, quote(material.collateral[f"{field}_issuer_chain"])))


def _answer(status: int, kind: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    return Answer(status, (_SIMULATED, ("Content-Type", kind), ("Content-Length", str(len(body))), *headers), body)


def _first(chain: str) -> tuple[str, str]:
    end = chain.index("-----BEGIN", 1)
    return chain[:end], chain[end:]


def _once(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise _BadRequest(f"{name} is given twice")
    return values[0]


def _only(values: dict[str, str], *names: str) -> None:
    unknown = sorted(values.keys() - set(names))
    if unknown:
        raise _BadRequest(f"unknown parameter {unknown[0]}")


def _update(values: dict[str, str]) -> None:
    if values.get("update", "standard") not in _UPDATES:
        raise _BadRequest("update is standard or early")


def _hexadecimal(values: dict[str, str], name: str, size: int) -> None:
    value = values.get(name, "")
    if len(value) != 2 * size or not _HEX.match(value):
        raise _BadRequest(f"{name} has {2 * size} hexadecimal digits")
