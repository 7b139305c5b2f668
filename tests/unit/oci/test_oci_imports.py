from __future__ import annotations

import os
import subprocess
import sys

import inclavare

SOURCE = os.path.dirname(os.path.dirname(inclavare.__file__))
CHEAP = {"__future__", "_json"}


def test_reading_a_configuration_imports_next_to_nothing() -> None:
    program = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); before = set(sys.modules)\n"
        "import inclavare.oci.jsontext, inclavare.oci.validate, inclavare.oci.state\n"
        'document = inclavare.oci.jsontext.loads(b\'{"ociVersion": "1.0.2", "root": {"path": "r"}, "process": '
        '{"args": ["x"], "cwd": "/"}, "linux": {"namespaces": [{"type": "mount"}]}}\')\n'
        "inclavare.oci.validate.validate(inclavare.oci.spec.parse(document))\n"
        "inclavare.oci.jsontext.dumps(document)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True
    ).stdout
    imported = set(output.split())
    foreign = {name for name in imported if not name.startswith("inclavare")}
    assert foreign <= CHEAP
    assert {name for name in imported if name.startswith("inclavare.")} == {
        "inclavare.errors",
        "inclavare.oci",
        "inclavare.oci.jsontext",
        "inclavare.oci.linux",
        "inclavare.oci.process",
        "inclavare.oci.reader",
        "inclavare.oci.resources",
        "inclavare.oci.seccomp",
        "inclavare.oci.spec",
        "inclavare.oci.state",
        "inclavare.oci.support",
        "inclavare.oci.sysctl",
        "inclavare.oci.validate",
    }
