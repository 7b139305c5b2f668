"""runectl's commands that ask AESM, against a daemon whose answers are written down."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.aesm.messages import (
    GetLaunchTokenRequest,
    GetLaunchTokenResponse,
    GetQuoteExRequest,
    GetQuoteExResponse,
    GetQuoteRequest,
    GetQuoteResponse,
    GetQuoteSizeExRequest,
    GetQuoteSizeExResponse,
    GetSupportedAttKeyIDNumResponse,
    GetSupportedAttKeyIDsRequest,
    GetSupportedAttKeyIDsResponse,
    InitQuoteExRequest,
    InitQuoteExResponse,
    InitQuoteRequest,
    InitQuoteResponse,
    Response,
    SelectAttKeyIDResponse,
)
from inclavare.cli.runectl import main
from inclavare.sgx.arch import EinitToken
from tests.unit.aesm.scripted import ScriptedDaemon

SIGSTRUCT = Path(__file__).parents[2] / "vectors" / "sigstruct" / "hello-world.sig"
ECDSA = bytes(154) + b"\2\0\0\0" + bytes(98)
EPID = bytes(256)
TARGET = bytes(range(256)) * 2
REPORT = bytes(range(216)) * 2
QUOTE = b"\3\0\2\0" + bytes(428) + b"\x05\0\0\0" + b"12345"
TOKEN = EinitToken(
    valid=1,
    attributes=6,
    xfrm=3,
    mrenclave=bytes.fromhex("7470ffc919e823e0f6a9592e05fe523b228b491865aadf0cfe7ce5ddd31412b5"),
    mrsigner=bytes.fromhex("5bde1ae94215c4ad6c6c4430ba880fd841b2184637ac907a44b832b1b226bbd4"),
    cpusvnle=bytes.fromhex("050e0204ff0200000000000000000000"),
    isvprodidle=0x20,
    isvsvnle=3,
    maskedattributesle=0x21,
    keyid=bytes.fromhex("0bbcfaf50b2baf7ad7b3f6b25621bb0b241b7e3c517a77305711f0f39f8c3c47"),
    mac=bytes.fromhex("135de69cd3bcbaa09264c7a5b985d0bf"),
)
# The example of the original's guide.
DUMP = """\
SIGSTRUCT:
  Enclave Vendor:                   0x00000000
  Enclave Build Date:               2019-10-7
  Software Defined:                 0x00000000
  ISV assigned Product Family ID:   0x00000000000000000000000000000000
  ISV assigned Produdct ID:         0x0000
  ISV assigned Extended Product ID: 0x00000000000000000000000000000000
  ISV assigned SVN:                 0
  Enclave Attributes:               0x06000000000000000300000000000000
  Enclave Attributes Mask:          0x06000000000000000300000000000000
  Enclave Misc Select:              0x00000000
  Enclave Misc Mask:                0x00000000
  Enclave Hash:                     0x7470ffc919e823e0f6a9592e05fe523b228b491865aadf0cfe7ce5ddd31412b5
  Modulus:                          0x190e2d49ccda2097efa00061aa028d1eb1633a602ae924f609c5bfec2ba9a3d9...
  Exponent:                         3
  Signature:                        0x4b159a3594b24177fbdb16b21e60194275b58d5d8badf6b444ee72ddfc015913...
  Q1:                               0x2954df0757eff2f1653b80e88d99246edb33ec115f7365cd340658903363b0e7...
  Q2:                               0x19d4f5c51a56567286027b4f9f619b780fa258c90bad9a32db85f77a107b15eb...
EINITTOKEN:
  Valid:                                    1
  Enclave Attributes:                       0x06000000000000000300000000000000
  Enclave Hash:                             0x7470ffc919e823e0f6a9592e05fe523b228b491865aadf0cfe7ce5ddd31412b5
  Enclave Signer:                           0x5bde1ae94215c4ad6c6c4430ba880fd841b2184637ac907a44b832b1b226bbd4
  Launch Enclave's CPU SVN :                0x050e0204ff0200000000000000000000
  Launch Enclave's ISV assigned Product ID: 0x0020
  Launch Enclave's ISV assigned SVN:        3
  Launch Enclave's Masked Misc Select:      0x00000000
  Launch Enclave's Masked Attributes:       0x21000000000000000000000000000000
  Key ID:                                   0x0bbcfaf50b2baf7ad7b3f6b25621bb0b241b7e3c517a77305711f0f39f8c3c47
  MAC:                                      0x135de69cd3bcbaa09264c7a5b985d0bf
