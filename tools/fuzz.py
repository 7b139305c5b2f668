"""Feeds broken input to everything that reads what strangers wrote: only our own errors may come out, soon.

    tools/fuzz.py [--count INPUTS] [--seed NUMBER] [TARGET...]

Inputs are good samples with bytes changed, cut, doubled or put from one into another. Each must be read, or refused
with an InclavareError, within a second and without needing more memory than the limit; what `verify` accepts must say
the same as the sample. A new reader is one more line in TARGETS. The same seed gives the same inputs; what fails is
written to build/fuzz.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Process
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "src"))

from inclavare.aesm import codec, messages  # noqa: E402
from inclavare.errors import InclavareError  # noqa: E402
from inclavare.sgx import collateral, ias, pck, quote, sgxs, sigstruct, strict_json, tcb  # noqa: E402
from inclavare.sgx.arch import Sigstruct  # noqa: E402
from inclavare.sgx.certificates import parse_certificate, parse_chain, parse_crl  # noqa: E402
from inclavare.sgx.layout import read_flat  # noqa: E402
from inclavare.sgx.policy import Policy  # noqa: E402
from inclavare.sgx.verification import verify  # noqa: E402

VECTORS = CHECKOUT / "tests/vectors"
ATTESTATION = VECTORS / "attestation"
SET = ATTESTATION / "sets/phala_sgx__eval17_v3_2025-07-04.json"
SECOND = ATTESTATION / "sets/automata_v3_sample__eval17_v2_2025-06-26.json"
FAILURES = CHECKOUT / "build/fuzz"
MEMORY = 1 << 30
INPUT_SECONDS = 1.0
TOKENS = (
    *(b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x02\x01\x00"),
    *(b"{", b"}", b"[[[[[[[[", b'"', b"null", b"-1", b"1e999", b"NaN", b"\\u0000", b"\\ud800", b'{"a":', b",", b"  "),
    *(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"==", b"\r\n", b"2025-02-30T00:00:00Z"),
)


@dataclass(frozen=True)
class Target:
    """What is read: its share of the inputs, good samples, and the reader."""

    share: int
    samples: Callable[[], list[bytes]]
    read: Callable[[bytes], object]


def _quotes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ATTESTATION / "quotes").iterdir())]


def _fields(*names: str) -> list[bytes]:
    documents = [json.loads(path.read_text())["collateral"] for path in (SET, SECOND)]
    return [document[name].encode() for document in documents for name in names]


def _certificates() -> list[bytes]:
    chains = _fields("pck_crl_issuer_chain", "tcb_info_issuer_chain")
    chains += [
        data.qe.certification.data for data in map(quote.parse_quote, _quotes()) if data.qe.certification.type == 5
    ]
    return [certificate.der for chain in chains for certificate in parse_chain(chain, "")]


def _crls() -> list[bytes]:
    return [bytes.fromhex(text.decode()) for text in _fields("root_ca_crl", "pck_crl")]


def _pck_extensions() -> list[bytes]:
    certificates = [parse_certificate(der, "") for der in _certificates()]
    return [item.sgx_extension for item in certificates if item.sgx_extension is not None]


def _documents() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ATTESTATION / "negative_json").glob("*.json"))]


def _signed_document(data: bytes) -> None:
    for name, parse in (("tcbInfo", tcb.parse_tcb_info), ("enclaveIdentity", tcb.parse_qe_identity)):
        try:
            text, _ = strict_json.split_signed(data, name)
        except InclavareError:
            continue
        parse(text)


def _verify_quote(data: bytes) -> None:
    verdict = verify(data, _COLLATERAL, _TIME, _POLICY)
    if verdict.verdict == "accepted" and data[48:432] != _QUOTE[48:432]:
        raise AssertionError("a changed report is accepted")


def _verify_collateral(data: bytes) -> None:
    verdict = verify(_QUOTE, data, _TIME, _POLICY)
    if verdict.verdict == "accepted" and verdict.status != _STATUS:
        raise AssertionError(f"changed collateral gives {verdict.status}")


def _ias_report(data: bytes) -> None:
    ias.check_ias_report(*ias.split_response(data), 1580382099)


def _sigstruct(data: bytes) -> None:
    sigstruct.verify(Sigstruct.from_bytes(data))


def _flat(data: bytes) -> None:
    for _ in zip(range(64), read_flat(data).steps(), strict=False):
        pass


def _sgxs(data: bytes) -> None:
    for _ in zip(range(64), sgxs.read_sgxs(data), strict=False):
        pass


def _aesm_requests() -> list[bytes]:
    quote_ex = messages.GetQuoteExRequest(report=bytes(432), buf_size=5000, qe_report_info=bytes(960), timeout=1)
    token = messages.GetLaunchTokenRequest(mr_enclave=bytes(32), mr_signer=bytes(384), se_attributes=bytes(16))
    return [codec.encode(message) for message in (messages.InitQuoteRequest(timeout=200), quote_ex, token)]


def _aesm_request(data: bytes) -> None:
    codec.message_size(data[:4])
    codec.decode_request(data[4:])


_STATUS = "ConfigurationAndSWHardeningNeeded"
_POLICY = Policy(accepted_statuses=frozenset({"UpToDate", "OutOfDate", _STATUS}))
_TIME = 1751624924
_QUOTE = (ATTESTATION / "quotes/phala_sgx.bin").read_bytes()
_COLLATERAL = collateral.parse_collateral(SET.read_bytes())
_IMAGE = b"\x90" * 8192 + bytes(17)
_SGXS = (
    *(b"ECREATE\0", b"\1\0\0\0", (1 << 16).to_bytes(8, "little"), bytes(44)),
    *(b"EADD\0\0\0\0", bytes(8), b"\7\2", bytes(46)),
    *(b"EEXTEND\0", bytes(56), b"\x90" * 256),
)

TARGETS = {
    "quote": Target(30, _quotes, quote.parse_quote),
    "epid-quote": Target(
        5, lambda: [b"\2\0\1\0" + bytes(428), b"\2\0" + bytes(430) + b"\4\0\0\0abcd"], quote.parse_epid_quote
    ),
    "pck-extension": Target(15, _pck_extensions, pck.parse_pck_extension),
    "certificate": Target(15, _certificates, lambda data: parse_certificate(data, "")),
    "certificate-chain": Target(5, lambda: _fields("pck_crl_issuer_chain"), lambda data: parse_chain(data, "")),
    "crl": Target(10, _crls, lambda data: parse_crl(data, "")),
    "tcb-info": Target(3, lambda: _fields("tcb_info"), lambda data: tcb.parse_tcb_info(data.decode("latin-1"))),
    "qe-identity": Target(
        3, lambda: _fields("qe_identity"), lambda data: tcb.parse_qe_identity(data.decode("latin-1"))
    ),
    "signed-document": Target(2, _documents, _signed_document),
    "collateral": Target(2, lambda: [SET.read_bytes(), SECOND.read_bytes()], collateral.parse_collateral),
    "verify-quote": Target(2, lambda: [_QUOTE], _verify_quote),
    "verify-collateral": Target(1, lambda: [SET.read_bytes()], _verify_collateral),
    "ias-report": Target(1, lambda: [(ATTESTATION / "ias/response.http").read_bytes()], _ias_report),
    "sigstruct": Target(
        2, lambda: [path.read_bytes() for path in sorted((VECTORS / "sigstruct").glob("*s*g*"))], _sigstruct
    ),
    "flat-image": Target(2, lambda: [_IMAGE], _flat),
    "sgxs-image": Target(1, lambda: [b"".join(_SGXS)], _sgxs),
    "aesm-request": Target(4, _aesm_requests, _aesm_request),
}


def mutations(samples: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Yield inputs without end, made of `samples` by a few changes each."""
    while True:
        data = bytearray(chance.choice(samples))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            _mutate(data, samples, chance)
        yield bytes(data)


