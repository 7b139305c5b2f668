"""`runectl measure IMAGE`: the MRENCLAVE of an enclave image."""

from __future__ import annotations

import argparse

from inclavare.cli.runectl_files import print_json, read_file
from inclavare.sgx.arch import SGX_XFRM_LEGACY, ssa_frame_pages
from inclavare.sgx.measure import measure_image
from inclavare.sgx.sgxs import is_sgxs


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "measure",
        help="print the MRENCLAVE of an image",
        description="Print the MRENCLAVE of an enclave image: a flat image (encl.bin) or an SGXS stream.",
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument(
        "-x",
        "--xfrm",
        metavar="HEX",
        type=hexadecimal,
        default=SGX_XFRM_LEGACY,
        help="the XFRM it will be loaded with, which sizes the SSA frame of a flat image (default 3)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    data = read_file(arguments.image)
    digest = measure_image(data, ssa_frame_pages(arguments.xfrm))
    if arguments.json:
        print_json({"image": arguments.image, "format": "sgxs" if is_sgxs(data) else "flat", "mrenclave": digest.hex()})
    else:
        print(digest.hex())
    return 0


def hexadecimal(text: str) -> int:
    """Return the number that `text` writes in base 16, with or without 0x; at most 64 bits. Raises ValueError."""
    number = int(text, 16)
    if not 0 <= number < 1 << 64:
        raise ValueError(text)
    return number
