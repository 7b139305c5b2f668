"""What this rune can do, as `rune features` prints it: read from the tables that the code itself uses.

runtime-spec: features.md, features-linux.md. Not on the hot path.
"""

from __future__ import annotations

from inclavare.container.steps import NAMESPACES
from inclavare.linux import mountflags, seccomp
from inclavare.linux.capabilities import NUMBERS
from inclavare.oci.state import SPEC_VERSION
from inclavare.oci.support import unsupported

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
ARCHITECTURES = ("SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32")
UNSAFE_ANNOTATIONS = ("enclave.", "org.systemd.property.")


def document() -> dict[str, object]:
    """Return the document of `rune features`."""
    refused = unsupported()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": [hook for hook in HOOKS if f"hooks.{hook}" not in refused],
        "mountOptions": mountflags.known(),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NUMBERS),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": False,
                "rdma": "linux.resources.rdma" not in refused,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.RETURNS),
                "operators": sorted([*seccomp.NARROW, "SCMP_CMP_MASKED_EQ"]),
                "archs": list(ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": "process.apparmorProfile" not in refused},
            "selinux": {"enabled": "process.selinuxLabel" not in refused},
            "intelRdt": {"enabled": "linux.intelRdt" not in refused},
            "mountExtensions": {"idmap": {"enabled": "mounts[].uidMappings" not in refused}},
            "netDevices": {"enabled": "linux.netDevices" not in refused},
            "memoryPolicy": {"enabled": "linux.memoryPolicy" not in refused},
        },
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }
