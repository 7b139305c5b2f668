"""Enclave configuration of a container: environment variables and annotations to one value. Pure. Hot path.

An environment variable `ENCLAVE_*` in process.env wins over the annotation `enclave.*`, which wins over the default; an
empty value counts as none, and of several variables of one name the first counts. The variables are parameters, not the
program's environment: every occurrence is removed. What is none of the known values is refused, never replaced.

Annotations are looked up by their exact name. Those of a pod are on all its containers, also on the one that only holds
its namespaces: that one they do not make an enclave. Paths are not looked at here.
"""

from __future__ import annotations

from inclavare.errors import EnclaveError, SpecError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

INTEL_SGX = "intelSgx"
LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic", "off")
RA_TYPES = ("epidUnlinkable", "epidLinkable", "ecdsa")

# member of EnclaveConfig: (environment variable, annotation)
KEYS = {
    "type": ("ENCLAVE_TYPE", "enclave.type"),
    "path": ("ENCLAVE_RUNTIME_PATH", "enclave.runtime.path"),
    "args": ("ENCLAVE_RUNTIME_ARGS", "enclave.runtime.args"),
    "log_level": ("ENCLAVE_RUNTIME_LOGLEVEL", "enclave.runtime.loglevel"),
    "ra_type": ("ENCLAVE_RA_TYPE", "enclave.attestation.ra_type"),
    "ra_epid_spid": ("ENCLAVE_RA_EPID_SPID", "enclave.attestation.ra_epid_spid"),
    "ra_epid_subscription_key": ("ENCLAVE_RA_EPID_SUB_KEY", "enclave.attestation.ra_epid_subscription_key"),
}
# What containerd and CRI-O call the container that is the pod itself.
POD_ITSELF = (("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri-o.ContainerType", "sandbox"))
VARIABLES = {variable: member for member, (variable, _) in KEYS.items()}


class EnclaveConfig:
    """What the container asks for. `args` has blanks where the configuration has commas."""

    __slots__ = ("args", "log_level", "path", "ra_epid_spid", "ra_epid_subscription_key", "ra_type", "type")

    def __init__(self, values: Mapping[str, str]) -> None:
        self.type = values.get("type", "")
        self.path = values.get("path", "")
        self.args = values.get("args", "").replace(",", " ")
        self.log_level = values.get("log_level", "") or "info"
        self.ra_type = values.get("ra_type", "")
        self.ra_epid_spid = values.get("ra_epid_spid", "")
        self.ra_epid_subscription_key = values.get("ra_epid_subscription_key", "")

    def state(self) -> dict[str, object]:
        """Give the `enclave_config` of state.json. The subscription key is a secret and stays out."""
        return {
            "Enclave": {
                "type": self.type,
                "path": self.path,
                "args": self.args,
                "loglevel": self.log_level,
                "ra_type": self.ra_type,
                "ra_epid_spid": self.ra_epid_spid,
                "ra_epid_subscription_key": "",
            }
        }


def read(env: list[str], annotations: Mapping[str, str]) -> tuple[EnclaveConfig | None, list[str]]:
    """Take the configuration out of process.env ("NAME=VALUE") and annotations: (configuration, what is left).

    Without a type it is a plain container: (None, `env` itself, whatever it holds). Raises SpecError for a variable
    without value, EnclaveError for what is missing, unknown or not offered.
    """
    values: dict[str, str] = {}
    rest = []
    for index, entry in enumerate(env):
        variable, equals, value = entry.partition("=")
        member = VARIABLES.get(variable)
        if member is None:
            rest.append(entry)
        elif not equals:
            raise SpecError(f"process.env[{index}]", f"{variable} has no value", f"Write {variable}=VALUE.")
        else:
            values.setdefault(member, value)
    if any(annotations.get(name) == value for name, value in POD_ITSELF):
        annotations = {}
    for member, (_, annotation) in KEYS.items():
        if not values.get(member) and annotation in annotations:
            values[member] = annotations[annotation]
    if not values.get("type"):
        return None, env
    config = EnclaveConfig(values)
    _check(config)
    return config, rest


def choose_platform(requested: str, *, has_sgx: bool) -> str:
    """Give "hardware" or "emulated". `requested` is one of those or "auto" ("" is hardware).

    Raises EnclaveError when it cannot be had: emulation is never a silent fallback.
    """
    if requested not in ("", "hardware", "emulated", "auto"):
        raise EnclaveError(f"unknown SGX platform {requested!r}", "It is hardware, emulated or auto.")
    if requested == "emulated" or (requested == "auto" and not has_sgx):
        return "emulated"
    if not has_sgx:
        raise EnclaveError(
            f"Enclave hardware type ({INTEL_SGX}) is not supported: this host has no SGX device",
            "To run on the software platform, which protects nothing, allow it: `rune --sgx-platform emulated`, "
            'RUNE_SGX_PLATFORM=emulated, or platform = "emulated" under [sgx] in '
            "/etc/inclavare-containers/config.toml.",
        )
    return "hardware"


def _check(config: EnclaveConfig) -> None:
    if config.type != INTEL_SGX:
        raise EnclaveError(f"Enclave hardware type ({config.type}) is not supported", f"It is {INTEL_SGX}.")
    if not config.path:
        raise EnclaveError(
            "enclave runtime path is not configured",
            "Set ENCLAVE_RUNTIME_PATH or the annotation enclave.runtime.path to the host path of a PAL.",
        )
    if config.log_level not in LOG_LEVELS:
        raise EnclaveError(f"unknown enclave log level {config.log_level!r}", f"It is one of {', '.join(LOG_LEVELS)}.")
    if config.ra_type:
        _check_attestation(config)
    elif config.ra_epid_spid or config.ra_epid_subscription_key:
        raise EnclaveError(
            "an EPID service id or subscription key is set, but attestation at start is not supported yet",
            "Leave them out: nothing would use them, and the key is a secret that rune should not keep.",
        )


def _check_attestation(config: EnclaveConfig) -> None:
    known = {name.lower(): name for name in RA_TYPES}
    if config.ra_type.lower() not in known:
        raise EnclaveError(f"unknown attestation type {config.ra_type!r}", f"It is one of {', '.join(RA_TYPES)}.")
    config.ra_type = known[config.ra_type.lower()]
    if config.ra_type.startswith("epid"):
        if not config.ra_epid_spid:
            raise EnclaveError("The enclave.attestation.ra_epid_spid Configuration isn't set!")
        if not config.ra_epid_subscription_key:
            raise EnclaveError("The enclave.attestation.ra_epid_subscription_key Configuration isn't set!")
    raise EnclaveError(
        f"attestation at start (ra_type {config.ra_type}) is not supported yet",
        "Leave ENCLAVE_RA_TYPE and enclave.attestation.ra_type out.",
    )
