"""What a PCK certificate says about its platform: the SGX extension (OID 1.2.840.113741.1.13.1).

A small reader of DER, which takes only what the extension is made of, in definite lengths as short as possible. Follows
"Intel SGX PCK Certificate and Certificate Revocation List Profile Specification", section 1.3.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inclavare.errors import AttestationError

_BOOLEAN, _INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30
_PREFIX = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1
_PPID, _TCB, _PCE_ID, _FMSPC, _SGX_TYPE, _PLATFORM, _CONFIGURATION = range(1, 8)
_COMPONENTS = 16
_PCESVN, _CPUSVN = 17, 18
_NAMES = {1: "ppid", 2: "tcb", 3: "pceid", 4: "fmspc", 5: "sgx_type", 6: "platform_instance_id", 7: "configuration"}
_MANDATORY = {_PPID, _TCB, _PCE_ID, _FMSPC, _SGX_TYPE}
_SGX_TYPES = 3  # standard, scalable, scalable with integrity


@dataclass(frozen=True, slots=True)
class PckExtension:
    """The platform's identity and TCB; byte fields as in the certificate."""

    ppid: bytes
    components: tuple[int, ...]  # the SVNs of the sixteen components
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: int  # 0 standard, 1 scalable, 2 scalable with integrity
    platform_instance_id: bytes | None = None  # this and the rest: platforms of several packages only
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None


def parse_pck_extension(data: bytes, path: str = "sgx_extension") -> PckExtension:
    """Return what the DER `data` of the extension's value say. Raises AttestationError under `path`."""
    entries = _entries(_outermost(data, path), path, _PREFIX)
    missing = _MANDATORY - entries.keys()
    if missing:
        raise AttestationError(f"{path}.{_NAMES[min(missing)]}", "missing")
    unknown = entries.keys() - _NAMES.keys()
    if unknown or (_PLATFORM in entries) != (_CONFIGURATION in entries):
        raise AttestationError(path, f"expected the entries 1 to 5 or 1 to 7, found {_listed(entries)}")
    tcb = _entries(_value(entries[_TCB], _SEQUENCE, f"{path}.tcb"), f"{path}.tcb", _PREFIX + b"\2")
    if tcb.keys() != set(range(1, _CPUSVN + 1)):
        raise AttestationError(f"{path}.tcb", f"expected the entries 1 to {_CPUSVN}, found {_listed(tcb)}")
    configuration: tuple[bool, ...] | tuple[None, ...] = (None, None, None)
    platform = None
    if _PLATFORM in entries:
        platform = _octets(entries[_PLATFORM], 16, f"{path}.platform_instance_id")
        configuration = _configuration(entries[_CONFIGURATION], f"{path}.configuration")
    return PckExtension(
        _octets(entries[_PPID], 16, f"{path}.ppid"),
        tuple(_integer(tcb[index], 0xFF, f"{path}.tcb[{index}]") for index in range(1, _COMPONENTS + 1)),
        _integer(tcb[_PCESVN], 0xFFFF, f"{path}.tcb.pcesvn"),
        _octets(tcb[_CPUSVN], 16, f"{path}.tcb.cpusvn"),
        _octets(entries[_PCE_ID], 2, f"{path}.pceid"),
        _octets(entries[_FMSPC], 6, f"{path}.fmspc"),
        _number(_value(entries[_SGX_TYPE], _ENUMERATED, f"{path}.sgx_type"), _SGX_TYPES - 1, f"{path}.sgx_type"),
        platform,
        *configuration,
    )


def _configuration(entry: tuple[int, bytes], path: str) -> tuple[bool, ...]:
    flags = _entries(_value(entry, _SEQUENCE, path), path, _PREFIX + b"\7")
    if flags.keys() != {1, 2, 3}:
        raise AttestationError(path, f"expected the entries 1 to 3, found {_listed(flags)}")
    return tuple(_boolean(flags[index], f"{path}[{index}]") for index in (1, 2, 3))


def _listed(entries: dict[int, tuple[int, bytes]]) -> str:
    return ", ".join(map(str, sorted(entries))) or "none"


def _entries(data: bytes, path: str, prefix: bytes) -> dict[int, tuple[int, bytes]]:
    """Return the values in a SEQUENCE OF SEQUENCE {OID, value}, each as (tag, content), by the OID's last number."""
    entries: dict[int, tuple[int, bytes]] = {}
    for item in _items(data, path):
        pair = list(_items(_value(item, _SEQUENCE, path), path))
        if len(pair) != 2:
            raise AttestationError(path, f"expected pairs of OID and value, found {len(pair)} elements")
        oid = _value(pair[0], _OID, path)
        number = oid[-1] if oid[:-1] == prefix else 0
        if not 0 < number < 0x80:
            raise AttestationError(path, f"expected an OID below {prefix.hex()}, found {oid.hex()} (DER)")
        if number in entries:
            raise AttestationError(path, f"expected each entry once, found {number} twice")
        entries[number] = pair[1]
    return entries


def _outermost(data: bytes, path: str) -> bytes:
    items = list(_items(data, path))
    if len(items) != 1:
        raise AttestationError(path, f"expected one SEQUENCE, found {len(items)} elements")
    return _value(items[0], _SEQUENCE, path)


def _items(data: bytes, path: str) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element."""
    offset = 0
    while offset < len(data):
        if offset + 2 > len(data):
            raise AttestationError(path, "expected tag and length, found the end")
        tag, size = data[offset], data[offset + 1]
        offset += 2
        if size >= 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[offset : offset + count], "big")
            # DER has one form of each length: neither the indefinite one nor more bytes than are needed.
            if not 1 <= count <= 4 or size < 0x80 or size < 1 << 8 * (count - 1):
                raise AttestationError(path, f"expected a length as DER writes it, found {count} bytes for {size}")
            offset += count
        if size > len(data) - offset:
            raise AttestationError(path, f"expected {size} bytes, found {len(data) - offset}")
        yield tag, data[offset : offset + size]
        offset += size


def _value(item: tuple[int, bytes], tag: int, path: str) -> bytes:
    if item[0] != tag:
        raise AttestationError(path, f"expected DER tag {tag:#04x}, found {item[0]:#04x}")
    return item[1]


def _octets(item: tuple[int, bytes], size: int, path: str) -> bytes:
    value = _value(item, _OCTETS, path)
    if len(value) != size:
        raise AttestationError(path, f"expected {size} bytes, found {len(value)}")
    return value


def _integer(item: tuple[int, bytes], maximum: int, path: str) -> int:
    return _number(_value(item, _INTEGER, path), maximum, path)


def _number(content: bytes, maximum: int, path: str) -> int:
    value = int.from_bytes(content, "big", signed=True)
    if not content or len(content) > 4 or not 0 <= value <= maximum:
        raise AttestationError(path, f"expected a number from 0 to {maximum}, found {content[:8].hex()} (DER)")
    return value


def _boolean(item: tuple[int, bytes], path: str) -> bool:
    value = _value(item, _BOOLEAN, path)
    if value not in {b"\0", b"\xff"}:
        raise AttestationError(path, f"expected FALSE or TRUE, found {value[:8].hex()} (DER)")
    return value == b"\xff"
