"""The software platform's checks: each runs alone, in a host process of its own (host.c, checks_*.c)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from inclavare.sgx.arch import Report, TargetInfo
from inclavare.sgx.platform_protocol import InvalidReportError
from inclavare.sgx.softkeys import SoftKeys
from tests.native.sgx.conftest import SEED

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

UNUSED_SYSCALL = 0x7A7  # nothing has this number, so strace names it
UNARMED = "cannot arm Syscall User Dispatch"

BUILDING = (
    "one_flipped_byte_has_its_error_code",
    "a_flipped_byte_in_a_page_is_an_invalid_measurement",
    "a_page_with_other_permissions_is_an_invalid_measurement",
    "a_page_that_is_not_extended_is_an_invalid_measurement",
    "pages_in_another_order_are_an_invalid_measurement",
    "another_enclave_s_sigstruct_is_an_invalid_measurement",
    "attributes_count_under_their_mask",
    "intel_and_debug_sigstructs_have_a_valid_header",
    "the_provision_key_needs_the_provision_device",
    "the_einittoken_key_is_refused",
    "ecreate_refuses_a_wrong_secs",
    "ioctls_out_of_order_are_refused",
    "add_pages_refuses_wrong_arguments",
    "eadd_resets_the_tcs_before_it_is_measured",
    "eadd_refuses_a_wrong_tcs",
    "mmap_gives_no_more_than_the_page_s_permissions",
    "the_device_can_be_mapped_before_create_to_find_room",
    "pages_added_under_a_mapping_get_its_permissions",
    "only_sgx_devices_can_be_opened",
    "a_duplicated_descriptor_names_the_same_enclave",
)
ENTERING = (
    "a_call_returns_its_answer",
    "an_enclu_instruction_of_the_host_enters_too",
    "segment_bases_are_the_tcs_s_inside_and_the_host_s_outside",
    "vector_registers_pass_through_entry_and_exit",
    "a_user_handler_decides_what_comes_next",
    "wrong_arguments_are_einval",
    "eenter_of_a_page_that_is_no_tcs_is_a_page_fault",
    "eenter_of_an_absent_page_is_a_page_fault",
    "eenter_outside_every_enclave_is_a_page_fault",
    "eenter_of_a_misaligned_tcs_is_a_general_protection_fault",
    "eenter_before_einit_is_a_general_protection_fault",
    "eresume_at_cssa_zero_is_a_general_protection_fault",
    "eenter_without_a_free_ssa_frame_is_a_general_protection_fault",
    "an_ssa_outside_elrange_is_a_page_fault",
    "eresume_of_a_damaged_xsave_header_is_a_general_protection_fault",
    "eresume_to_a_non_canonical_address_is_a_general_protection_fault",
    "an_enclave_outlives_its_file_while_it_is_mapped",
    "closed_and_unmapped_enclaves_leave_room_for_others",
)
EXCEPTIONS = (
    "a_division_by_zero_is_caught",
    "an_undefined_instruction_is_caught",
    "a_privileged_instruction_is_caught",
    "a_read_of_nothing_is_caught_with_its_address",
    "a_write_to_code_is_caught",
    "a_read_of_a_tcs_is_caught",
    "a_read_of_an_absent_page_is_caught",
    "page_faults_are_not_reported_without_exinfo",
    "a_breakpoint_is_a_signal_to_the_host",
    "without_the_vdso_entry_exceptions_are_signals_at_the_aep",
)
REPORTS_AND_KEYS = (
    "a_report_says_what_was_signed",
    "kss_identities_are_in_the_report",
    "another_enclave_can_check_a_report_made_for_it",
    "a_seal_key_is_stable_and_depends_on_its_keyid",
    "seal_keys_belong_to_the_enclave_or_to_its_signer",
    "seal_keys_of_lower_versions_only",
    "kss_policies_need_kss_and_count",
    "siblings_share_the_keys_that_do_not_depend_on_their_difference",
    "provisioning_keys_need_the_attribute",
    "wrong_operands_of_enclu_fault",
)
SIGNALS = (
    "registers_survive_a_storm_of_signals",
    "calls_survive_a_storm_of_signals",
    "calls_with_exceptions_survive_a_storm_of_signals",
    "real_enclu_survives_a_storm_of_signals",
    "a_handler_may_enter_the_interrupted_tcs_and_others",
    "segment_bases_the_enclave_set_itself_survive_exits",
    "direction_and_alignment_flags_survive_exits",
    "handlers_run_on_the_host_s_stack",
    "handlers_run_on_the_alternate_stack_they_ask_for",
    "handlers_have_their_mask_but_faults_stay_free",
    "blocking_all_signals_does_not_stop_the_platform",
    "handlers_set_before_the_emulator_are_kept",
    "once_handlers_run_once_and_ignored_signals_never",
    "a_sent_fault_signal_is_an_interruption",
    "the_host_s_own_faults_go_to_its_handler",
    "a_handler_may_jump_out_of_the_enclave",
)
THREADS_AND_PROCESSES = (
    "as_many_threads_as_tcs_run_at_once",
    "a_busy_tcs_cannot_be_entered",
    "threads_may_come_and_go",
    "a_forked_child_shares_the_enclave",
    "a_tcs_is_busy_for_other_processes_too",
    "an_enclave_made_by_a_child_is_its_own",
)
SYSTEM_CALLS = (
    "a_syscall_is_an_undefined_instruction",
    "an_int80_is_an_undefined_instruction",
    "a_syscall_instruction_of_the_host_is_caught_in_the_enclave",
    "the_emulator_s_own_syscall_instruction_is_caught_too",
    "new_threads_are_armed",
    "a_forked_child_is_armed",
    "a_vforked_child_is_armed_and_so_is_its_parent",
    "a_thread_with_an_earlier_thread_s_id_is_armed",
    "a_child_with_its_parent_s_pid_is_armed",
)
ARMING_FAILS = (
    "an_enclave_is_not_entered_when_arming_is_refused",
    "an_enclave_is_not_entered_when_arming_has_no_effect",
    "an_armed_process_may_still_be_unable_to_arm_a_thread",
)
EVERYWHERE = (*ENTERING, *EXCEPTIONS, *REPORTS_AND_KEYS, *SIGNALS, *THREADS_AND_PROCESSES, *SYSTEM_CALLS)
# At base 0 the storms and the long loops would say nothing new.
AT_BASE_ZERO = (
    *SYSTEM_CALLS,
    *EXCEPTIONS,
    "a_call_returns_its_answer",
    "segment_bases_are_the_tcs_s_inside_and_the_host_s_outside",
    "calls_with_exceptions_survive_a_storm_of_signals",
    "a_forked_child_shares_the_enclave",
    "as_many_threads_as_tcs_run_at_once",
)
# The hardware backend's entry: exceptions reach it as signals, and it makes results of them.
NOT_OF_THE_ENTRY = {"a_call_returns_its_answer", "closed_and_unmapped_enclaves_leave_room_for_others"}
HARDWARE_ENTRY = (
    *(check for check in ENTERING if check not in NOT_OF_THE_ENTRY),
    *(check for check in EXCEPTIONS if not check.startswith("without_the_vdso")),
    *REPORTS_AND_KEYS,
    "a_syscall_is_an_undefined_instruction",
    "calls_with_exceptions_survive_a_storm_of_signals",
    "segment_bases_the_enclave_set_itself_survive_exits",
)


NEEDS_ROOT = {"a_thread_with_an_earlier_thread_s_id_is_armed", "a_child_with_its_parent_s_pid_is_armed"}


@pytest.fixture(autouse=True)
def _skip_what_needs_root(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("check") in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("making PID namespaces needs root")


def expect_ok(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].startswith("ok ")


@pytest.mark.parametrize("check", BUILDING)
def test_building(run_host: Run, check: str) -> None:
    expect_ok(run_host(check))


@pytest.mark.parametrize("check", EVERYWHERE)
def test_running(run_host: Run, check: str) -> None:
    expect_ok(run_host(check))


@pytest.mark.parametrize("check", AT_BASE_ZERO)
def test_running_at_base_zero(run_host: Run, check: str) -> None:
    expect_ok(run_host("--zero", check))


@pytest.mark.parametrize("check", HARDWARE_ENTRY)
def test_the_hardware_backend_s_own_enclu_and_fault_handler(run_host: Run, check: str) -> None:
    result = run_host("--hardware", check)
    if "the kernel has the vDSO's entry" in result.stderr:
        pytest.skip("the hardware backend uses the vDSO's entry on this kernel")
    expect_ok(result)


@pytest.mark.parametrize(
    "check", ["the_host_s_own_fault_kills_it_without_a_handler", "a_fault_of_enclu_in_the_host_is_a_signal"]
)
def test_unhandled_faults_of_the_host_kill_it(run_host: Run, check: str) -> None:
    assert run_host(check).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("place", [(), ("--zero",)])
@pytest.mark.parametrize("check", ARMING_FAILS)
def test_without_dispatch_the_process_dies_with_a_sentence(run_host: Run, check: str, place: tuple[str, ...]) -> None:
    result = run_host(*place, check)
    assert result.returncode == -signal.SIGABRT
    assert UNARMED in result.stderr


def test_without_dispatch_the_platform_does_not_start(run_host: Run) -> None:
    result = run_host("--refuse", "a_call_returns_its_answer")
    assert result.returncode == 1
    assert "sgxemu_init: Function not implemented" in result.stderr


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("place", [(), ("--zero",)])
@pytest.mark.parametrize("check", SYSTEM_CALLS)
def test_strace_sees_no_system_call_of_the_enclave(
    run_host: Run, tmp_path: Path, check: str, place: tuple[str, ...]
) -> None:
    trace = tmp_path / "trace"
    prefix = ("env", f"SGX_TEST_SYSCALL={UNUSED_SYSCALL:#x}", "strace", "-f", "-o", str(trace))
    expect_ok(run_host(*place, check, prefix=prefix))
    text = trace.read_text()
    assert "SYS_USER_DISPATCH" in text  # the enclave's calls came as signals ...
    entered = [line for line in text.splitlines() if re.search(rf"\bsyscall_{UNUSED_SYSCALL:#x}\(", line)]
    assert entered == []  # ... and never as system calls


def test_strace_would_see_such_a_system_call(tmp_path: Path, run_host: Run) -> None:
    """The control: the same number, issued outside, does appear."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    script = f"import ctypes; ctypes.CDLL(None).syscall({UNUSED_SYSCALL})"
    run_host(prefix=("strace", "-f", "-o", str(trace), "/usr/bin/python3", "-c", script))
    assert f"syscall_{UNUSED_SYSCALL:#x}(" in trace.read_text()


