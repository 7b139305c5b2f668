#!/usr/bin/env python3
"""Compares verification of quotes with dcap-qvl, and measurement of an enclave with SHA-256, in one process.

All sides take their turns within one round, so that noise of the machine meets all of them. Each verification gets the
quote as bytes. `text` gives the collateral as JSON every time, which dcap-qvl has parsed into strings and reads anew
each time; `parsed` gives it as a value, as programs do that verify many quotes. The library remembers certificates.

Usage: .venv/bin/python bench/verify.py [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "src"))

import dcap_qvl  # noqa: E402

from inclavare.sgx import Policy, measure_image, parse_collateral, verify  # noqa: E402

VECTORS = CHECKOUT / "tests/vectors/attestation"
SETS = ("phala_sgx__eval17_v3_2025-07-04", "automata_v3_sample__eval17_v3_2025-08-30")
POLICY = Policy(accepted_statuses=frozenset({"SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded"}))
REPETITIONS = 20
IMAGE = os.urandom(1 << 24) + bytes(17)


def main() -> int:
    """Print the fastest and the median time of one call, and the ratio to the other side."""
    parser = argparse.ArgumentParser(description="Compare verification with dcap-qvl, measurement with SHA-256.")
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    for name in SETS:
        _print(name, "dcap-qvl", _measured(_verifiers(name), rounds, REPETITIONS))
    hashed = {"sha256": lambda: hashlib.sha256(IMAGE).digest(), "measure": lambda: measure_image(IMAGE)}
    _print("an image of 16 MiB", "sha256", _measured(hashed, max(1, rounds // 3), 1))
    return 0


def _verifiers(name: str) -> dict[str, Callable[[], object]]:
    text = (VECTORS / f"sets/{name}.json").read_text()
    values = json.loads(text)
    quote = (VECTORS / values["quote"]).read_bytes()
    fields = json.dumps(values["collateral"])
    theirs = dcap_qvl.QuoteCollateralV3.from_json(fields)
    parsed = parse_collateral(fields)
    now = values["verify_at"]

    def ours(collateral: object) -> None:
        verdict = verify(quote, collateral, now, POLICY)  # type: ignore[arg-type]
        assert verdict.verdict == "accepted", verdict.reason  # noqa: S101  # a refusal would be quicker

    return {
        "dcap-qvl": lambda: dcap_qvl.verify(quote, theirs, now),
        "parsed": lambda: ours(parsed),
        "text": lambda: ours(fields),
    }


def _measured(calls: dict[str, Callable[[], object]], rounds: int, repetitions: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repetitions):
                call()
            times[name].append((time.perf_counter() - start) * 1000 / repetitions)
    return {name: values[1:] for name, values in times.items()}  # the first round warms up


def _print(title: str, reference: str, times: dict[str, list[float]]) -> None:
    print(title)
    for name, values in times.items():
        pairs = zip(values, times[reference], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        print(f"  {name:<10} min {min(values):8.3f} ms  median {statistics.median(values):8.3f} ms  ratio {ratio:5.2f}")


if __name__ == "__main__":
    sys.exit(main())
