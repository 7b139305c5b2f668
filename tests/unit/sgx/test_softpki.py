"""The software platform's certificates and collateral, judged by three verifiers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from inclavare.cli.runectl import main
from inclavare.errors import EnclaveError
from inclavare.sgx import Policy, parse_collateral, verify
from inclavare.sgx.arch import TargetInfo
from inclavare.sgx.softkeys import ArchitecturalEnclave, SoftKeys
from inclavare.sgx.softpki import FMSPC, Issued, issue
from inclavare.sgx.softquote import Certified, SoftPlatform, p256_key

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = int(NOW.timestamp())
KEYS = SoftKeys(b"s" * 32)
ENCLAVE = ArchitecturalEnclave(b"e" * 32, b"m" * 32, 5, 3, 7, 2)


@pytest.fixture(scope="module")
def issued() -> Issued:
    return issue(KEYS, NOW, 30)


@pytest.fixture(scope="module")
def quote(issued: Issued) -> bytes:
    platform = SoftPlatform(KEYS, Certified(p256_key(KEYS.secret("pck")), issued.pck_chain.encode()))
    target = TargetInfo.from_bytes(platform.qe_target_info())
    return platform.quote(KEYS.report(ENCLAVE, target, b"d" * 64).to_bytes())


def judge(quote: bytes, issued: Issued, at: int = AT, **policy: object) -> tuple[str, str | None]:
    verdict = verify(quote, parse_collateral(json.dumps(dict(issued.collateral))), at, Policy(**policy))  # type: ignore[arg-type]
    return verdict.verdict, verdict.status


def test_a_quote_is_accepted_under_its_root_when_emulation_is_allowed(quote: bytes, issued: Issued) -> None:
    root = issued.root.encode()
    assert judge(quote, issued, trusted_root=root, allow_emulated=True) == ("accepted", "UpToDate")
    assert judge(quote, issued, trusted_root=root)[0] == "refused"
    assert judge(quote, issued, allow_emulated=True)[0] == "refused"


def test_dcap_qvl_accepts_it_under_its_root_alone(quote: bytes, issued: Issued) -> None:
    dcap_qvl = pytest.importorskip("dcap_qvl", reason="needs dcap-qvl, of the extra dev")
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(dict(issued.collateral)))
    root = x509.load_pem_x509_certificate(issued.root.encode()).public_bytes(Encoding.DER)
    assert dcap_qvl.verify_with_root_ca(quote, collateral, root, AT).status == "UpToDate"
    with pytest.raises(ValueError):  # noqa: PT011  # the library's words are its own
        dcap_qvl.verify(quote, collateral, AT)


def test_intels_library_accepts_it_under_its_root_alone(quote: bytes, issued: Issued) -> None:
    qvl = pytest.importorskip(
        "sgx_dcap_quote_verify", reason="needs sgx-dcap-quote-verify-python, which exists for Python up to 3.11"
    )
    pck, ca, root = (f"-----BEGIN{part}" for part in issued.pck_chain.split("-----BEGIN")[1:])
    fields = issued.collateral

    def statuses(trusted: str) -> list[str]:
        result = qvl.verify(
            trusted_root_ca_certificate=trusted,
            pck_certificate=pck,
            pck_signing_chain=ca + root,
            root_ca_crl=fields["root_ca_crl"],
            intermediate_ca_crl=fields["pck_crl"],
            tcb_info=f'{{"tcbInfo":{fields["tcb_info"]},"signature":"{fields["tcb_info_signature"]}"}}',
            tcb_signing_chain=fields["tcb_info_issuer_chain"],
            quote=quote,
            qe_identity=f'{{"enclaveIdentity":{fields["qe_identity"]},"signature":"{fields["qe_identity_signature"]}"}}',
            expiration_date=NOW,
        )
        parts = result.pck_certificate_status, result.tcb_info_status, result.qe_identity_status, result.quote_status
        return [part.name for part in parts]

    assert statuses(root) == ["STATUS_OK"] * 4
    assert "STATUS_OK" not in statuses(issue(SoftKeys(b"o" * 32), NOW, 30).root)[:3]


def test_collateral_is_valid_for_its_days(quote: bytes, issued: Issued) -> None:
    allowed = {"trusted_root": issued.root.encode(), "allow_emulated": True}
    assert judge(quote, issued, AT + 29 * 86400, **allowed)[0] == "accepted"
    assert judge(quote, issued, AT + 31 * 86400, **allowed)[0] != "accepted"


def test_what_is_issued_again_fits_what_was_issued_before(quote: bytes, issued: Issued) -> None:
    later = NOW + timedelta(days=90)
    again = issue(KEYS, later, 30, issued.root)
    assert again.root == issued.root
    allowed = {"trusted_root": issued.root.encode(), "allow_emulated": True}
    assert judge(quote, again, int(later.timestamp()), **allowed) == ("accepted", "UpToDate")


def test_the_root_of_another_platform_is_not_kept(issued: Issued) -> None:
    with pytest.raises(EnclaveError, match="another platform"):
        issue(SoftKeys(b"o" * 32), NOW, 30, issued.root)


def test_every_certificate_says_what_it_is(issued: Issued) -> None:
    chains = issued.pck_chain + issued.collateral["tcb_info_issuer_chain"]
    for part in chains.split("-----BEGIN")[1:]:
        certificate = x509.load_pem_x509_certificate(f"-----BEGIN{part}".encode())
        assert "SIMULATED" in certificate.subject.rfc4514_string()
        assert "SIMULATED" in certificate.issuer.rfc4514_string()


Runectl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runectl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runectl:
    def run(action: str, *words: str) -> tuple[int, str, str]:
        code = main(["platform", action, "--platform", str(tmp_path / "platform"), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_platform_is_made_once_shown_and_renewed(runectl: Runectl, tmp_path: Path) -> None:
    directory = tmp_path / "platform"
    code, out, _ = runectl("init")
    assert (code, out.splitlines()[0][:9]) == (0, "SIMULATED")
    seed = (directory / "seed").read_bytes()
    assert (directory / "seed").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in directory.iterdir()} == {"seed", "root.pem", "pck.pem", "collateral.json"}
    code, _, error = runectl("init")
    assert code == 1
    assert "there is a software platform" in error
    shown = json.loads(runectl("show", "--json")[1])
    assert (shown["simulated"], shown["fmspc"], shown["collateral_days_left"]) == (True, FMSPC.hex(), 29)
    renewed = json.loads(runectl("rotate", "--days", "90", "--json")[1])
    assert renewed["collateral_days_left"] == 89
    same = ("root_sha256", "attestation_key_id")
    assert [renewed[name] for name in same] == [shown[name] for name in same]
    assert (directory / "seed").read_bytes() == seed


def test_a_new_seed_makes_another_platform(runectl: Runectl, tmp_path: Path) -> None:
    runectl("init")
    before = json.loads(runectl("show", "--json")[1])
    code, out, error = runectl("rotate", "--new-seed", "--json")
    assert (code, "old root" in error) == (0, True)
    after = json.loads(out)
    assert before["root_sha256"] != after["root_sha256"]
    assert before["attestation_key_id"] != after["attestation_key_id"]
    assert (tmp_path / "platform/seed").stat().st_mode & 0o777 == 0o600


def test_init_completes_a_platform_that_has_a_seed_alone(runectl: Runectl, tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform/seed").write_bytes(b"s" * 32)
    (tmp_path / "platform/seed").chmod(0o600)
    assert runectl("show")[0] == 1
    assert runectl("init")[0] == 0
    assert (tmp_path / "platform/seed").read_bytes() == b"s" * 32


def test_the_root_is_given_away(runectl: Runectl, tmp_path: Path) -> None:
    assert runectl("export-root")[0] == 1
    runectl("init")
    code, out, error = runectl("export-root")
    assert (code, out) == (0, (tmp_path / "platform/root.pem").read_text())
    assert error.startswith("SIMULATED")
    assert runectl("export-root", "-o", str(tmp_path / "root"))[:2] == (0, "")
    assert (tmp_path / "root").read_text() == out
    assert json.loads(runectl("export-root", "--json")[1]) == {"simulated": True, "root": out, "file": None}


@pytest.mark.parametrize("days", ["0", "-1", "x", "3651"])
def test_days_are_days(runectl: Runectl, days: str) -> None:
    assert runectl("init", f"--days={days}")[0] == 2


def test_a_platform_that_cannot_be_made_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["platform", "init", "--platform", "/proc/no/such"]) == 1
    assert "cannot make /proc/no/such" in capsys.readouterr().err
    assert not os.path.exists("/proc/no")