# ---- The documented derivation of keys, repeated ----


def secret(label: str, size: int) -> bytes:
    return hashlib.sha256(SEED + label.encode()).digest()[:size]


def cmac(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


KEY_DEPENDENCIES = struct.Struct("<HHHHH2xII4xQQQQ16s16s16s16s32s32s32s64s16s")


def test_another_program_that_knows_the_seed_derives_the_same_keys(run_host: Run) -> None:
    result = run_host("print_a_report")
    assert result.returncode == 0
    report_hex, seal_hex, _ = result.stdout.splitlines()
    report = bytes.fromhex(report_hex)
    cpusvn, keyid = report[:16], report[384:416]
    (misc,) = struct.unpack_from("<I", report, 16)
    attributes, xfrm = struct.unpack_from("<QQ", report, 48)
    mrenclave, mrsigner, configid = report[64:96], report[128:160], report[192:256]
    prodid, _, configsvn = struct.unpack_from("<HHH", report, 256)
    root = secret("sgxemu root key", 16)
    epoch, fuses = secret("sgxemu owner epoch", 16), secret("sgxemu seal fuses", 16)
    none16, none32, none64 = bytes(16), bytes(32), bytes(64)

    inputs = KEY_DEPENDENCIES.pack(
        3, 0, 0, 0, configsvn, misc, 0, attributes, xfrm, 0, 0, epoch, cpusvn, none16, none16, mrenclave, none32,
        keyid, configid, fuses,
    )  # fmt: skip
    assert len(inputs) == 296
    assert keyid == secret("sgxemu report keyid", 32)
    assert cpusvn == b"\1" * 16
    assert cmac(cmac(root, inputs), report[:384]) == report[416:]

    everything = (1 << 64) - 1
    inputs = KEY_DEPENDENCIES.pack(
        4, 2, prodid, 2, 0, misc, 0, attributes, xfrm, everything, everything, epoch, none16, none16, none16, none32,
        mrsigner, b"\x77" + bytes(31), none64, fuses,
    )  # fmt: skip
    assert cmac(root, inputs) == bytes.fromhex(seal_hex)


def test_the_python_side_of_the_platform_accepts_the_emulators_report(run_host: Run) -> None:
    report = Report.from_bytes(bytes.fromhex(run_host("print_a_report").stdout.splitlines()[0]))
    itself = TargetInfo(
        mrenclave=report.mrenclave,
        attributes=report.attributes,
        xfrm=report.xfrm,
        configsvn=report.configsvn,
        miscselect=report.miscselect,
        configid=report.configid,
    )
    SoftKeys(SEED).check_report(report, itself)
    with pytest.raises(InvalidReportError):
        SoftKeys(SEED).check_report(report, replace(itself, mrenclave=bytes(32)))
