"""`runectl gen-token`: an EINITTOKEN from the launch enclave, for drivers without flexible launch control."""

from __future__ import annotations

import argparse
import os
import stat

from inclavare.cli.runectl_aesm import add_aesm_options, aesm_client, plain, read_structure
from inclavare.cli.runectl_dump import sigstruct_lines, token_lines
from inclavare.cli.runectl_files import print_json, write_file
from inclavare.sgx.arch import EinitToken, Sigstruct

_ATTRIBUTES = slice(928, 944)  # of a SIGSTRUCT, with XFRM


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "gen-token",
        help="get a launch token from AESM",
        description="Have the launch enclave make the token (EINITTOKEN) of the enclave that a SIGSTRUCT describes.",
        allow_abbrev=False,
    )
    parser.add_argument("--signature", metavar="FILE", help="the SIGSTRUCT, 1808 bytes")
    parser.add_argument(
        "--token", metavar="FILE", help="what to write (default: the signature's name, .token for .sig)"
    )
    add_aesm_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Get the token and write it, with the signature file's permissions."""
    data = read_structure(arguments.signature, "signature", Sigstruct.NAME, Sigstruct.SIZE)
    sigstruct = Sigstruct.from_bytes(data)
    dump = arguments.verbose and not arguments.json
    if dump:
        print(*sigstruct_lines(sigstruct), sep="\n")
    from inclavare.aesm.quoting import launch_token  # noqa: PLC0415  # see runectl_aesm

    raw = launch_token(aesm_client(arguments), sigstruct.enclavehash, sigstruct.modulus, data[_ATTRIBUTES])
    token = EinitToken.from_bytes(raw)
    if dump:
        print(*token_lines(token), sep="\n")
    path = arguments.token or token_path(arguments.signature)
    write_file(path, raw, stat.S_IMODE(os.stat(arguments.signature).st_mode) & 0o777)
    if arguments.json:
        print_json({"token": path, **plain(token)})
    else:
        print(f"token file {path} saved")
    return 0


def token_path(signature: str) -> str:
    """Return where the token of a signature goes: beside it, named `NAME.token` for `NAME.sig` and for `NAME`."""
    return os.path.splitext(signature)[0] + ".token" if signature.endswith(".sig") else signature + ".token"
