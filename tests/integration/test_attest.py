"""From an enclave in a running container to a verdict: rune attest, AESM, and three verifiers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from inclavare.sgx import Policy, parse_collateral, parse_quote, verify
from inclavare.sgx.arch import Report
from inclavare.sgx.softkeys import QUOTING_ENCLAVE, SoftKeys
from tests.conftest import Rune

pytestmark = pytest.mark.usefixtures("as_root")

# rune finds the platform's seed in its place: in a mount namespace where that is the test's.
IN_PLACE = """mount -t tmpfs none /var/lib && mkdir -p /var/lib/inclavare && cp -rp "$0" /var/lib/inclavare/platform
exec "$@" """
NONCE = "00112233445566778899aabbccddeeff"


class Place:
    """A software platform, its daemon, and a container with the skeleton's enclave."""

    def __init__(self, checkout: Path, rune: Rune, directory: Path) -> None:
        self.checkout = checkout
        self.rune = rune
        self.platform = directory / "platform"
        self.socket = directory / "aesm/aesm.socket"
        self.bundle = directory / "bundle"
        self.runectl("platform", "init", "--platform", self.platform)
        self.daemon = subprocess.Popen(
            [checkout / "build/bin/runectl", "aesmd", "--platform", self.platform, "--socket", self.socket],
            stderr=subprocess.DEVNULL,
        )
        rootfs = self.bundle / "rootfs/run/rune"
        rootfs.mkdir(parents=True)
        image = rootfs / "encl.bin"
        image.write_bytes((checkout / "src/inclavare/_native/skeleton/encl.bin").read_bytes())
        self.runectl("keygen", directory / "key.pem")  # a debug enclave, as ours is, dcap-qvl never accepts
        self.runectl("sign", "--no-debugger", "--key", directory / "key.pem", image, rootfs / "encl.ss")
        assert rune("spec", "--bundle", self.bundle, "--enclave", "skeleton").returncode == 0
        config = json.loads((self.bundle / "config.json").read_text())
        config["annotations"]["enclave.runtime.args"] = ""
        (self.bundle / "config.json").write_text(json.dumps(config))

    def runectl(self, *words: str | Path) -> str:
        done = subprocess.run(
            [self.checkout / "build/bin/runectl", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create(self) -> None:
        """Make the container, whose program waits; nothing of it has a pipe."""
        words: list[str | Path] = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            IN_PLACE,
            self.platform,
        ]
        create = [*words, *self.rune.command("create", "--bundle", self.bundle, "c")]
        with (self.bundle / "output").open("wb") as output:
            status = subprocess.run(create, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        assert status.returncode == 0, (self.bundle / "output").read_text()

    def attest(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.rune.command("attest", "--aesm", self.socket, *words, "c"), capture_output=True, check=False
        )


@pytest.fixture
def place(checkout: Path, rune_program: Path, tmp_path: Path) -> Iterator[Place]:
    rune = Rune(rune_program, tmp_path, "--sgx-platform", "emulated")
    place = Place(checkout, rune, tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not place.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        place.create()
        yield place
    finally:
        place.daemon.terminate()
        code = place.daemon.wait(20)
        rune.clean()
    assert code == 0
    assert not rune.leftovers()


def test_a_report_is_for_the_quoting_enclave_and_says_what_was_asked(place: Place) -> None:
    done = place.attest("--nonce", NONCE)
    assert (done.returncode, done.stderr) == (0, b"")
    report = Report.from_bytes(done.stdout)
    assert report.mrenclave.hex() == (place.checkout / "native/skeleton/MRENCLAVE").read_text().strip()
    assert report.reportdata == bytes.fromhex(NONCE).ljust(64, b"\0")
    SoftKeys((place.platform / "seed").read_bytes()).check_report(report, QUOTING_ENCLAVE.target_info())


def test_a_quote_is_accepted_by_three_verifiers_under_its_root_alone(place: Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"the key of a service")
    quote_file = tmp_path / "quote.bin"
    done = place.attest("--isRA", "--nonce", NONCE, "--user-data", data, "--reportFile", quote_file)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    raw = quote_file.read_bytes()
    quote = parse_quote(raw)
    bound = hashlib.sha256(bytes.fromhex(NONCE) + data.read_bytes()).digest().ljust(64, b"\0")
    assert quote.body.reportdata == bound
    mrenclave = (place.checkout / "native/skeleton/MRENCLAVE").read_text().strip()
    assert quote.body.mrenclave.hex() == mrenclave

    collateral_file, root_file = place.platform / "collateral.json", place.platform / "root.pem"
    words: list[str | Path] = [
        "verify-quote",
        "--quote",
        quote_file,
        "--collateral",
        collateral_file,
        "--root",
        root_file,
        "--json",
    ]
    allowed: list[str | Path] = ["--allow-emulated", "--mrenclave", mrenclave, "--report-data", bound.hex()]
    verdict = json.loads(place.runectl(*words, *allowed))
    assert (verdict["verdict"], verdict["status"], verdict["emulated"]) == ("accepted", "UpToDate", True)

    document = collateral_file.read_text()
    now = int(time.time())
    assert verify(raw, parse_collateral(document), now, Policy()).verdict == "refused"
    _judge_by_dcap_qvl(raw, document, root_file.read_bytes(), now)
    _judge_by_intel(raw, document, root_file.read_text(), quote.qe.certification.data.decode())


def _judge_by_dcap_qvl(raw: bytes, document: str, root: bytes, now: int) -> None:
    dcap_qvl = pytest.importorskip("dcap_qvl", reason="needs dcap-qvl, of the extra dev")
    collateral = dcap_qvl.QuoteCollateralV3.from_json(document)
    der = x509.load_pem_x509_certificate(root).public_bytes(Encoding.DER)
    assert dcap_qvl.verify_with_root_ca(raw, collateral, der, now).status == "UpToDate"
    with pytest.raises(ValueError, match=r"root|chain|issuer|signature|Signature|CRL|CA"):
        dcap_qvl.verify(raw, collateral, now)


def _judge_by_intel(raw: bytes, document: str, root: str, chain: str) -> None:
    qvl = pytest.importorskip(
        "sgx_dcap_quote_verify", reason="needs sgx-dcap-quote-verify-python, which exists for Python up to 3.11"
    )
    fields = json.loads(document)
    pck, ca, _ = (f"-----BEGIN{part}" for part in chain.split("-----BEGIN")[1:])
    result = qvl.verify(
        trusted_root_ca_certificate=root,
        pck_certificate=pck,
        pck_signing_chain=ca + root,
        root_ca_crl=fields["root_ca_crl"],
        intermediate_ca_crl=fields["pck_crl"],
        tcb_info=f'{{"tcbInfo":{fields["tcb_info"]},"signature":"{fields["tcb_info_signature"]}"}}',
        tcb_signing_chain=fields["tcb_info_issuer_chain"],
        quote=raw,
        qe_identity=f'{{"enclaveIdentity":{fields["qe_identity"]},"signature":"{fields["qe_identity_signature"]}"}}',
        expiration_date=datetime.now(UTC),
    )
    parts = result.pck_certificate_status, result.tcb_info_status, result.qe_identity_status, result.quote_status
    assert [part.name for part in parts] == ["STATUS_OK"] * 4


def test_a_forged_report_gets_no_quote(place: Place, tmp_path: Path) -> None:
    report = bytearray(place.attest().stdout)
    report[320] ^= 1
    forged = tmp_path / "forged"
    forged.write_bytes(report)
    words: list[str | Path] = ["gen-quote", "--report", forged, "--quote", tmp_path / "quote", "--socket", place.socket]
    done = subprocess.run([place.checkout / "build/bin/runectl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "47" in done.stderr
    assert not (tmp_path / "quote").exists()


def test_a_failure_does_not_end_the_container(place: Place, tmp_path: Path) -> None:
    for words, reason in (
        (["--isRA", "--quote-type", "epidLinkable", "--spid", "0" * 32], "attest failed: "),
        (["--target-info", "/dev/null"], "a target info has 512 bytes, found 0"),
        (["--nonce", "x"], "--nonce is not hexadecimal"),
        (["--nonce", "00" * 65], "room for 64"),
        (["--subscription-key", "0" * 32], "has ended"),
        (["--isRA", "--quote-type", "epidLinkable"], "--spid"),
        (["--quote-type", "dcap"], "invalid --quote-type"),
        (["--reportFile", tmp_path / "no/such"], "cannot write"),
        (["--user-data", tmp_path / "no"], "cannot read"),
    ):
        done = place.attest(*words)
        assert done.returncode == 1, words
        assert reason in done.stderr.decode()
    place.daemon.terminate()
    place.daemon.wait(20)
    done = place.attest()
    assert done.returncode == 1
    assert str(place.socket) in done.stderr.decode()
    place.daemon = subprocess.Popen(["true"])
    assert json.loads(place.rune("state", "c").stdout)["status"] == "created"
    assert place.rune("start", "c").returncode == 0
