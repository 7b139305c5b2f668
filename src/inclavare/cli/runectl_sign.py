"""`runectl sign`: makes the SIGSTRUCT of an enclave image, at once or in two steps for keys kept elsewhere.

The options are those of the original project's sgxsign. The image file is never modified: options that change its
metadata want a new file for the changed image.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

from inclavare.cli.runectl_files import print_json, read_file, write_file
from inclavare.cli.runectl_measure import hexadecimal
from inclavare.errors import EnclaveError, UsageError
from inclavare.sgx.arch import Sigstruct, ssa_frame_pages
from inclavare.sgx.layout import flat_with_metadata, read_flat
from inclavare.sgx.measure import image_steps, mrenclave, mrsigner
from inclavare.sgx.sgxs import is_sgxs
from inclavare.sgx.sigstruct import to_be_signed


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "sign",
        help="sign an image",
        usage="runectl sign [OPTIONS] --key KEY IMAGE SIGSTRUCT\n"
        "       runectl sign [OPTIONS] --server URL IMAGE SIGSTRUCT\n"
        "       runectl sign [OPTIONS] --tbs-out FILE IMAGE\n"
        "       runectl sign [OPTIONS] --signature FILE --public-key FILE IMAGE SIGSTRUCT",
        description="Sign an enclave image; the result is the same on every machine and at any time. To sign with a"
        " key that is kept elsewhere, write the 256 bytes to be signed with --tbs-out, have them signed (RSA PKCS#1"
        " v1.5 with SHA-256), and combine with --signature and --public-key, the other options as before.",
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE", help="a flat image (encl.bin) or an SGXS stream")
    parser.add_argument("sigstruct", metavar="SIGSTRUCT", nargs="?", help="the file to write")
    how = parser.add_argument_group("who signs (one of)")
    how.add_argument("--key", metavar="FILE", help="the private key, PEM: RSA-3072 with exponent 3")
    how.add_argument("--server", metavar="URL", help="a signature server, such as https://signer.example:9080")
    how.add_argument("--tbs-out", metavar="FILE", help="write the 256 bytes to be signed, sign nothing")
    how.add_argument("--signature", metavar="FILE", help="a signature made elsewhere, 384 bytes; with --public-key")
    how.add_argument("--public-key", metavar="FILE", help="the signer's public key, PEM")
    server = parser.add_argument_group("the signature server")
    server.add_argument("--ca-file", metavar="FILE", default="", help="who vouches for it, PEM (default: the system's)")
    server.add_argument("--token-file", metavar="FILE", default="", help="a file with the token that it wants")
    what = parser.add_argument_group("what is signed")
    what.add_argument("-N", "--no-debugger", action="store_true", help="prohibit the attribute DEBUG (else enforced)")
    what.add_argument("-a", "--attrs", metavar="HEX", type=hexadecimal, help="attributes (default 6, with -N 4)")
    what.add_argument("--attrs-mask", metavar="HEX", type=hexadecimal, help="mask of enforced attributes (default 6)")
    what.add_argument("-x", "--xfrm", metavar="HEX", type=hexadecimal, help="XFRM (default 3)")
    what.add_argument("--xfrm-mask", metavar="HEX", type=hexadecimal, help="mask of enforced XFRM bits (as --xfrm)")
    what.add_argument("--isv-prod-id", metavar="N", type=_u16, default=0, help="product id (default 0)")
    what.add_argument("--isv-svn", metavar="N", type=_u16, default=0, help="security version (default 0)")
    what.add_argument(
        "--date", metavar="YYYY-MM-DD", type=_bcd_date, help="build date (default: SOURCE_DATE_EPOCH, else none)"
    )
    change = parser.add_argument_group("changing the metadata of a flat image")
    change.add_argument("-o", "--output", metavar="FILE", help="the file to write the changed image to")
    change.add_argument("-s", "--mmap-size", metavar="N", type=_u64, help="max_mmap_size in bytes, 0 for the smallest")
    change.add_argument(
        "-n",
        "--null-dereference-protection",
        "--null_dereference_protection",
        action="store_true",
        help="place the enclave at address 0",
    )
    change.add_argument(
        "-m",
        "--mmap-min-addr",
        "--mmap_min_addr",
        metavar="HEX",
        type=hexadecimal,
        help="vm.mmap_min_addr of the machines it will run on (0: begin at 16 MiB)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Sign, or do one of the two steps, and print what was measured."""
    # cryptography costs more than all the rest of a command that only measures.
    from inclavare.sgx import sign  # noqa: PLC0415

    _check_usage(arguments)
    attributes = sign.signing_attributes(
        no_debugger=arguments.no_debugger, attributes=arguments.attrs, mask=arguments.attrs_mask
    )
    xfrm = sign.signing_xfrm(arguments.xfrm, arguments.xfrm_mask)
    parameters = sign.SigningParameters(
        *attributes, *xfrm, arguments.isv_prod_id, arguments.isv_svn, _date(arguments.date, os.environ)
    )
    image = _changed_image(arguments, read_file(arguments.image))
    digest = mrenclave(image_steps(image, ssa_frame_pages(parameters.xfrm)))
    unsigned = sign.unsigned(digest, parameters)
    said = {"image": arguments.output or arguments.image, "mrenclave": digest.hex()}
    signed: Sigstruct | None = None
    if arguments.key is not None:
        signed = sign.sign(unsigned, sign.load_private_key(read_file(arguments.key)))
    elif arguments.server is not None:
        from inclavare.signing import client  # noqa: PLC0415  # the network is for those who ask for it

        signature, public_key = client.sign(
            arguments.server, to_be_signed(unsigned), ca_file=arguments.ca_file, token_file=arguments.token_file
        )
        signed = sign.combine(unsigned, sign.load_public_modulus(public_key), signature)
    elif arguments.signature is not None:
        modulus = sign.load_public_modulus(read_file(arguments.public_key))
        signed = sign.combine(unsigned, modulus, read_file(arguments.signature))
    if arguments.output is not None:
        write_file(arguments.output, image)
    if signed is None:
        write_file(arguments.tbs_out, to_be_signed(unsigned))
        said["tbs"] = arguments.tbs_out
    else:
        write_file(arguments.sigstruct, signed.to_bytes())
        said["mrsigner"] = mrsigner(signed.modulus).hex()
        said["sigstruct"] = arguments.sigstruct
    _say(arguments, said)
    return 0


