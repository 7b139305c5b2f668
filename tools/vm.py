"""Boots virtual machines with systemd and runs tests in them: `make test-vm`.

The image is made of Debian packages once, and again when its recipe changes; a second, small disk holds the checkout.
No directory of the host is visible inside, and what the machine writes is thrown away. KINDS says which control groups
systemd sets up. Machines are emulated (no KVM needed), so their clocks are slow and their kernels complete.

    tools/vm.py [--kind KIND]... [--cache DIR] [PYTEST ARGUMENT...]

The exit status is that of the first machine whose tests failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"
PACKAGES = """
systemd systemd-sysv dbus dbus-user-session libpam-systemd apparmor linux-image-cloud-amd64 initramfs-tools zstd
busybox-static podman python3 python3-pytest python3-pytest-timeout python3-hypothesis gcc libc6-dev iproute2 procps
strace runc
""".split()
KINDS = {
    "v2": "systemd.unified_cgroup_hierarchy=1",
    "v1": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0",
}
DEFAULT_KINDS = ("v2", "v1")
DISK_MIB = 4096
MEMORY_MIB = 1536
BOOT_AND_TESTS_TIMEOUT_S = 3600
NOT_FINISHED = 125

UNIT = """[Unit]
Description=The tests of a checkout
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=file:/dev/console
StandardError=file:/dev/console
ExecStart=/bin/sh -c 'mkdir -p /checkout && mount -o ro LABEL=checkout /checkout && sh /checkout/tests/vm/inside.sh; \
echo "vm: exit $?"; sync; systemctl poweroff --force --force'
"""
ENABLE = """
mkdir -p "$1/etc/systemd/system/default.target.wants"
ln -s ../inclavare-test.service "$1/etc/systemd/system/default.target.wants"
chroot "$1" systemctl --quiet set-default multi-user.target
ln -s /dev/null "$1/etc/systemd/system/serial-getty@ttyS0.service"
chroot "$1" useradd --create-home --uid 1000 user
"""


def main() -> int:
    """Run the tests in each machine that is asked for."""
    parser = argparse.ArgumentParser(description="Run tests in virtual machines with systemd.")
    parser.add_argument("--kind", action="append", choices=KINDS, help=f"default: {' and '.join(DEFAULT_KINDS)}")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / "build/vm", help="where the image is kept")
    options, arguments = parser.parse_known_args()
    if os.geteuid():
        print("Making a root filesystem needs root.", file=sys.stderr)
        return 1
    image = make_image(options.cache)
    statuses = []
    with tempfile.TemporaryDirectory(prefix="inclavare-vm-") as directory:
        checkout = pack_checkout(Path(directory), arguments or ["tests/kernel", "tests/vm"])
        for kind in options.kind or DEFAULT_KINDS:
            print(f"vm: control groups {kind}: {KINDS[kind]}", flush=True)
            statuses.append(boot(image, checkout, kind))
            print(f"vm: control groups {kind}: status {statuses[-1]}", flush=True)
    return next((status for status in statuses if status), 0)


def make_image(cache: Path) -> Path:
    """Give the folder of root.img, vmlinuz and initrd.img, made of Debian packages when it is not there yet."""
    folder = cache / hashlib.sha256(repr((SUITE, PACKAGES, UNIT, ENABLE, DISK_MIB)).encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    print(f"vm: making {folder}", flush=True)
    shutil.rmtree(cache, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="inclavare-image-") as name:
        work = Path(name)
        (work / "inclavare-test.service").write_text(UNIT)
        hooks = [
            f"copy-in {work}/inclavare-test.service /etc/systemd/system",
            ENABLE,
            f"download /vmlinuz {work}/vmlinuz",
            f"download /initrd.img {work}/initrd.img",
        ]
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                *[f"--customize-hook={hook}" for hook in hooks],
                *(SUITE, work / "root"),
            ],
            check=True,
        )
        make_disk(work / "root", work / "root.img", f"{DISK_MIB}M", "root")
        made = cache / "making"
        made.mkdir(parents=True)
        for file in ("root.img", "vmlinuz", "initrd.img"):
            subprocess.run(["cp", "--sparse=always", work / file, made / file], check=True)
        made.rename(folder)
    return folder


def pack_checkout(directory: Path, arguments: list[str]) -> Path:
    """Give a disk with the sources, the built parts, and the arguments of pytest."""
    tree = directory / "checkout"
    for name in ("src", "tests", "tools", "build/bin"):
        shutil.copytree(CHECKOUT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tree)
    (tree / "vm.arguments").write_text(shlex.join(arguments))
    disk = directory / "checkout.img"
    make_disk(tree, disk, "256M", "checkout")
    return disk


def make_disk(tree: Path, disk: Path, size: str, label: str) -> None:
    """Make an ext4 image of a directory."""
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", tree, disk, size], check=True)


def boot(image: Path, checkout: Path, kind: str) -> int:
    """Boot a machine, show what it says, and give its tests' exit status."""
    drives = [(image / "root.img", "snapshot=on"), (checkout, "readonly=on")]
    command = [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2"),
        *("-cpu", "max,-smap"),  # QEMU 7.2 returns from interrupts with the wrong AC flag
        *("-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img")),
        *("-append", f"console=ttyS0 root=LABEL=root rw quiet panic=1 systemd.show_status=0 {KINDS[kind]}"),
        *[word for path, how in drives for word in ("-drive", f"file={path},if=virtio,format=raw,{how}")],
    ]
    status = NOT_FINISHED
    with subprocess.Popen(
        ["timeout", str(BOOT_AND_TESTS_TIMEOUT_S), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as machine:
        said = b""
        while chunk := os.read(machine.stdout.fileno(), 4096) if machine.stdout else b"":
            os.write(1, chunk)
            said = said[-100:] + chunk
            if found := re.search(rb"vm: exit (\d+)\r?\n", said):
                status = int(found[1])
    return status


if __name__ == "__main__":
    sys.exit(main())
