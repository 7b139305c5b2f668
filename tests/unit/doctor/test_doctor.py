"""runectl doctor on hosts that tests have built: each lack is found, named, and told what to do about."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest

from inclavare.aesm.messages import GetSupportedAttKeyIDNumResponse
from inclavare.cli.runectl import main
from inclavare.doctor.cpu import Sgx, decode, examine_cpu, read_sgx
from inclavare.doctor.host import Host
from tests.unit.aesm.scripted import ScriptedDaemon
from tests.unit.doctor.conftest import HostTree

EMULATED = ("--platform", "emulated")
# CPUID of a server with two EPC sections; the first is the example of Intel's manual.
SERVER = {
    (0, 0): (0x1B, 0, 0, 0),
    (7, 0): (0, 1 << 2, 1 << 30, 0),
    (0x12, 0): (3, 0, 0, 0x241F),
    (0x12, 2): (0x70200001, 0, 0x05D80001, 0),
    (0x12, 3): (0x1, 0x10, 0x1, 0x4),
}


def test_a_host_for_emulation_has_containers_and_enclaves(host: HostTree) -> None:
    code, told = host.doctor(*EMULATED)
    assert code == 0
    assert told["complete"]
    assert told["capabilities"] == {"containers": True, "enclaves": True, "attestation": False}
    assert told["needed"] == ["containers", "enclaves"]


def test_a_host_without_sgx_and_setting_lacks_enclaves(host: HostTree) -> None:
    code, told = host.doctor()
    assert (code, told["complete"]) == (3, False)
    assert told["capabilities"] == {"containers": True, "enclaves": False, "attestation": False}
    assert host.doctor("--need", "containers")[0] == 0


def test_people_read_findings_advice_and_a_verdict(host: HostTree) -> None:
    code, text = host.text()
    assert code == 3
    assert "  ok       version: 6.1.0-18-amd64 (5.12 or later)\n" in text
    assert "  LACK     enclave device: none that can be used: /dev/sgx_enclave, /dev/sgx/enclave, /dev/isgx\n" in text
    assert "           -> Use Linux 5.11 or later with CONFIG_X86_SGX" in text
    assert text.endswith("containers:  yes\nenclaves:    no: enclave device\nattestation: no: AESM daemon\n")


@pytest.mark.parametrize(
    ("path", "text", "subject", "found"),
    [
        ("proc/sys/kernel/osrelease", "5.10.0-28", "version", "5.10.0-28"),
        ("proc/filesystems", "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs", "filesystems", "missing: mqueue"),
        ("proc/mounts", "proc /proc proc rw 0 0", "control groups", "not mounted"),
        ("proc/sys/kernel/seccomp/actions_avail", "", "seccomp", "not there"),
        ("proc/sys/vm/memfd_noexec", "2", "vm.memfd_noexec", "no program may run from sealed memory"),
    ],
)
def test_what_the_kernel_lacks_takes_containers_and_enclaves_away(
    host: HostTree, path: str, text: str, subject: str, found: str
) -> None:
    host.write(path, text)
    finding = host.finding(subject, *EMULATED)
    assert finding["state"] == "lack"
    assert found in finding["found"]
    assert finding["advice"]
    code, told = host.doctor(*EMULATED)
    assert code == 3
    assert told["capabilities"] == {"containers": False, "enclaves": False, "attestation": False}


def test_a_missing_namespace_is_named(host: HostTree) -> None:
    (host.root / "proc/self/ns/uts").unlink()
    assert host.finding("namespaces")["found"] == "missing: uts"


@pytest.mark.parametrize(
    ("path", "text", "subject"),
    [
        ("proc/sys/user/max_user_namespaces", "0", "user namespaces"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0", "user namespaces"),
        ("proc/filesystems", "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\nnodev\tmqueue", "filesystems"),
        ("proc/sys/kernel/seccomp/actions_avail", "allow", "seccomp"),
        ("proc/sys/kernel/osrelease", "", "version"),
    ],
)
def test_what_is_odd_but_not_needed_is_a_warning(host: HostTree, path: str, text: str, subject: str) -> None:
    host.write(path, text)
    assert host.finding(subject, *EMULATED)["state"] == "warning"
    assert host.doctor(*EMULATED)[0] == 0


@pytest.mark.parametrize(
    ("mounts", "layout"),
    [
        ("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0", "v1"),
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", "v2"),
        ("c /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\nc /sys/fs/cgroup/unified cgroup2 rw 0 0", "hybrid"),
    ],
)
def test_the_layout_of_control_groups_is_told(host: HostTree, mounts: str, layout: str) -> None:
    host.write("proc/mounts", mounts)
    assert host.finding("control groups")["found"] == layout


def test_emulation_needs_fsgsbase(host: HostTree) -> None:
    assert host.finding("FSGSBASE", *EMULATED)["state"] == "ok"
    host.write("proc/cpuinfo", "flags\t\t: fpu xsave\n")
    assert host.finding("FSGSBASE", *EMULATED)["needed_for"] == ["enclaves"]
    assert host.doctor(*EMULATED)[0] == 3


@pytest.mark.parametrize(
    ("config", "state", "found"),
    [
        (None, "ok", "platform hardware, the default"),
        ('[sgx]\nplatform = "emulated"\n', "note", "platform emulated"),
        ('[sgx]\nplatform = "auto"\n', "note", "platform auto"),
    ],
)
def test_the_setting_of_the_host_is_told(host: HostTree, config: str | None, state: str, found: str) -> None:
    if config is not None:
        host.write("etc/inclavare-containers/config.toml", config)
    finding = host.finding("setting")
    assert (finding["state"], finding["found"]) == (state, found)
    assert host.doctor()[1]["capabilities"]["enclaves"] == (config is not None)


def test_a_setting_that_rune_refuses_is_a_lack(host: HostTree) -> None:
    host.write("etc/inclavare-containers/config.toml", "[sgx]\nplatfrom = 1\n")
    finding = host.finding("/etc/inclavare-containers/config.toml", *EMULATED)
    assert finding["state"] == "lack"
    assert "unknown key sgx.platfrom" in finding["found"]


def test_the_seed_is_for_nobody_else(host: HostTree) -> None:
    subject = "seed of the software platform"
    assert host.finding(subject, *EMULATED)["state"] == "note"
    seed = host.write("var/lib/inclavare/platform/seed", "x" * 32)
    seed.chmod(0o640)
    assert host.finding(subject, *EMULATED)["state"] == "warning"
    seed.chmod(0o600)
    assert host.finding(subject, *EMULATED)["state"] == "ok"


def test_a_platform_without_a_certificate_gives_no_quotes(host: HostTree) -> None:
    host.write("var/lib/inclavare/platform/seed", "x" * 32)
    subject = "certificate of the software platform"
    assert "no quotes" in host.finding(subject, *EMULATED)["found"]
    host.write("var/lib/inclavare/platform/pck.pem", "")
    assert subject not in {entry["subject"] for entry in host.doctor(*EMULATED)[1]["findings"]}


def test_a_file_in_the_place_of_a_device_is_no_device(host: HostTree) -> None:
    host.write("dev/sgx_enclave", "")
    assert host.finding("/dev/sgx_enclave")["found"] == "no device node"
    assert host.finding("enclave device")["state"] == "lack"


def test_the_processors_leaves_are_decoded() -> None:
    sgx = decode(lambda leaf, subleaf: SERVER.get((leaf, subleaf), (0, 0, 0, 0)))
    assert sgx == Sgx(
        present=True,
        enabled=True,
        flexible_launch_control=True,
        sgx2=True,
        epc=((0x70200000, 0x05D80000), (0x10_0000_0000, 0x4_0000_0000)),
    )


def test_the_processors_leaves_come_from_the_drivers_device(host: HostTree) -> None:
    device = host.write("dev/cpu/0/cpuid", "")
    with device.open("r+b") as file:
        for (leaf, subleaf), registers in SERVER.items():
            file.seek(subleaf << 32 | leaf)
            file.write(struct.pack("<4I", *registers))
        file.truncate(0x20 << 32)
    assert host.finding("SGX")["found"] == "SGX2"
    assert host.finding("enclave memory (EPC)")["found"] == "93.5 MiB at 0x70200000, 16384 MiB at 0x1000000000"


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({(7, 0): (0, 0, 0, 0)}, "note", "has none"),
        ({(0, 0): (6, 0, 0, 0)}, "note", "has none"),
        ({(0x12, 2): (0, 0, 0, 0)}, "warning", "switched off by the firmware"),
        ({(0x12, 0): (0, 0, 0, 0)}, "warning", "switched off by the firmware"),
    ],
)
def test_a_processor_without_usable_sgx_is_told(
    tmp_path: Path, changes: dict[tuple[int, int], tuple[int, int, int, int]], state: str, words: str
) -> None:
    leaves = SERVER | changes
    host = Host(str(tmp_path))
    first = examine_cpu(host, read_sgx(host, lambda leaf, subleaf: leaves.get((leaf, subleaf), (0, 0, 0, 0))))[0]
    assert first.state == state
    assert words in first.found


def test_without_flexible_launch_control_the_way_of_tokens_is_told() -> None:
    leaves = SERVER | {(7, 0): (0, 4, 0, 0)}
    findings = examine_cpu(Host(), decode(lambda leaf, subleaf: leaves.get((leaf, subleaf), (0, 0, 0, 0))))
    assert "gen-token" in findings[1].advice


def test_where_only_cpuinfo_can_be_read_its_flags_count(host: HostTree) -> None:
    host.write("proc/cpuinfo", "flags\t\t: fpu sgx sgx_lc\n")
    host.write("sys/devices/system/node/node0/x86/sgx_total_bytes", "1048576")
    host.write("sys/devices/system/node/node1/x86/sgx_total_bytes", "2097152")
    assert host.finding("SGX")["found"] == "SGX1"
    assert host.finding("flexible launch control")["state"] == "ok"
    assert host.finding("enclave memory (EPC)")["found"] == "3 MiB"


def test_the_instruction_of_this_processor_agrees_with_cpuinfo() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert read_sgx(Host()).present >= ("sgx" in flags)


def test_a_daemon_that_answers_gives_attestation(host: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.root / "run/aesmd").mkdir(parents=True, mode=0o755)
    monkeypatch.chdir(host.root)
    path = host.root / "run/aesmd/aesm.socket"
    daemon = ScriptedDaemon(str(path), GetSupportedAttKeyIDNumResponse(error_code=0, att_key_id_num=1))
    path.chmod(0o777)
    code, told = host.doctor(*EMULATED, "--need", "attestation")
    daemon.close()
    assert code == 0
    assert told["capabilities"]["attestation"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (GetSupportedAttKeyIDNumResponse(error_code=30), "AESM error 30 (AESM_SERVICE_UNAVAILABLE)"),
        (GetSupportedAttKeyIDNumResponse(error_code=0, att_key_id_num=0), "has no attestation key"),
    ],
)
def test_a_daemon_without_keys_is_a_lack(host: HostTree, answer: GetSupportedAttKeyIDNumResponse, words: str) -> None:
    (host.root / "run/aesmd").mkdir(parents=True)
    daemon = ScriptedDaemon(str(host.root / "run/aesmd/aesm.socket"), answer)
    _, told = host.doctor(*EMULATED)
    daemon.close()
    (finding,) = [entry for entry in told["findings"] if entry["subject"] == "AESM daemon"]
    assert words in finding["found"]
    assert finding["needed_for"] == ["attestation"]


def test_a_socket_that_not_everybody_may_use_is_a_warning(host: HostTree) -> None:
    (host.root / "run/aesmd").mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(host.root / "run/aesmd/aesm.socket"))
    (host.root / "run/aesmd/aesm.socket").chmod(0o600)
    assert host.finding("/run/aesmd")["found"] == "mode 0700: not for every user"
    assert host.finding("/run/aesmd/aesm.socket")["advice"] == "chmod 777 /run/aesmd/aesm.socket"
    assert "Connection refused" in host.finding("AESM daemon")["found"]


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [
        ('{\n  // the service\n  "pccs_url": "https://pccs.test/v4/" // here\n}', "ok", "https://pccs.test/v4/"),
        (
            '{"pccs_url": "https://localhost:8081/sgx/", "use_secure_cert": false}',
            "warning",
            "https://localhost:8081/sgx/, its certificate unchecked",
        ),
        ("# old\nPCCS_URL=https://pccs.test/v3/\nUSE_SECURE_CERT=TRUE\n", "ok", "https://pccs.test/v3/"),
        ("PCCS_URL=https://pccs.test/v3/\nUSE_SECURE_CERT=FALSE", "warning", "https://pccs.test/v3/, its"),
        ("{}", "warning", "names none"),
        ("[]", "warning", "names none"),
        (None, "note", "is not there"),
    ],
)
def test_the_pccs_is_read_from_either_form_of_its_file(
    host: HostTree, text: str | None, state: str, found: str
) -> None:
    if text is not None:
        host.write("etc/sgx_default_qcnl.conf", text)
    finding = host.finding("PCCS")
    assert finding["state"] == state
    assert found in finding["found"]


ENGINE_FILES = {
    "docker": ("usr/bin/dockerd", "etc/docker/daemon.json"),
    "containerd": ("usr/bin/containerd", "etc/containerd/config.toml"),
    "podman": ("usr/bin/podman", "etc/containers/containers.conf.d/50-rune.conf"),
}
CRI = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rune]\n'
TYPE = 'runtime_type = "io.containerd.rune.v2"\n'
SHIM = "/usr/local/bin/containerd-shim-rune-v2"


@pytest.mark.parametrize(
    ("engine", "text", "state", "found"),
    [
        ("docker", None, "note", "/etc/docker/daemon.json is not there"),
        ("docker", "{}", "note", "does not know rune"),
        ("docker", "{", "warning", "is no JSON"),
        ("docker", '{"runtimes": [1]}', "note", "does not know rune"),
        ("docker", '{"runtimes": {"rune": {"path": "/opt/rune"}}}', "ok", "runtime rune: /opt/rune"),
        ("docker", '{"runtimes": {"sgx": {"path": "/opt/rune"}}}', "ok", "runtime sgx: /opt/rune"),
        ("docker", '{"runtimes": {"rune": {"path": "/gone/rune"}}}', "warning", "/gone/rune is not there"),
        ("containerd", None, "note", "is not there"),
        ("containerd", "version = ", "warning", "is no TOML"),
        ("containerd", "version = 2\nplugins = 1\n", "note", "does not know rune"),
        ("containerd", CRI + TYPE, "ok", f"runtime rune: {SHIM}"),
        ("containerd", CRI + TYPE + "runtime_path = '/gone'\n", "warning", "/gone is not there"),
        ("containerd", "imports = ['conf.d/*']\n" + CRI + TYPE, "ok", f"runtime rune: {SHIM}"),
        ("containerd", "imports = ['/etc/containerd/other.d/*']\n", "ok", f"runtime rune: {SHIM}"),
        (
            "containerd",
            "imports = ['other.d/*']\n" + CRI + TYPE,
            "warning",
            "ignored by containerd before 2.0: /etc/contai",
        ),
        ("docker", '{"runtimes": {"rune": {"runtimeType": "io.containerd.rune.v2"}}}', "ok", f"runtime rune: {SHIM}"),
        ("docker", f'{{"runtimes": {{"sgx": {{"runtimeType": "{SHIM}"}}}}}}', "ok", f"runtime sgx: {SHIM}"),
        (
            "docker",
            f'{{"runtimes": {{"sgx": {{"runtimeType": "/gone{SHIM}"}}}}}}',
            "warning",
            f"/gone{SHIM} is not there",
        ),
        ("containerd", CRI + 'options = { BinaryName = "/opt/rune" }\n', "ok", "runtime rune: /opt/rune"),
        ("podman", None, "note", "does not know rune"),
        ("podman", "[engine.runtimes]\nrune = ['/gone', '/opt/rune']\n", "ok", "runtime rune: /opt/rune"),
        ("podman", "[engine.runtimes]\nrune = []\n", "warning", "is not there"),
        ("podman", "[engine", "warning", "is no TOML"),
    ],
)
def test_what_an_engine_knows_of_rune_is_told(
    host: HostTree, engine: str, text: str | None, state: str, found: str
) -> None:
    program, config = ENGINE_FILES[engine]
    host.write(program, "")
    host.write("opt/rune", "").chmod(0o755)
    host.write(SHIM.lstrip("/"), "").chmod(0o755)
    host.write("etc/containerd/conf.d/broken.toml", "[")
    host.write("etc/containerd/other.d/other.toml", CRI + TYPE)
    if text is not None:
        host.write(config, text)
    finding = host.finding(engine)
    assert finding["state"] == state
    assert found in finding["found"]


def test_an_engine_whose_shim_is_not_installed_is_warned_of(host: HostTree) -> None:
    host.write("usr/bin/containerd", "")
    host.write("etc/containerd/config.toml", CRI + TYPE)
    finding = host.finding("containerd")
    assert (finding["state"], finding["found"]) == ("warning", f"runtime rune: {SHIM} is not there, or no program")


def test_without_engines_that_is_said(host: HostTree) -> None:
    assert "neither" in host.finding("engines")["found"]


def test_this_very_host_can_be_examined(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["findings"]
