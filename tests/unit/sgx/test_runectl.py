from __future__ import annotations

import argparse
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inclavare
from inclavare.cli.runectl import COMMANDS, main, parser
from inclavare.sgx.arch import Sigstruct
from inclavare.sgx.measure import image_steps, mrenclave, mrsigner
from inclavare.sgx.sgxs import write_sgxs
from inclavare.sgx.sigstruct import require, verify

VECTORS = Path(__file__).parents[2] / "vectors" / "sigstruct"
MRENCLAVE_T = "ea0b6de74d05b8f705df065370885f28797eba2ed64dc799be65ad8b34f8de70"


class Runectl:
    """Runs the command in a folder that holds the image encl.bin and the key key.pem."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys = capsys
        self.folder = folder

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def output(self, *argv: str) -> str:
        code, out, err = self(*argv)
        assert (code, err) == (0, "")
        return out

    def error(self, *argv: str) -> tuple[int, list[str]]:
        code, out, err = self(*argv)
        assert out == ""
        return code, err.splitlines()

    def json(self, *argv: str) -> dict[str, Any]:
        value = json.loads(self.output(*argv, "--json"))
        assert isinstance(value, dict)
        return value


@pytest.fixture
def runectl(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: bytes, key_pem: bytes
) -> Runectl:
    (tmp_path / "encl.bin").write_bytes(image)
    (tmp_path / "key.pem").write_bytes(key_pem)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return Runectl(capsys, tmp_path)


def test_measure_prints_the_digest_alone(runectl: Runectl) -> None:
    assert runectl.output("measure", "encl.bin") == MRENCLAVE_T + "\n"


def test_measure_reads_sgxs(runectl: Runectl, image: bytes) -> None:
    Path("encl.sgxs").write_bytes(b"".join(write_sgxs(image_steps(image))))
    expected = {"image": "encl.sgxs", "format": "sgxs", "mrenclave": MRENCLAVE_T}
    assert runectl.json("measure", "encl.sgxs") == expected


def test_measure_sizes_the_ssa_frame_by_xfrm(runectl: Runectl, image: bytes) -> None:
    assert runectl.output("measure", "-x", "60007", "encl.bin").strip() == mrenclave(image_steps(image, 3)).hex()


def test_sign_writes_a_sigstruct_that_verifies(runectl: Runectl) -> None:
    out = runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    sigstruct = Sigstruct.from_bytes(Path("encl.ss").read_bytes())
    require(verify(sigstruct))
    assert out == f"MRENCLAVE {MRENCLAVE_T}\nMRSIGNER  {mrsigner(sigstruct.modulus).hex()}\n"
    assert (sigstruct.attributes, sigstruct.attributes_mask, sigstruct.xfrm, sigstruct.date) == (6, 6, 3, 0)


def test_sign_never_modifies_the_image_and_repeats_itself(runectl: Runectl, image: bytes) -> None:
    runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    first = Path("encl.ss").read_bytes()
    runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    assert Path("encl.ss").read_bytes() == first
    assert Path("encl.bin").read_bytes() == image


def test_sign_takes_versions_masks_and_a_date(runectl: Runectl) -> None:
    options = ["-N", "-x", "0x7", "--xfrm-mask", "3", "--isv-prod-id", "2", "--isv-svn", "0x10", "--date", "2020-06-30"]
    runectl.output("sign", *options, "--key", "key.pem", "encl.bin", "encl.ss")
    got = Sigstruct.from_bytes(Path("encl.ss").read_bytes())
    assert (got.attributes, got.attributes_mask, got.xfrm, got.xfrm_mask) == (4, 6, 7, 3)
    assert (got.isvprodid, got.isvsvn, got.date) == (2, 16, 0x20200630)


def test_source_date_epoch_is_the_date_unless_one_is_given(runectl: Runectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1593475200")
    runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    assert Sigstruct.from_bytes(Path("encl.ss").read_bytes()).date == 0x20200630
    runectl.output("sign", "--key", "key.pem", "--date", "1999-12-31", "encl.bin", "encl.ss")
    assert Sigstruct.from_bytes(Path("encl.ss").read_bytes()).date == 0x19991231
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, lines = runectl.error("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    assert code == 2
    assert lines[0] == "runectl: SOURCE_DATE_EPOCH must be seconds since 1970, found 'yesterday'"


def test_two_steps_with_openssl_give_what_one_step_gives(runectl: Runectl) -> None:
    options = ["--isv-svn", "3", "--date", "2020-06-30"]
    runectl.output("sign", *options, "--key", "key.pem", "encl.bin", "one.ss")
    runectl.output("sign", *options, "--tbs-out", "tbs", "encl.bin")
    assert Path("tbs").stat().st_size == 256
    subprocess.run(["openssl", "dgst", "-sha256", "-sign", "key.pem", "-out", "sig", "tbs"], check=True)
    subprocess.run(["openssl", "rsa", "-in", "key.pem", "-pubout", "-out", "pub.pem"], check=True, capture_output=True)
    runectl.output("sign", *options, "--signature", "sig", "--public-key", "pub.pem", "encl.bin", "two.ss")
    assert Path("one.ss").read_bytes() == Path("two.ss").read_bytes()
    code, lines = runectl.error("sign", "--signature", "sig", "--public-key", "pub.pem", "encl.bin", "two.ss")
    assert code == 1
    assert lines[0] == "runectl: the signature is not one of this enclave by this key"


def test_metadata_options_write_a_new_image(runectl: Runectl, image: bytes) -> None:
    said = runectl.json("sign", "--key", "key.pem", "-n", "-m", "0x10000", "-o", "new.bin", "encl.bin", "encl.ss")
    assert said["mrenclave"] == "c8ee15da38260315e062427865d7d90007e3b79cbbf56018d6fdad53e3b9e322"
    assert runectl.output("measure", "new.bin").strip() == said["mrenclave"]
    assert Path("encl.bin").read_bytes() == image
    said = runectl.json("sign", "--key", "key.pem", "-s", "65536", "-o", "new.bin", "encl.bin", "encl.ss")
    assert said["mrenclave"] == "baa93040924f8d7a63353232a389750e9e6d2c9e3d1b84862df7be4f0d254bc4"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["sign", "encl.bin", "encl.ss"], "one of --key, --server, --tbs-out and --signature must be given"),
        (
            ["sign", "--key", "k", "--tbs-out", "t", "encl.bin"],
            "one of --key, --server, --tbs-out and --signature must be given",
        ),
        (
            ["sign", "--server", "u", "--tbs-out", "t", "encl.bin"],
            "one of --key, --server, --tbs-out and --signature must",
        ),
        (
            ["sign", "--key", "k", "--token-file", "t", "encl.bin", "ss"],
            "--ca-file and --token-file belong to --server",
        ),
        (["sign", "--signature", "s", "encl.bin", "encl.ss"], "--signature and --public-key belong together"),
        (["sign", "--key", "k", "encl.bin"], "the file SIGSTRUCT must be given"),
        (["sign", "--tbs-out", "t", "encl.bin", "encl.ss"], "the file SIGSTRUCT must be given"),
        (["sign", "--key", "k", "-n", "encl.bin", "encl.ss"], "--output belongs to the options"),
        (["sign", "--key", "k", "-o", "new", "encl.bin", "encl.ss"], "--output belongs to the options"),
        (["sign", "--key", "k", "-m", "0", "-s", "0", "-o", "new", "encl.bin", "ss"], "--mmap-min-addr needs"),
        (["sign", "--key", "k", "-n", "-o", "./encl.bin", "encl.bin", "ss"], "./encl.bin would be overwritten"),
        (["sign", "--key", "k", "encl.bin", "encl.bin"], "encl.bin would be overwritten"),
        (["sign", "--key", "k", "-n", "-o", "new", "encl.bin", "new"], "new would be overwritten"),
        (["sign", "--key", "k", "--date", "2020-13-01", "encl.bin", "ss"], "argument --date: invalid"),
        (["sign", "--key", "k", "--isv-svn", "65536", "encl.bin", "ss"], "argument --isv-svn: invalid"),
        (["sign", "--key", "k", "-a", "xyz", "encl.bin", "ss"], "argument -a/--attrs: invalid"),
        (["measure"], "the following arguments are required: IMAGE"),
        (["dance"], "argument COMMAND: invalid choice: 'dance'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(runectl: Runectl, argv: list[str], sentence: str) -> None:
    code, lines = runectl.error(*argv)
    assert code == 2
    assert len(lines) == 2
    assert lines[0].startswith(f"runectl: {sentence}")
    assert lines[1].startswith("hint: runectl")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["measure", "absent"], "Unable to open absent: No such file or directory"),
        (["inspect", "."], "Unable to open .: Is a directory"),
        (["measure", "key.pem"], "cannot read the enclave image: a flat image has whole pages and 17 bytes"),
        (["inspect", "encl.bin", "--image", "encl.bin"], "cannot verify encl.bin: a SIGSTRUCT has 1808 bytes"),
        (["sign", "--key", "absent", "encl.bin", "encl.ss"], "Unable to open absent: No such file or directory"),
        (["sign", "--key", "encl.bin", "encl.bin", "encl.ss"], "cannot read the private key: it is not in PEM format"),
        (["sign", "--key", "key.pem", "encl.bin", "no/encl.ss"], "Unable to write no/encl.ss: No such file"),
        (["sign", "--key", "key.pem", "-a", "4", "encl.bin", "encl.ss"], "Invalid option --attrs. The bitmap 0x6"),
        (["sign", "--key", "key.pem", "-x", "4", "encl.bin", "encl.ss"], "Invalid option --xfrm. The minimum bits"),
        (["sign", "--key", "key.pem", "-s", "1", "-o", "n", "encl.bin", "ss"], "Invalid enclave mmap size 1, set"),
        (["sign", "--server", "http://signer", "encl.bin", "ss"], "http://signer: plain http is for this machine only"),
        (["keygen", "key.pem"], "Unable to create key.pem: File exists"),
    ],
)
def test_what_fails_is_one_line_and_exit_code_one(runectl: Runectl, argv: list[str], sentence: str) -> None:
    before = sorted(path.name for path in runectl.folder.iterdir())
    code, lines = runectl.error(*argv)
    assert code == 1
    assert lines[0].startswith(f"runectl: {sentence}")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert sorted(path.name for path in runectl.folder.iterdir()) == before


def test_inspect_shows_every_step_of_a_good_sigstruct(runectl: Runectl) -> None:
    runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    out = runectl.output("inspect", "encl.ss", "--image", "encl.bin")
    steps = out[out.index("Verification:") :].splitlines()[1:]
    assert [line.split("  ")[1].strip() for line in steps] == [
        *["header", "type", "vendor", "header2", "reserved", "exponent", "modulus size", "signature", "q1", "q2"],
        "enclave hash",
    ]
    assert all(line.endswith(" passed") for line in steps)


def test_inspect_shows_the_original_projects_fields(runectl: Runectl) -> None:
    out = runectl.output("inspect", str(VECTORS / "hello-world.sig"))
    lines = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    assert lines["Enclave Build Date"].strip() == "2019-10-7"
    assert lines["Enclave Vendor"].strip() == "0x00000000"
    assert lines["ISV assigned Product ID"].strip() == "0x0000"
    assert lines["Enclave Attributes"].split()[0] == "0x06000000000000000300000000000000"
    assert out.splitlines()[0].index("0x") == 36


def test_inspect_names_the_step_that_fails(runectl: Runectl) -> None:
    data = bytearray((VECTORS / "intel_pce.sigstruct.bin").read_bytes())
    data[1040] ^= 1
    Path("bad.ss").write_bytes(data)
    code, out, err = runectl("inspect", "bad.ss")
    assert code == 1
    assert "  q1            FAILED: expected" in out
    assert err.startswith("runectl: the SIGSTRUCT fails at step q1: expected")


def test_inspect_notices_another_image(runectl: Runectl, image: bytes) -> None:
    runectl.output("sign", "--key", "key.pem", "encl.bin", "encl.ss")
    Path("other.bin").write_bytes(b"\1" + image[1:])
    code, _, err = runectl("inspect", "encl.ss", "--image", "other.bin")
    assert code == 1
    assert err.startswith("runectl: the SIGSTRUCT fails at step enclave hash: expected ")
    assert err.strip().endswith(f"found {MRENCLAVE_T}")


def test_inspect_in_json_has_fields_and_steps(runectl: Runectl) -> None:
    value = runectl.json("inspect", str(VECTORS / "intel_le.sigstruct.bin"))
    assert value["format"] == "sigstruct"
    assert value["vendor"] == 0x8086
    assert {step["step"]: step["passed"] for step in value["steps"]} == dict.fromkeys(
        ["header", "type", "vendor", "header2", "reserved", "exponent", "modulus size", "signature", "q1", "q2"],
        True,
    )


@pytest.mark.parametrize("name", ["encl.bin", "encl.sgxs"])
def test_inspect_shows_images(runectl: Runectl, image: bytes, name: str) -> None:
    Path("encl.sgxs").write_bytes(b"".join(write_sgxs(image_steps(image))))
    assert MRENCLAVE_T in runectl.output("inspect", name)
    value = runectl.json("inspect", name)
    assert (value["mrenclave"], value["enclave_size"], value["ssa_frame_pages"]) == (MRENCLAVE_T, 16384, 1)


def test_keygen_makes_a_key_for_its_owner_only(runectl: Runectl) -> None:
    signer = runectl.output("keygen", "new.pem").strip()
    assert stat.S_IMODE(Path("new.pem").stat().st_mode) == 0o600
    assert runectl.json("sign", "--key", "new.pem", "encl.bin", "encl.ss")["mrsigner"] == signer


@pytest.mark.parametrize("argv", [["--help"], ["sign", "--help"], ["measure", "--help"], ["inspect", "--help"]])
def test_help_is_printed(runectl: Runectl, argv: list[str]) -> None:
    assert runectl.output(*argv).startswith("usage: runectl")


def test_version_is_the_packages(runectl: Runectl) -> None:
    assert runectl.output("--version") == f"runectl version {inclavare.__version__}\n"


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "inclavare.cli.runectl", "measure", "absent"]
    environment = {"PYTHONPATH": str(Path(inclavare.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "runectl: Unable to open absent: No such file or directory\n")


def test_every_command_has_a_module_and_every_module_with_a_parser_a_command() -> None:
    modules = Path(inclavare.__file__).parent.glob("cli/runectl_*.py")
    names = {
        path.stem.removeprefix("runectl_").replace("_", "-") for path in modules if "def add_parser" in path.read_text()
    }
    assert names == set(COMMANDS)


def test_the_list_of_commands_says_what_each_says_itself() -> None:
    def listed(whole: argparse.ArgumentParser) -> dict[str, str | None]:
        (commands,) = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
        return {choice.dest: choice.help for choice in commands._choices_actions}

    assert listed(parser()) == listed(parser([])) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_begins_without_what_others_and_its_own_work_need(command: str) -> None:
    program = "import sys; from inclavare.cli.runectl import main; main([sys.argv[1], '--help']); print(*sys.modules)"
    source = str(Path(inclavare.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, command],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert f"inclavare.cli.runectl_{command.replace('-', '_')}" in loaded
    assert not {"cryptography", "asyncio", "ssl", "tempfile", "inclavare.aesm", "inclavare.pcs"} & loaded
    if command != "sign":
        assert "inclavare.cli.runectl_sign" not in loaded


def test_what_fails_is_told_to_programs_too(runectl: Runectl) -> None:
    code, out, err = runectl("gen-qe-target-info", "--socket", "absent", "--json")
    error = json.loads(out)["error"]
    assert code == 1
    assert "cannot connect to absent" in error["message"]
    assert err.splitlines() == [f"runectl: {error['message']}", f"hint: {error['hint']}"]


def test_help_lists_all_commands(runectl: Runectl) -> None:
    out = runectl.output("--help")
    assert all(f"\n    {name} " in out or f"\n    {name}\n" in out for name in COMMANDS)
