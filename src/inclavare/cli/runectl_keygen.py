"""`runectl keygen KEY`: a key that SGX takes, for development. Keys for production belong into an HSM."""

from __future__ import annotations

import argparse

from inclavare.cli.runectl_files import create_secret_file, print_json


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "keygen",
        help="make a signing key for development",
        description="Make an RSA-3072 key with exponent 3 and write it to KEY (mode 0600), which must not exist."
        " Prints the MRSIGNER of what it will sign.",
        allow_abbrev=False,
    )
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the key and print its MRSIGNER."""
    # The library loads cryptography; --help does without.
    from inclavare.sgx.arch import SGX_MODULUS_SIZE  # noqa: PLC0415
    from inclavare.sgx.measure import mrsigner  # noqa: PLC0415
    from inclavare.sgx.sign import generate_key, load_private_key  # noqa: PLC0415

    pem = generate_key()
    create_secret_file(arguments.key, pem)
    modulus = load_private_key(pem).public_key().public_numbers().n
    signer = mrsigner(modulus.to_bytes(SGX_MODULUS_SIZE, "little")).hex()
    if arguments.json:
        print_json({"key": arguments.key, "mrsigner": signer})
    else:
        print(signer)
    return 0
