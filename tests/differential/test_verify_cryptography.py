"""The installed runectl uses the system's cryptography package, older than that of the tests: both must judge alike."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from inclavare.sgx import Policy, verify
from inclavare.sgx.tcb import REVOKED, STATUSES
from tests import simulated
from tests.verification_cases import CASES

SOURCE = Path(__file__).parents[2] / "src"
SYSTEM_PYTHON = "/usr/bin/python3"
PERMISSIVE = frozenset(STATUSES) - {REVOKED}
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
import cryptography
from inclavare.sgx import Policy, verify
statuses = frozenset(sys.argv[1:])
for line in sys.stdin:
    quote, collateral, at, root = json.loads(line)
    policy = Policy(trusted_root=root.encode(), allow_emulated=True, accepted_statuses=statuses)
    verdict = verify(bytes.fromhex(quote), json.dumps(collateral), at, policy)
    print(json.dumps([verdict.verdict, verdict.cause, verdict.status, verdict.failed_step, verdict.expires]))
"""


def test_the_systems_cryptography_package_leads_to_the_same_verdicts() -> None:
    def system_python(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": str(SOURCE)}
        return subprocess.run(
            [SYSTEM_PYTHON, "-B", *arguments], input=text, capture_output=True, text=True, check=False, env=environment
        )

    if system_python("-c", "import cryptography").returncode != 0:
        pytest.skip("needs the system's python3-cryptography")
    lines, expected = [], []
    for case in CASES.values():
        made = simulated.make(case.recipe)
        lines.append(json.dumps([made.quote.hex(), made.collateral, case.at, made.root.decode()]))
        policy = Policy(trusted_root=made.root, allow_emulated=True, accepted_statuses=PERMISSIVE)
        verdict = verify(made.quote, made.document(), case.at, policy)
        expected.append([verdict.verdict, verdict.cause, verdict.status, verdict.failed_step, verdict.expires])
    done = system_python("-c", PROGRAM, *PERMISSIVE, text="\n".join(lines))
    assert done.stderr == ""
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
