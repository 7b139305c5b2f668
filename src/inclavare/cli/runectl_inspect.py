"""`runectl inspect FILE`: what an image or a SIGSTRUCT says, and the verdict of every verification step."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from inclavare.cli.runectl_files import print_json, print_labelled, read_file
from inclavare.errors import EnclaveError
from inclavare.sgx.arch import Sigstruct, attribute_names, ssa_frame_pages
from inclavare.sgx.layout import BuildStep, Eadd, Ecreate, Unmeasured, read_flat
from inclavare.sgx.measure import image_steps, mrenclave, mrsigner
from inclavare.sgx.sgxs import is_sgxs, read_sgxs
from inclavare.sgx.sigstruct import Verdict, build_date, is_sigstruct, require, verify, verify_enclave

_SIGSTRUCT_COLUMN = 36
_IMAGE_COLUMN = 30
_SHOWN_BYTES = 32  # of numbers with 384 bytes


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "inspect",
        help="show an image or a SIGSTRUCT, and verify it",
        description="Show what FILE says: a flat image, an SGXS stream or a SIGSTRUCT. A SIGSTRUCT is verified step by"
        " step; the exit code is 1 when a step fails.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--image", metavar="IMAGE", help="verify also that the SIGSTRUCT in FILE signs this image")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show FILE."""
    data = read_file(arguments.file)
    if is_sigstruct(data):
        _inspect_sigstruct(arguments, Sigstruct.from_bytes(data))
    elif arguments.image is not None:
        raise EnclaveError(
            f"cannot verify {arguments.file}: a SIGSTRUCT has {Sigstruct.SIZE} bytes, found {len(data)}",
            "give the SIGSTRUCT as FILE, and the image with --image",
        )
    else:
        rows = _sgxs_rows(data) if is_sgxs(data) else _flat_rows(data)
        if arguments.json:
            print_json({key: value for key, _, value in rows})
        else:
            print_labelled([(label, str(value)) for _, label, value in rows], _IMAGE_COLUMN)
    return 0


def _inspect_sigstruct(arguments: argparse.Namespace, sigstruct: Sigstruct) -> None:
    verdicts = verify(sigstruct)
    if arguments.image is not None:
        steps = image_steps(read_file(arguments.image), ssa_frame_pages(sigstruct.xfrm, sigstruct.miscselect))
        verdicts = (*verdicts, verify_enclave(sigstruct, mrenclave(steps)))
    if arguments.json:
        values = {key: value.hex() if isinstance(value, bytes) else value for key, value in asdict(sigstruct).items()}
        values |= {"format": "sigstruct", "build_date": build_date(sigstruct.date)}
        values |= {"mrsigner": mrsigner(sigstruct.modulus).hex(), "steps": [asdict(verdict) for verdict in verdicts]}
        print_json(values)
    else:
        print_labelled(_sigstruct_rows(sigstruct), _SIGSTRUCT_COLUMN)
        print("\nVerification:")
        for verdict in verdicts:
            print(f"  {verdict.step:<13} {_outcome(verdict)}")
    require(verdicts)


def _outcome(verdict: Verdict) -> str:
    if verdict.passed is None:
        return "not checked"
    return "passed" if verdict.passed else f"FAILED: expected {verdict.expected}, found {verdict.found}"


def _sigstruct_rows(sigstruct: Sigstruct) -> list[tuple[str, str]]:
    """Return the fields in the order, and under the names, of the original project's dump (spelling mended)."""
    flags = attribute_names(sigstruct.attributes)
    return [
        ("Enclave Vendor", f"{sigstruct.vendor:#010x}"),
        ("Enclave Build Date", build_date(sigstruct.date)),
        ("Software Defined", f"{sigstruct.swdefined:#010x}"),
        ("ISV assigned Product Family ID", f"0x{sigstruct.isvfamilyid.hex()}"),
        ("ISV assigned Product ID", f"{sigstruct.isvprodid:#06x}"),
        ("ISV assigned Extended Product ID", f"0x{sigstruct.isvextprodid.hex()}"),
        ("ISV assigned SVN", str(sigstruct.isvsvn)),
        ("Enclave Attributes", f"{_pair(sigstruct.attributes, sigstruct.xfrm)} ({flags})"),
        ("Enclave Attributes Mask", _pair(sigstruct.attributes_mask, sigstruct.xfrm_mask)),
        ("Enclave Misc Select", f"{sigstruct.miscselect:#010x}"),
        ("Enclave Misc Mask", f"{sigstruct.miscmask:#010x}"),
        ("Enclave Hash", f"0x{sigstruct.enclavehash.hex()}"),
        ("Enclave Signer", f"0x{mrsigner(sigstruct.modulus).hex()}"),
        ("Modulus", _start(sigstruct.modulus)),
        ("Exponent", str(sigstruct.exponent)),
        ("Signature", _start(sigstruct.signature)),
        ("Q1", _start(sigstruct.q1)),
        ("Q2", _start(sigstruct.q2)),
    ]


def _pair(attributes: int, xfrm: int) -> str:
    """Return the sixteen bytes of ATTRIBUTES as they lie in memory."""
    return f"0x{attributes.to_bytes(8, 'little').hex()}{xfrm.to_bytes(8, 'little').hex()}"


def _start(number: bytes) -> str:
    return f"0x{number[:_SHOWN_BYTES].hex()}..."


def _flat_rows(data: bytes) -> list[tuple[str, str, int | str | bool]]:
    image = read_flat(data)
    return [
        ("format", "Format", "flat"),
        ("mrenclave", "MRENCLAVE", mrenclave(image.steps()).hex()),
        ("enclave_size", "Enclave size", image.enclave_size),
        ("offset", "Offset of the first page", image.offset),
        ("mmap_size", "Size of all pages", image.mmap_size),
        ("ssa_offset", "Offset of the SSA frame", image.ssa_offset),
        ("ssa_frame_pages", "Pages of the SSA frame", image.ssa_frame_pages),
        ("max_mmap_size", "max_mmap_size", image.metadata.max_mmap_size),
        ("null_dereference_protection", "null_dereference_protection", image.metadata.null_dereference_protection),
        ("mmap_min_addr", "mmap_min_addr", image.metadata.mmap_min_addr),
    ]


def _sgxs_rows(data: bytes) -> list[tuple[str, str, int | str | bool]]:
    steps: list[BuildStep] = list(read_sgxs(data))
    first = steps[0]
    assert isinstance(first, Ecreate)  # noqa: S101  # read_sgxs refuses anything else
    return [
        ("format", "Format", "sgxs"),
        ("mrenclave", "MRENCLAVE", mrenclave(steps).hex()),
        ("enclave_size", "Enclave size", first.size),
        ("ssa_frame_pages", "Pages of the SSA frame", first.ssa_frame_pages),
        ("pages", "Pages", sum(isinstance(step, Eadd) for step in steps)),
        ("unmeasured", "Unmeasured bytes", sum(len(step.data) for step in steps if isinstance(step, Unmeasured))),
    ]
