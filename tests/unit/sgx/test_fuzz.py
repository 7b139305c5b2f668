"""A small helping of `make fuzz`, and what only a genuine signature lets through to the later steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inclavare.errors import AttestationError
from inclavare.sgx import Policy, verify
from inclavare.sgx.pck import parse_pck_extension
from inclavare.sgx.quote import parse_quote
from tests import simulated
from tests.simulated import NOW, Recipe

CHECKOUT = Path(__file__).parents[3]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TCB_INFO_MEMBERS = ("id", "version", "issueDate", "nextUpdate", "fmspc", "pceId", "tcbType", "tcbLevels")
QE_IDENTITY_MEMBERS = (
    "id",
    "version",
    "miscselect",
    "attributes",
    "attributesMask",
    "mrsigner",
    "isvprodid",
    "tcbLevels",
)


def test_broken_input_brings_out_only_our_errors() -> None:
    program = [sys.executable, "-W", "error", str(CHECKOUT / "tools/fuzz.py"), "--count", "20000"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    counts = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(counts) >= 15
    assert sum(counts) >= 20000


@settings(max_examples=60, deadline=None)
@given(
    tcb_info=st.dictionaries(st.sampled_from(TCB_INFO_MEMBERS), JSON, max_size=2),
    qe_identity=st.dictionaries(st.sampled_from(QE_IDENTITY_MEMBERS), JSON, max_size=2),
    level=st.dictionaries(st.sampled_from(("tcb", "tcbDate", "tcbStatus", "advisoryIDs")), JSON, max_size=1),
)
def test_documents_that_are_signed_and_senseless_end_in_a_verdict(
    tcb_info: dict[str, object], qe_identity: dict[str, object], level: dict[str, object]
) -> None:
    made = simulated.make(Recipe(tcb_info=tcb_info, qe_identity=qe_identity, level=level))
    policy = Policy(trusted_root=made.root, allow_emulated=True)
    verdict = verify(made.quote, made.document(), NOW, policy)
    assert verdict.verdict == "accepted" or verdict.failed_step


@pytest.mark.parametrize("platform_ca", [False, True])
@given(place=st.integers(0, 600), value=st.integers(0, 255))
def test_a_changed_byte_of_the_sgx_extension_is_refused_or_read(platform_ca: bool, place: int, value: int) -> None:
    extension = simulated.extension(Recipe(platform_ca=platform_ca))
    data = bytearray(extension)
    data[place % len(data)] = value
    try:
        parse_pck_extension(bytes(data))
    except AttestationError as error:
        assert error.path.startswith("sgx_extension")  # noqa: PT017


@given(place=st.integers(0, 5000), bit=st.integers(0, 7))
def test_no_single_bit_of_what_is_signed_can_be_changed(place: int, bit: int) -> None:
    made = simulated.make()
    data = bytearray(made.quote)
    place %= 1046  # up to the certification data
    data[place] ^= 1 << bit
    policy = Policy(trusted_root=made.root, allow_emulated=True)
    assert verify(bytes(data), made.document(), NOW, policy).verdict == "refused"
    assert parse_quote(made.quote).signed() == made.quote[:432]
