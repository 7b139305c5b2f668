from __future__ import annotations

import os
import subprocess
import sys

import inclavare

SOURCE = os.path.dirname(os.path.dirname(inclavare.__file__))
CHEAP = {"__future__"}


def test_configuring_an_enclave_imports_next_to_nothing() -> None:
    program = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); import os, stat; before = set(sys.modules)\n"
        "from inclavare.enclave import agent, config, hostconfig, implicit\n"
        'config.read(["ENCLAVE_TYPE=intelSgx", "ENCLAVE_RUNTIME_PATH=x"], {})\n'
        'hostconfig.read("/nonexistent")\n'
        "implicit.sgx_devices(provision=True)\n"
        'agent.parse_response(agent.execute_request(["a"], [])[4:])\n'
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    foreign = {name for name in done.stdout.split() if not name.startswith("inclavare")}
    assert foreign <= CHEAP