def _check_usage(arguments: argparse.Namespace) -> None:
    hint = "runectl sign --help"
    ways = [way for way in ("key", "server", "tbs_out", "signature") if getattr(arguments, way) is not None]
    if len(ways) != 1:
        raise UsageError("one of --key, --server, --tbs-out and --signature must be given", hint)
    if (arguments.signature is None) != (arguments.public_key is None):
        raise UsageError("--signature and --public-key belong together", hint)
    if arguments.server is None and (arguments.ca_file or arguments.token_file):
        raise UsageError("--ca-file and --token-file belong to --server", hint)
    if (arguments.sigstruct is None) != (arguments.tbs_out is not None):
        raise UsageError("the file SIGSTRUCT must be given, except with --tbs-out, which signs nothing", hint)
    if arguments.mmap_min_addr is not None and not arguments.null_dereference_protection:
        raise UsageError("--mmap-min-addr needs --null-dereference-protection", hint)
    if _changes_metadata(arguments) != (arguments.output is not None):
        raise UsageError(
            "--output belongs to the options that change the image's metadata: IMAGE itself is never modified", hint
        )
    written = [path for path in (arguments.sigstruct, arguments.tbs_out, arguments.output) if path is not None]
    for path in written:
        if written.count(path) > 1 or os.path.realpath(path) == os.path.realpath(arguments.image):
            raise UsageError(f"{path} would be overwritten", hint)


def _changes_metadata(arguments: argparse.Namespace) -> bool:
    return arguments.mmap_size is not None or arguments.null_dereference_protection


def _changed_image(arguments: argparse.Namespace, data: bytes) -> bytes:
    """Return the image with the metadata that the options ask for; what they leave out stays."""
    if not _changes_metadata(arguments):
        return data
    if is_sgxs(data):
        raise EnclaveError(f"cannot change the metadata of {arguments.image}: an SGXS stream has none")
    metadata = read_flat(data).metadata
    if arguments.mmap_size is not None:
        metadata = replace(metadata, max_mmap_size=arguments.mmap_size)
    if arguments.null_dereference_protection:
        metadata = replace(
            metadata,
            null_dereference_protection=True,
            mmap_min_addr=arguments.mmap_min_addr or 0,
        )
    return flat_with_metadata(data, metadata)


def _say(arguments: argparse.Namespace, said: dict[str, str]) -> None:
    if arguments.json:
        print_json(said)
        return
    print(f"MRENCLAVE {said['mrenclave']}")
    if "mrsigner" in said:
        print(f"MRSIGNER  {said['mrsigner']}")


def _date(given: int | None, environment: Mapping[str, str]) -> int:
    """Return the date to sign, BCD: as given, else that of SOURCE_DATE_EPOCH, else none, so that nothing is random."""
    if given is not None:
        return given
    epoch = environment.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return 0
    try:
        day = datetime.fromtimestamp(int(epoch), UTC).date()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH must be seconds since 1970, found {epoch!r}") from error
    return _bcd(day)


def _bcd_date(text: str) -> int:
    """Return 0xYYYYMMDD for `YYYY-MM-DD`. Raises ValueError, which argparse reports."""
    return _bcd(date.fromisoformat(text))


def _bcd(day: date) -> int:
    return int(day.strftime("%Y%m%d"), 16)


def _u16(text: str) -> int:
    return _below(text, 1 << 16)


def _u64(text: str) -> int:
    return _below(text, 1 << 64)


def _below(text: str, limit: int) -> int:
    number = int(text, 0)
    if not 0 <= number < limit:
        raise ValueError(text)
    return number