token file hello-world.token saved
"""

Run = Callable[..., tuple[int, str, str]]
Start = Callable[..., ScriptedDaemon]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello-world.sig").write_bytes(SIGSTRUCT.read_bytes())
    (tmp_path / "report.bin").write_bytes(REPORT)
    started: list[ScriptedDaemon] = []

    def begin(*answers: Response) -> ScriptedDaemon:
        started.append(ScriptedDaemon("aesm.socket", *answers))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.close()


@pytest.fixture
def runectl(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main([*argv, "--socket", "aesm.socket"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def as_json(result: tuple[int, str, str]) -> dict[str, Any]:
    value = json.loads(result[1])
    assert isinstance(value, dict)
    return value


def test_a_token_is_dumped_as_the_originals_guide_shows_it(start: Start, runectl: Run, tmp_path: Path) -> None:
    daemon = start(GetLaunchTokenResponse(error_code=0, token=TOKEN.to_bytes()))
    assert runectl("--verbose", "gen-token", "--signature", "hello-world.sig") == (0, DUMP, "")
    assert (tmp_path / "hello-world.token").read_bytes() == TOKEN.to_bytes()
    sigstruct = SIGSTRUCT.read_bytes()
    (request,) = daemon.requests
    assert isinstance(request, GetLaunchTokenRequest)
    assert request.mr_enclave == sigstruct[960:992]
    assert request.mr_signer == sigstruct[128:512]
    assert request.se_attributes == sigstruct[928:944]


def test_a_token_has_the_permissions_of_its_signature(start: Start, runectl: Run, tmp_path: Path) -> None:
    start(GetLaunchTokenResponse(error_code=0, token=TOKEN.to_bytes()))
    (tmp_path / "hello-world.sig").chmod(0o640)
    assert runectl("gen-token", "--signature", "hello-world.sig", "--token", "t")[:2] == (0, "token file t saved\n")
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o640


def test_a_signature_without_its_ending_keeps_its_name(start: Start, runectl: Run, tmp_path: Path) -> None:
    start(GetLaunchTokenResponse(error_code=0, token=TOKEN.to_bytes()))
    (tmp_path / "hello-world.sig").rename(tmp_path / "encl.ss")
    assert runectl("gen-token", "--signature", "encl.ss")[1] == "token file encl.ss.token saved\n"


def test_a_token_is_told_to_programs(start: Start, runectl: Run) -> None:
    start(GetLaunchTokenResponse(error_code=0, token=TOKEN.to_bytes()))
    told = as_json(runectl("gen-token", "--signature", "hello-world.sig", "--json"))
    assert Path(told["token"]) == Path("hello-world.token")
    assert told["mrsigner"] == TOKEN.mrsigner.hex()
    assert told["isvprodidle"] == 0x20


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["gen-token"], 2, "signature argument cannot be empty"),
        (["gen-token", "--signature", "no"], 1, "signature file no not found"),
        (["gen-token", "--signature", "report.bin"], 1, "signature file report.bin not match SIGSTRUCT"),
        (["gen-quote"], 2, "report argument cannot be empty"),
        (["gen-quote", "--report", "no"], 1, "report file no not found"),
        (["gen-quote", "--report", "hello-world.sig"], 1, "report file hello-world.sig not match REPORT"),
        (["gen-quote", "--report", "report.bin", "--quote-type", "tdx"], 2, "Unsupport quote type: tdx"),
        (["gen-quote", "--report", "report.bin", "--linkable"], 2, "spid argument cannot be empty"),
        (["gen-quote", "--report", "report.bin", "--spid", "ab"], 2, "Spid must be 32-character long"),
        (["gen-quote", "--report", "report.bin", "--linkable", "--quote-type", "ecdsa"], 2, "contradict each other"),
        (["gen-qe-target-info", "--quote-type", "x"], 2, "Unsupport quote type: x"),
        (["gen-qe-target-info", "--timeout", "0"], 2, "invalid seconds value: '0'"),
    ],
)
@pytest.mark.usefixtures("start")
def test_wrong_arguments_are_told_in_the_originals_words(
    runectl: Run, argv: list[str], code: int, message: str
) -> None:
    result = runectl(*argv)
    assert result[:2] == (code, "")
    assert message in result[2]


def test_the_target_info_for_ecdsa_makes_the_attestation_key(start: Start, runectl: Run, tmp_path: Path) -> None:
    daemon = start(
        SelectAttKeyIDResponse(error_code=0, selected_att_key_id=ECDSA),
        InitQuoteExResponse(error_code=0, target_info=TARGET, pub_key_id_size=32),
        InitQuoteExResponse(error_code=0, target_info=TARGET, pub_key_id_size=32, pub_key_id=bytes(32)),
    )
    code, out, err = runectl("gen-qe-target-info", "--verbose")
    assert (code, err) == (0, "")
    assert out == (
        "Quoting Enclave's TARGETINFO:\n"
        f"  Enclave Hash:       0x{TARGET[:32].hex()}\n"
        "  Enclave Attributes: 0x202122232425262728292a2b2c2d2e2f\n"
        "  CET Attributes:     0x30\n"
        "  Config SVN:         0x3332\n"
        "  Misc Select:        0x37363534\n"
        f"  Config ID:          0x{TARGET[64:128].hex()}\n"
        "quoting enclave's target info file qe_targetinfo.bin saved\n"
    )
    assert (tmp_path / "qe_targetinfo.bin").read_bytes() == TARGET
    assert stat.S_IMODE((tmp_path / "qe_targetinfo.bin").stat().st_mode) == 0o664
    size_query, make = daemon.requests[1:]
    assert isinstance(size_query, InitQuoteExRequest)
    assert isinstance(make, InitQuoteExRequest)
    assert (size_query.att_key_id, size_query.b_pub_key_id, size_query.buf_size) == (ECDSA, False, None)
    assert (make.att_key_id, make.b_pub_key_id, make.buf_size) == (ECDSA, True, 32)


def test_when_the_daemon_prefers_epid_the_ecdsa_key_is_looked_for(start: Start, runectl: Run) -> None:
    daemon = start(
        SelectAttKeyIDResponse(error_code=0, selected_att_key_id=EPID),
        GetSupportedAttKeyIDNumResponse(error_code=0, att_key_id_num=2),
        GetSupportedAttKeyIDsResponse(error_code=0, att_key_ids=EPID + ECDSA),
        GetQuoteSizeExResponse(error_code=0, quote_size=4600),
        GetQuoteExResponse(error_code=0, quote=QUOTE + bytes(20)),
    )
    assert runectl("gen-quote", "--report", "report.bin", "--quote-type", "ECDSA")[0] == 0
    ids, size, quote = daemon.requests[2:]
    assert isinstance(ids, GetSupportedAttKeyIDsRequest)
    assert ids.buf_size == 512
    assert isinstance(size, GetQuoteSizeExRequest)
    assert size.att_key_id == ECDSA
    assert isinstance(quote, GetQuoteExRequest)
    assert (quote.report, quote.att_key_id, quote.buf_size, quote.qe_report_info) == (REPORT, ECDSA, 4600, None)


def test_without_an_ecdsa_key_the_error_is_that_of_the_protocol(start: Start, runectl: Run) -> None:
    start(
        SelectAttKeyIDResponse(error_code=0, selected_att_key_id=EPID),
        GetSupportedAttKeyIDNumResponse(error_code=0, att_key_id_num=1),
        GetSupportedAttKeyIDsResponse(error_code=0, att_key_ids=EPID),
    )
    code, _, err = runectl("gen-quote", "--report", "report.bin")
    assert code == 1
    assert "cannot get a quote: AESM error 38 (AESM_UNSUPPORTED_ATT_KEY_ID)" in err


def test_a_quote_is_written_without_its_padding_and_dumped(start: Start, runectl: Run, tmp_path: Path) -> None:
    start(
        SelectAttKeyIDResponse(error_code=0, selected_att_key_id=ECDSA),
        GetQuoteSizeExResponse(error_code=0, quote_size=len(QUOTE) + 9),
        GetQuoteExResponse(error_code=0, quote=QUOTE + bytes(9)),
    )
    out = runectl("gen-quote", "--report", "report.bin", "--verbose")[1].splitlines()
    assert (tmp_path / "quote.bin").read_bytes() == QUOTE
    assert out[0] == "REPORT:"
    assert out[1] == f"  CPU SVN:                        0x{REPORT[:16].hex()}"
    quote = out[out.index("QUOTE:") :]
    assert [line.split(":")[0] for line in quote[:8]] == [
        *("QUOTE", "  Version", "  Signature Type", "  Quoting Enclave SVN", "  PCE SVN"),
        *("  Quoting Enclave Vendor Id", "  User Data", "  REPORT"),
    ]
    assert quote[-2:] == ["  Signature Length:                     5", "target enclave's quote file quote.bin saved"]


@pytest.mark.parametrize(
    ("options", "number"),
    [(["--quote-type", "epidUnlinkable"], 0), ([], 0), (["--quote-type", "EPIDLINKABLE"], 1), (["--linkable"], 1)],
)
def test_epid_quotes_are_asked_for_as_ever(
    start: Start, runectl: Run, tmp_path: Path, options: list[str], number: int
) -> None:
    quote = b"\2\0" + QUOTE[2:]
    daemon = start(GetQuoteResponse(error_code=0, quote=quote + bytes(2048 - len(quote))))
    result = runectl("gen-quote", "--report", "report.bin", "--spid", "ab" * 16, *options, "--verbose")
    assert result[0] == 0
    assert "  Base name: " in result[1]
    assert (tmp_path / "quote.bin").read_bytes() == quote
    (request,) = daemon.requests
    assert isinstance(request, GetQuoteRequest)
    assert (request.quote_type, request.qe_report, request.buf_size) == (number, False, 2048)
    assert request.spid == b"\xab" * 16


def test_the_target_info_for_epid_is_that_of_the_old_request(start: Start, runectl: Run, tmp_path: Path) -> None:
    daemon = start(InitQuoteResponse(error_code=0, target_info=TARGET, gid=b"1234"))
    told = as_json(runectl("gen-qe-target-info", "--quote-type", "epidLinkable", "--targetinfo", "t", "--json"))
    assert told["quote_type"] == "epidLinkable"
    assert told["mrenclave"] == TARGET[:32].hex()
    assert isinstance(daemon.requests[0], InitQuoteRequest)
    assert (tmp_path / "t").read_bytes() == TARGET


def test_an_error_of_the_daemon_is_told_to_people_and_programs(start: Start, runectl: Run, tmp_path: Path) -> None:
    start(GetLaunchTokenResponse(error_code=6))
    result = runectl("gen-token", "--signature", "hello-world.sig", "--json")
    assert result[0] == 1
    error = as_json(result)["error"]
    assert (error["code"], error["name"]) == (6, "AESM_GET_LICENSETOKEN_ERROR")
    assert error["cause"]
    assert error["next_step"]
    first, second = result[2].splitlines()
    assert first.startswith(
        "runectl: cannot get a launch token: AESM error 6 (AESM_GET_LICENSETOKEN_ERROR): the launch"
    )
    assert second == f"hint: {error['next_step']}"
    assert not list(tmp_path.glob("*.token"))


@pytest.mark.parametrize("quote", [None, b"", QUOTE[:435], QUOTE[:-1], bytes(500)])
def test_a_quote_that_is_none_is_refused_and_nothing_written(
    start: Start, runectl: Run, tmp_path: Path, quote: bytes | None
) -> None:
    start(
        SelectAttKeyIDResponse(error_code=0, selected_att_key_id=ECDSA),
        GetQuoteSizeExResponse(error_code=0, quote_size=500),
        GetQuoteExResponse(error_code=0, quote=quote),
    )
    code, _, err = runectl("gen-quote", "--report", "report.bin")
    assert code == 1
    assert "the daemon's quote has" in err
    assert not (tmp_path / "quote.bin").exists()


def test_a_token_of_another_size_is_refused(start: Start, runectl: Run) -> None:
    start(GetLaunchTokenResponse(error_code=0, token=bytes(303)))
    assert (
        "invalid length of token: (returned 303, expected 304)"
        in runectl("gen-token", "--signature", "hello-world.sig")[2]
    )
