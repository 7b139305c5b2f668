from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inclavare.cli.runectl import main

VECTORS = Path(__file__).parents[2] / "vectors" / "attestation"
QUOTE = VECTORS / "quotes/phala_sgx.bin"
COLLATERAL = VECTORS / "sets/phala_sgx__eval17_v3_2025-07-04.json"
TIME = 1751624924
STATUS = "ConfigurationAndSWHardeningNeeded"
MRENCLAVE = "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
MRSIGNER = "815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6"
HELLO_WORLD = "48656c6c6f2c20776f726c6421"


class VerifyQuote:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(
        self, *options: str, quote: Path = QUOTE, collateral: Path = COLLATERAL, at: str | Path = str(TIME)
    ) -> tuple[int, str, str]:
        argv = ["verify-quote", "--quote", str(quote), "--collateral", str(collateral), "--at", str(at)]
        code = main([*argv, *options])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *options: str, **files: Path) -> tuple[int, dict[str, Any]]:
        code, out, err = self("--json", *options, **files)
        assert err == ""
        values = json.loads(out)
        assert isinstance(values, dict)
        return code, values


@pytest.fixture
def verify_quote(capsys: pytest.CaptureFixture[str]) -> VerifyQuote:
    return VerifyQuote(capsys)


def test_the_verdict_comes_first_and_then_the_numbered_steps(verify_quote: VerifyQuote) -> None:
    code, out, _ = verify_quote("--accept-status", STATUS)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "ACCEPTED"
    assert f"MRENCLAVE:            {MRENCLAVE}" in lines
    assert "   1 quote format             passed: version 3, certification data of type 5" in lines
    assert lines[-1].startswith("  26 report data")


def test_json_has_everything(verify_quote: VerifyQuote) -> None:
    code, values = verify_quote.json("--accept-status", STATUS)
    steps = values.pop("steps")
    assert code == 0
    assert values == {
        "verdict": "accepted",
        "cause": "",
        "status": STATUS,
        "advisory_ids": ["INTEL-SA-00289", "INTEL-SA-00615"],
        "mrenclave": MRENCLAVE,
        "mrsigner": MRSIGNER,
        "isvprodid": 0,
        "isvsvn": 0,
        "report_data": HELLO_WORLD.ljust(128, "0"),
        "debug": False,
        "emulated": False,
        "root": "Intel",
        "fmspc": "00a067110000",
        "tcb_date": "2024-03-13T00:00:00Z",
        "expires": "2025-07-19T10:01:18Z",
        "failed_step": None,
        "reason": f"genuine, status {STATUS}",
    }
    assert [step["number"] for step in steps] == list(range(1, 27))
    assert all(step["passed"] for step in steps)


def test_exit_codes_distinguish_the_verdicts(verify_quote: VerifyQuote, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    forged.write_bytes(QUOTE.read_bytes()[:400] + b"?" + QUOTE.read_bytes()[401:])
    code, values = verify_quote.json(quote=forged)
    assert (code, values["verdict"], values["failed_step"]) == (3, "refused", "quote signature")
    code, values = verify_quote.json()
    assert (code, values["verdict"], values["failed_step"]) == (4, "refused", "status")
    code, values = verify_quote.json(collateral=forged)
    assert (code, values["verdict"], values["failed_step"]) == (5, "unknown", "collateral format")


@pytest.mark.parametrize("at", ["1751624924", "2025-07-04T10:28:44Z", "2025-07-04T12:28:44+02:00"])
def test_the_time_is_given_in_seconds_or_rfc_3339(verify_quote: VerifyQuote, at: str) -> None:
    assert verify_quote("--accept-status", STATUS, at=at)[0] == 0


@pytest.mark.parametrize("at", ["", "yesterday", "2025-07-04T10:28:44", "-1", "2025-13-04T10:28:44Z", "9" * 30])
def test_other_times_are_not_understood(verify_quote: VerifyQuote, at: str) -> None:
    code, out, err = verify_quote(at=at)
    assert (code, out) == (2, "")
    assert err.startswith("runectl: --at: expected unix seconds or RFC 3339")


def test_without_a_time_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-quote", "--quote", str(QUOTE), "--collateral", str(COLLATERAL)]) == 5
    assert "times: expected" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (("--refuse-advisory", "INTEL-SA-00615"), "advisories"),
        (("--accept-advisory", "INTEL-SA-00615"), "advisories"),
        (("--mrenclave", MRSIGNER), "MRENCLAVE"),
        (("--mrsigner", MRENCLAVE), "MRSIGNER"),
        (("--isvprodid", "1"), "product id"),
        (("--product-id", "1"), "product id"),
        (("--min-isvsvn", "1"), "SVN"),
        (("--min-svn", "1"), "SVN"),
        (("--report-data", "48656c6c6f"), "report data"),
        (("--report-data", ""), "report data"),
    ],
)
def test_a_policy_refuses_at_its_step(verify_quote: VerifyQuote, options: tuple[str, ...], step: str) -> None:
    code, values = verify_quote.json("--accept-status", STATUS, *options)
    assert (code, values["cause"], values["failed_step"]) == (4, "genuine but unacceptable", step)
    assert values["status"] == STATUS