def _mutate(data: bytearray, samples: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    size = chance.choice((1, 2, 4, 8, 64, 1024))
    kind = chance.randrange(8)
    if kind == 0 and place < len(data):
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 1 and place < len(data):
        data[place] = chance.randrange(256)
    elif kind == 2:
        token = chance.choice(TOKENS)
        data[place : place + len(token)] = token
    elif kind == 3:
        data[place:place] = chance.choice(TOKENS)
    elif kind == 4:
        del data[place : place + size]
    elif kind == 5:
        data[place:place] = data[place : place + size] * chance.choice((1, 1, 1, 100))
    elif kind == 6:
        other = chance.choice(samples)
        start = chance.randrange(len(other) + 1)
        data[place : place + size] = other[start : start + size]
    else:
        del data[place:]


class _TooSlowError(Exception):
    pass


def fuzz(name: str, count: int, seed: int) -> None:
    """Feed `count` inputs to the target; exit with a message at the first that brings out more than our errors."""
    target = TARGETS[name]
    inputs = mutations(target.samples(), random.Random(f"{name} {seed}"))  # noqa: S311  # repeatable, not secret

    def too_slow(_number: int, _frame: object) -> None:
        raise _TooSlowError(f"takes longer than {INPUT_SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    read = refused = 0
    start = time.monotonic()
    for _, data in zip(range(count), inputs, strict=False):
        signal.setitimer(signal.ITIMER_REAL, INPUT_SECONDS)
        try:
            target.read(data)
            read += 1
        except InclavareError:
            refused += 1
        except BaseException as error:  # also a panic of the cryptography package
            signal.setitimer(signal.ITIMER_REAL, 0)
            FAILURES.mkdir(parents=True, exist_ok=True)
            place = FAILURES / name
            place.write_bytes(data)
            print(f"{name}: input {read + refused} of seed {seed}, in {place}: {error!r}", file=sys.stderr)
            raise SystemExit(1) from error
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - start
    # One write for the whole line: the other processes write, too.
    sys.stdout.write(f"{name:<18} {count:>8} inputs, {read:>8} read, {refused:>8} refused, {seconds:6.1f} s\n")
    sys.stdout.flush()


def _share(names: list[str], counts: dict[str, int], seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in names:
        fuzz(name, counts[name], seed)


def main() -> int:
    """Divide the inputs among the targets and those among the processors; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Feed broken input to every reader.")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--count", metavar="INPUTS", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", metavar="NUMBER", type=int, default=0)
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    names = arguments.targets or list(TARGETS)
    total = sum(TARGETS[name].share for name in names)
    counts = {name: -(-arguments.count * TARGETS[name].share // total) for name in names}
    workers = len(os.sched_getaffinity(0))
    processes = [
        Process(target=_share, args=(names, {name: -(-count // workers) for name, count in counts.items()}, seed))
        for seed in range(arguments.seed * workers, (arguments.seed + 1) * workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main())
