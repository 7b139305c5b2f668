"""The three PALs on the software platform, driven as rune's runelet drives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from inclavare.sgx.arch import Report, Sigstruct
from inclavare.sgx.measure import image_steps, mrenclave, mrsigner

ROOT = Path(__file__).parents[3]
DRIVE = ROOT / "build" / "skeleton" / "drive"
GREETING = "Hello Inclavare Containers!"
SUCCESS = "Enclave runtime skeleton initialization succeeded"
ENOENT, ESRCH, EIO, EEXIST, ENODEV, EINVAL, ENOSYS = 2, 3, 5, 17, 19, 22, 38


class Done(NamedTuple):
    """What the driver answered (lines after `> `), what else was written to stdout, and stderr."""

    answers: list[str]
    out: list[str]
    err: list[str]


class Skeleton:
    """A folder with encl.bin and encl.ss, and the driver that runs there."""

    def __init__(self, native: Path, folder: Path) -> None:
        self.native = native
        self.folder = folder
        for name in ("encl.bin", "encl.ss"):
            shutil.copy(native / "skeleton" / name, folder)

    def command(self, version: int, *verbs: str, emulator: bool = True) -> list[str]:
        library = str(self.native / "libsgxemu.so") if emulator else "-"
        return [str(DRIVE), library, str(self.native / f"liberpal-skeleton-v{version}.so"), *verbs]

    def drive(self, version: int, *verbs: str, emulator: bool = True, fds: tuple[int, ...] = ()) -> Done:
        done = subprocess.run(
            self.command(version, *verbs, emulator=emulator),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=fds,
            text=True,
            timeout=60,
            check=True,
        )
        lines = done.stdout.splitlines()
        answers = [line[2:] for line in lines if line.startswith("> ")]
        return Done(answers, [line for line in lines if not line.startswith("> ")], done.stderr.splitlines())

    def flip(self, name: str, place: int, bit: int = 0) -> None:
        data = bytearray((self.folder / name).read_bytes())
        data[place] ^= 1 << bit
        (self.folder / name).write_bytes(data)

    def sign(self, *options: str) -> None:
        """Sign encl.bin again; with options for the metadata, what is signed replaces it."""
        key = str(ROOT / "build" / "skeleton" / "signing_key.pem")
        command = ["/usr/bin/python3", "-m", "inclavare.cli.runectl", "sign", "--key", key, *options]
        if set(options) & {"-n", "-s"}:
            command += ["-o", "new.bin"]
        environment = {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run([*command, "encl.bin", "encl.ss"], cwd=self.folder, env=environment, check=True)
        if (self.folder / "new.bin").exists():
            (self.folder / "new.bin").replace(self.folder / "encl.bin")


@pytest.fixture
def skeleton(built: Path, tmp_path: Path) -> Skeleton:
    return Skeleton(built, tmp_path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_version_knows_its_number(skeleton: Skeleton, version: int) -> None:
    assert skeleton.drive(version, "version").answers == [f"version {version}"]


def test_version_1_greets_and_runs_in_one_call(skeleton: Skeleton) -> None:
    done = skeleton.drive(1, "init:", "run:prog", "destroy")
    assert done == (["init 0", "run 0 0", "destroy 0"], [GREETING], [SUCCESS])


@pytest.mark.parametrize("version", [2, 3])
def test_later_versions_greet_then_create_then_wait(skeleton: Skeleton, version: int) -> None:
    done = skeleton.drive(version, "init:", "create:prog", "exec", "destroy")
    assert done == (["init 0", "create 0", "exec 0 0", "destroy 0"], [GREETING], [SUCCESS])


def test_debug_tells_what_is_built_and_where(skeleton: Skeleton) -> None:
    out = skeleton.drive(2, "init:some other debug unknown").out
    assert out[:2] == ["platform: emulated", "sig.attrs 0x6, sig.attrs_mask 0x6"]
    assert out[2].endswith("sig.xfrm 0x3, sig.xfrm_mask 0x3")
    assert [line.split(" [")[0] for line in out[3:-1]] == [
        "the enclave is not protected against null dereference (see runectl sign -n)",
        "enclave range",
        "enclave mmap",
        "load area",
    ]
    assert out[4].endswith("length 32768-byte")
    assert out[-1] == GREETING


def test_the_report_the_image_the_signature_and_the_golden_value_agree(skeleton: Skeleton) -> None:
    done = skeleton.drive(3, "init:debug", "report")
    verb, result, room, text = done.answers[1].split()
    report = Report.from_bytes(bytes.fromhex(text))
    sigstruct = Sigstruct.from_bytes((skeleton.folder / "encl.ss").read_bytes())
    golden = (ROOT / "native" / "skeleton" / "MRENCLAVE").read_text(encoding="ascii").strip()
    assert (verb, result, room) == ("report", "0", "432")
    assert report.mrenclave == sigstruct.enclavehash
    assert report.mrenclave == mrenclave(image_steps((skeleton.folder / "encl.bin").read_bytes()))
    assert report.mrenclave.hex() == golden
    assert report.mrsigner == mrsigner(sigstruct.modulus)
    assert (report.attributes & ~1, report.xfrm, report.reportdata) == (6, 3, bytes(64))
    assert report.mac != bytes(16)
    assert done.out[-1] == "succeed to get local report"


@pytest.mark.parametrize("sizes", ["511,432", "512,431"])
def test_a_report_of_wrong_sizes_is_refused(skeleton: Skeleton, sizes: str) -> None:
    done = skeleton.drive(3, "init:", f"report:{sizes}")
    assert done.answers[1].startswith(f"report {-EINVAL} ")
    assert done.err[0].startswith("cannot make a report: target info has 512 bytes (576 with report data) and")


def test_the_process_writes_to_the_stderr_it_was_given_and_the_callers_stay_open(skeleton: Skeleton) -> None:
    reader, writer = os.pipe()
    done = skeleton.drive(
        2, "init:", f"stdio:0,1,{writer}", "fds", "create:a", "exec", "create:b", "exec", "fds", fds=(writer,)
    )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == f"{SUCCESS}\n{SUCCESS}\n"
    assert done.err == []
    assert done.answers[2] == done.answers[-1]


def test_stdio_may_be_permuted(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:", "stdio:2,0,1", "create:prog", "exec")
    assert done == (["init 0", "stdio", "create 0", "exec 0 0"], [GREETING, SUCCESS], [])


def test_a_closed_stdio_descriptor_is_named(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:", "stdio:0,77,2", "create:prog")
    assert done.answers[-1] == "create -9"
    assert done.err == ["cannot create a process: its stdio descriptor 77 is not open: Bad file descriptor"]


def test_wait_timeout_keeps_the_process_for_its_seconds(skeleton: Skeleton) -> None:
    start = time.monotonic()
    assert skeleton.drive(2, "init:", "create:prog wait_timeout 1", "exec").answers[-1] == "exec 0 0"
    assert 1 <= time.monotonic() - start < 10


@pytest.mark.parametrize("sig", [15, 9, 2, 14])
def test_a_signal_reaches_the_process_and_its_exit_value(skeleton: Skeleton, sig: int) -> None:
    done = skeleton.drive(2, "init:", "create:prog wait_timeout 100", f"kill:{sig}", "exec")
    assert done.answers[2:] == ["kill 0", f"exec 0 {128 + sig}"]


def test_what_the_caller_blocks_and_ignores_still_ends_the_process(skeleton: Skeleton) -> None:
    verbs = ["ignore:15", "block:10", "create:a wait_timeout 100", "kill:15", "exec"]
    done = skeleton.drive(2, "init:", *verbs, "create:a wait_timeout 100", "kill:10", "exec")
    assert [answer for answer in done.answers if answer.startswith("exec")] == ["exec 0 143", "exec 0 138"]


def test_minus_one_signals_every_process(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:", "create:a wait_timeout 100", "create:b wait_timeout 100", "kill:15,-1", "exec")
    assert done.answers[-2:] == ["kill 0", "exec 0 143"]
    assert skeleton.drive(2, "init:", "kill:15,-1").answers[-1] == "kill 0"


@pytest.mark.parametrize("pid", [0, 1, 999999, -5])
def test_a_process_of_somebody_else_is_never_signalled(skeleton: Skeleton, pid: int) -> None:
    done = skeleton.drive(2, "init:", f"kill:15,{pid}")
    assert done.answers[-1] == f"kill {-ESRCH}"
    assert done.err == [f"cannot send signal 15 to process {pid}: No such process"]


def test_waiting_twice_is_an_error(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:", "create:prog", "exec", "exec")
    assert done.answers[-2:] == ["exec 0 0", f"exec {-ESRCH} -1"]
    assert done.err[-1].startswith("cannot wait for process")


def test_signals_do_not_disturb_the_wait_or_the_enclave(skeleton: Skeleton) -> None:
    done = skeleton.drive(3, "init:", "alarm:2", "create:prog wait_timeout 1", "exec", "reports:2")
    assert done.answers[-2:] == ["exec 0 0", "reports 40"]


def test_many_threads_create_and_wait_at_once(skeleton: Skeleton) -> None:
    done = skeleton.drive(3, "init:", "threads:16", "fds", "threads:16", "fds")
    assert done.answers[1] == done.answers[3] == "threads 16"
    assert done.answers[2] == done.answers[4]
    assert done.err == [SUCCESS] * 32


def test_many_threads_get_reports_although_there_is_one_tcs(skeleton: Skeleton) -> None:
    assert skeleton.drive(3, "init:", "reports:8").answers[-1] == "reports 160"


@pytest.mark.parametrize(
    ("version", "verb", "answer"),
    [
        (1, "run:prog", f"run {-ENOENT} -1"),
        (2, "create:prog", f"create {-ENOENT}"),
        (2, "exec:1", f"exec {-ENOENT} -1"),
        (2, "kill:15,-1", f"kill {-ENOENT}"),
        (3, "report", f"report {-ENOENT} 432 "),
    ],
)
def test_nothing_works_before_init(skeleton: Skeleton, version: int, verb: str, answer: str) -> None:
    done = skeleton.drive(version, verb)
    assert done == ([answer], [], ["Enclave runtime skeleton uninitialized yet!"])


def test_destroy_closes_everything_and_init_works_again(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "fds", "init:", "destroy", "fds", "init:", "destroy", "destroy", "fds")
    numbers = [answer for answer in done.answers if answer.startswith("fds")]
    assert len(set(numbers[1:])) == 1  # the emulator may keep one of its own from the first time
    assert [answer for answer in done.answers if "fds" not in answer] == ["init 0", "destroy 0"] * 2 + ["destroy 0"]


def test_a_second_init_is_refused(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:", "init:")
    assert done.answers == ["init 0", f"init {-EEXIST}"]
    assert done.err == ["cannot initialise the skeleton: it has been already"]


def test_a_pooled_enclave_is_refused(skeleton: Skeleton) -> None:
    done = skeleton.drive(3, "pooled:")
    assert done.answers == [f"pooled {-ENOSYS}"]
    assert done.err[0].endswith("the skeleton builds its own")


def test_a_virtual_machine_instead_of_an_enclave_is_refused(skeleton: Skeleton) -> None:
    done = skeleton.drive(2, "init:debug backend-kvm kvm-kernel=/boot")
    assert done.answers == [f"init {-ENOSYS}"]
    assert done.err == ["the skeleton hosts an enclave only: there is no backend-kvm"]


@pytest.mark.parametrize("name", ["encl.bin", "encl.ss"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_missing_file_is_named_with_its_place(skeleton: Skeleton, version: int, name: str) -> None:
    (skeleton.folder / name).unlink()
    done = skeleton.drive(version, "init:")
    assert done.answers == [f"init {-ENOENT}"]
    assert done.out == []
    assert done.err == [
        f"open() {name} failed, errno=2. (No such file or directory, in the working directory {skeleton.folder})"
    ]


def test_a_short_signature_is_refused(skeleton: Skeleton) -> None:
    os.truncate(skeleton.folder / "encl.ss", 1807)
    done = skeleton.drive(2, "init:")
    assert done.answers == [f"init {-ENOENT}"]
    assert done.err == ["cannot read encl.ss: it ends after 1807 of 1808 bytes"]


def test_an_image_of_the_wrong_size_is_refused(skeleton: Skeleton) -> None:
    os.truncate(skeleton.folder / "encl.bin", 16384)
    done = skeleton.drive(2, "init:")
    assert done.answers == [f"init {-EINVAL}"]
    assert done.err == ["cannot read encl.bin: an image has whole pages and 17 bytes, found 16384"]


@pytest.mark.parametrize(
    ("name", "place", "step"),
    [
        ("encl.bin", 0x1010, "SGX_INVALID_MEASUREMENT"),
        ("encl.bin", 0x3000, "SGX_INVALID_MEASUREMENT"),
        ("encl.ss", 0, "SGX_INVALID_SIG_STRUCT"),
        ("encl.ss", 20, "SGX_INVALID_SIGNATURE"),
        ("encl.ss", 200, "SGX_INVALID_SIGNATURE"),
        ("encl.ss", 512, "SGX_INVALID_SIG_STRUCT"),
        ("encl.ss", 600, "SGX_INVALID_SIGNATURE"),
        ("encl.ss", 970, "SGX_INVALID_SIGNATURE"),
        ("encl.ss", 1100, "SGX_INVALID_SIGNATURE"),
        ("encl.ss", 1500, "SGX_INVALID_SIGNATURE"),
    ],
)
def test_one_flipped_byte_is_refused_by_einit_with_its_error(
    skeleton: Skeleton, name: str, place: int, step: str
) -> None:
    skeleton.flip(name, place)
    done = skeleton.drive(2, "init:")
    assert done.answers == ["init -1"]
    assert len(done.err) == 1
    assert done.err[0].startswith("EINIT failed rc=")
    assert step in done.err[0]
    assert "runectl inspect encl.ss --image encl.bin" in done.err[0]


@pytest.mark.parametrize(
    ("place", "bit", "sentence"),
    [
        (928, 3, "Invalid attributes value. The unsupported attributes 0x8 are set."),
        (928, 2, "Invalid attributes value. The bits 0x4 must be set."),
        (944, 2, "Invalid attributes mask value. The bits 0x4 must be set."),
        (936, 0, "Invalid xfrm value. The bits 0x3 must be set."),
        (952, 1, "Invalid xfrm mask value. The bits 0x3 must be set."),
        (943, 6, "Unsupported xfrm bits 0x4000000000000000"),
    ],
)
def test_attributes_that_cannot_work_are_refused_before_einit(
    skeleton: Skeleton, place: int, bit: int, sentence: str
) -> None:
    skeleton.flip("encl.ss", place, bit)
    done = skeleton.drive(2, "init:")
    assert done == ([f"init {-EINVAL}"], [], [sentence])


def test_an_enclave_signed_for_production_runs_but_not_with_debug(skeleton: Skeleton) -> None:
    skeleton.sign("-N")
    assert skeleton.drive(2, "init:").answers == ["init 0"]
    done = skeleton.drive(2, "init:debug")
    assert done.answers == [f"init {-EINVAL}"]
    assert done.err[0].startswith("encl.ss prohibits debugging")


@pytest.mark.parametrize("options", [["-n"], ["-n", "-m", "10000"], ["-s", "1000000"], ["-x", "7"]])
def test_what_runectl_lays_out_the_pal_builds_alike(skeleton: Skeleton, options: list[str]) -> None:
    skeleton.sign(*options)
    done = skeleton.drive(3, "init:debug", "report", "destroy", "init:")
    sigstruct = Sigstruct.from_bytes((skeleton.folder / "encl.ss").read_bytes())
    assert done.answers[0] == "init 0"
    assert Report.from_bytes(bytes.fromhex(done.answers[1].split()[3])).mrenclave == sigstruct.enclavehash
    assert done.answers[2:] == ["destroy 0", "init 0"]
    assert ("not protected" in "".join(done.out)) == ("-n" not in options)


def test_an_exception_in_the_enclave_is_told_with_its_vector(skeleton: Skeleton) -> None:
    data = bytearray((skeleton.folder / "encl.bin").read_bytes())
    data[0x1000:0x1002] = b"\x0f\x0b"  # ud2, where the enclave is entered
    (skeleton.folder / "encl.bin").write_bytes(data)
    skeleton.sign()
    done = skeleton.drive(2, "fds", "init:", "fds")
    assert done.answers[1] == f"init {-EIO}"
    assert done.err[0].startswith("the enclave ended with exception 6 at ")


def test_without_a_platform_there_is_a_sentence_and_the_caller_lives(skeleton: Skeleton) -> None:
    if Path("/dev/sgx_enclave").exists():
        pytest.skip("this machine has SGX")
    done = skeleton.drive(2, "init:", "destroy", emulator=False)
    assert done.answers == [f"init {-ENODEV}", "destroy 0"]
    assert done.out == []
    assert done.err[0].startswith("no SGX device available: ")
    assert "(platform: hardware)" in done.err[0]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_only_the_pals_functions_are_exported(built: Path, version: int) -> None:
    library = built / f"liberpal-skeleton-v{version}.so"
    out = subprocess.run(["nm", "-D", "--defined-only", library], stdout=subprocess.PIPE, text=True, check=True).stdout
    names = {line.split()[-1] for line in out.splitlines()}
    expected = {"pal_get_version", "pal_init", "pal_exec", "pal_destroy"}
    expected |= {"pal_create_process", "pal_kill"} if version > 1 else set()
    expected |= {"pal_get_local_report"} if version > 2 else set()
    assert names == expected