@pytest.mark.parametrize(
    "options",
    [
        ("--accept-advisory", "INTEL-SA-00615,INTEL-SA-00289", "--refuse-advisory", "INTEL-SA-00001"),
        ("--mrenclave", MRSIGNER, "--mrenclave", f"0x{MRENCLAVE.upper()}"),
        ("--mrsigner", MRSIGNER, "--isvprodid", "0", "--min-isvsvn", "0"),
        ("--report-data", HELLO_WORLD),
        ("--report-data", HELLO_WORLD.ljust(128, "0")),
        ("--max-collateral-age", "16"),
    ],
)
def test_a_policy_accepts_what_it_names(verify_quote: VerifyQuote, options: tuple[str, ...]) -> None:
    assert verify_quote("--accept-status", STATUS, *options)[0] == 0


def test_collateral_that_is_too_old_tells_nothing(verify_quote: VerifyQuote) -> None:
    code, values = verify_quote.json("--accept-status", STATUS, "--max-collateral-age", "15")
    assert (code, values["verdict"], values["failed_step"]) == (5, "unknown", "collateral age")


def test_debug_enclaves_are_accepted_only_on_request(verify_quote: VerifyQuote) -> None:
    files = {"quote": VECTORS / "quotes/oe_sgx_2023.bin"}
    files["collateral"] = VECTORS / "sets/oe_sgx_2023__eval19_v3_2025-06-26.json"
    at = ("--at", "1750958385", "--accept-status", "OutOfDate")
    code, values = verify_quote.json(*at, **files)
    assert (code, values["debug"], values["failed_step"]) == (4, True, "debug")
    assert verify_quote.json(*at, "--allow-debug", **files)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--accept-status", "Revoked"), "accepted_statuses: expected some of UpToDate"),
        (("--accept-status", "Fine"), "accepted_statuses: expected some of UpToDate"),
        (("--mrenclave", "00"), "mrenclaves: expected 32 bytes, found 1"),
        (("--mrsigner", "zz"), "--mrsigner: expected hexadecimal digits, found zz"),
        (("--report-data", "00" * 65), "report_data: expected at most 64 bytes, found 65"),
        (("--root", str(QUOTE)), "root: expected an X.509 certificate"),
    ],
)
def test_a_policy_that_makes_no_sense_is_a_wrong_command_line(
    verify_quote: VerifyQuote, options: tuple[str, ...], message: str
) -> None:
    code, out, err = verify_quote(*options)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("missing", ["--quote", "--collateral", "--root"])
def test_a_file_that_cannot_be_read_is_no_verdict(verify_quote: VerifyQuote, missing: str) -> None:
    code, out, err = verify_quote(missing, "/nowhere")
    assert (code, out) == (1, "")
    assert err == "runectl: Unable to open /nowhere: No such file or directory\n"
