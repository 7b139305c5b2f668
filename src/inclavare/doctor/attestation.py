"""The daemon for quotes and the service that it gets certificates from."""

from __future__ import annotations

import json
import re
import stat

from inclavare.aesm.client import AesmClient
from inclavare.aesm.errors import AesmError, AesmUnreachableError
from inclavare.aesm.messages import GetSupportedAttKeyIDNumRequest, GetSupportedAttKeyIDNumResponse
from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host
from inclavare.errors import InclavareError

SOCKETS = ("/run/aesmd/aesm.socket", "/var/run/aesmd/aesm.socket")
PCCS = "/etc/sgx_default_qcnl.conf"

_AREA = "attestation"
_TIMEOUT_S = 5.0


def examine_attestation(host: Host, *, emulation: bool) -> list[Finding]:
    """Say whether a daemon answers, and where it gets its certificates; `emulation` needs neither Intel nor a PCCS."""
    findings = _daemon(host, emulation=emulation)
    if not emulation or host.status(PCCS) is not None:
        findings.append(_pccs(host))
    return findings


def _daemon(host: Host, *, emulation: bool) -> list[Finding]:
    start = "systemctl start inclavare-aesmd.socket" if emulation else "Install sgx-aesm-service; systemctl start aesmd"
    path = host.first(*SOCKETS)
    if path is None:
        return [_lack("AESM daemon", f"no socket {SOCKETS[0]}", start)]
    findings = []
    for place, wanted in ((path.rpartition("/")[0], 0o755), (path, 0o777)):
        status = host.status(place)
        mode = stat.S_IMODE(status.st_mode) if status else wanted
        if mode & wanted != wanted:
            findings.append(
                Finding(_AREA, place, "warning", f"mode {mode:04o}: not for every user", f"chmod {wanted:o} {place}")
            )
    try:
        client = AesmClient(host.path(path), _TIMEOUT_S)
        answer = client.ask(
            "ask for its keys", GetSupportedAttKeyIDNumRequest(timeout=1_000_000), GetSupportedAttKeyIDNumResponse
        )
    except AesmUnreachableError as error:
        return [*findings, _lack("AESM daemon", error.message, start)]
    except AesmError as error:
        return [*findings, _lack("AESM daemon", error.message, error.hint)]
    except InclavareError as error:
        return [*findings, _lack("AESM daemon", error.message, "Is something else listening there?")]
    if not answer.att_key_id_num:
        return [*findings, _lack("AESM daemon", "answers, but has no attestation key", "Install its quoting plug-ins.")]
    return [*findings, Finding(_AREA, "AESM daemon", "ok", f"answers, attestation keys: {answer.att_key_id_num}")]


def _pccs(host: Host) -> Finding:
    text = host.text(PCCS)
    if text is None:
        return Finding(
            _AREA,
            "PCCS",
            "note",
            f"{PCCS} is not there",
            "Quotes on hardware need certificates: install libsgx-dcap-default-qpl and name a PCCS, or your cloud's.",
        )
    url, secure = _qcnl(text)
    if not url:
        return Finding(_AREA, "PCCS", "warning", f"{PCCS} names none", 'Set "pccs_url" in it.')
    if not secure:
        return Finding(
            _AREA, "PCCS", "warning", f"{url}, its certificate unchecked", "Set use_secure_cert to true for production."
        )
    return Finding(_AREA, "PCCS", "ok", url)


def _qcnl(text: str) -> tuple[str, bool]:
    """Return the address and whether its certificate is checked. The file is JSON with comments or NAME=VALUE."""
    plain = re.sub(r"^\s*(//|#).*$", "", text, flags=re.MULTILINE)
    try:
        document = json.loads(re.sub(r"\s//.*$", "", plain, flags=re.MULTILINE))
    except ValueError:
        pairs = (line.partition("=") for line in plain.splitlines() if "=" in line)
        document = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    if not isinstance(document, dict):
        return "", True
    secure = str(document.get("use_secure_cert", "true")).lower()
    return str(document.get("pccs_url") or ""), secure != "false"


def _lack(subject: str, found: str, advice: str) -> Finding:
    return Finding(_AREA, subject, "lack", found, advice, ("attestation",))
