"""The layouts and constants here against those of native/include/sgx_arch.h, which a C program prints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from inclavare.sgx import arch

HEADERS = Path(__file__).parents[3] / "native" / "include"
RECORDS: dict[str, type[arch.Record]] = {
    "sgx_sigstruct": arch.Sigstruct,
    "sgx_secs": arch.Secs,
    "sgx_tcs": arch.Tcs,
    "sgx_targetinfo": arch.TargetInfo,
    "sgx_report": arch.Report,
    "sgx_einittoken": arch.EinitToken,
}
CONSTANTS = [
    name for name in vars(arch) if name.startswith("SGX_") and name not in {"SGX_MODULUS_SIZE", "SGX_EXPONENT"}
]
MAIN = """#include <stdio.h>
#include "sgx_arch.h"
#define PLACE(type, field) printf("%s.%s %zu %zu\\n", #type, #field, offsetof(struct type, field), \\
                                  sizeof(((struct type *)0)->field));
#define VALUE(name) printf("%s %lu\\n", #name, (unsigned long)(name));
#define BYTES(name) do { static const uint8_t bytes[] = name; printf("%s ", #name); \\
    for (size_t i = 0; i < sizeof bytes; i++) printf("%02x", bytes[i]); puts(""); } while (0);
int main(void) {
"""


def header_field(struct_name: str, field: str) -> str:
    """Return the C name of a field: a report's are in its body, but for the MAC's."""
    return f"body.{field}" if struct_name == "sgx_report" and field not in {"keyid", "mac"} else field


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("arch")
    lines = [
        f"PLACE({name}, {header_field(name, field)})" for name, record in RECORDS.items() for field in record.offsets()
    ]
    lines += [f"{'BYTES' if isinstance(getattr(arch, name), bytes) else 'VALUE'}({name})" for name in CONSTANTS]
    (folder / "print.c").write_text(MAIN + "\n".join(lines) + "\n}\n", encoding="ascii")
    subprocess.run(["gcc", f"-I{HEADERS}", "-o", folder / "print", folder / "print.c"], check=True)
    out = subprocess.run([folder / "print"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in out.splitlines())


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_lies_where_the_header_has_it(printed: dict[str, str], name: str) -> None:
    for field, (offset, size) in RECORDS[name].offsets().items():
        assert printed[f"{name}.{header_field(name, field)}"] == f"{offset} {size}", field


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_constant_has_the_headers_value(printed: dict[str, str], name: str) -> None:
    value = getattr(arch, name)
    assert printed[name] == (value.hex() if isinstance(value, bytes) else str(value))
