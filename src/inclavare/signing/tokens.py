"""Bearer tokens (RFC 6750): who may ask for a signature.

The server's file has a line `NAME:SHA256` for each token, 64 hexadecimal digits of its hash, so whoever reads it cannot
ask; empty lines and lines with `#` in front are left out. A client's file has the token and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from inclavare.errors import HostError
from inclavare.signing.private_files import read_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,4096}=*")  # RFC 6750, section 2.1: b64token
_SCHEME = "bearer "


class Tokens:
    """The tokens a server takes: name and SHA-256 (32 bytes) of each."""

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        self._digests = dict(digests)

    def __len__(self) -> int:
        return len(self._digests)

    def name_of(self, authorization: str | None) -> str | None:
        """Return the name of the token in the header Authorization; None when there is none that we know.

        The time it takes does not depend on which, or on how much of one is right.
        """
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            return None
        given = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode()).digest()
        found = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


def read_tokens(path: str) -> Tokens:
    """Return the tokens of a server's file, which only its owner may read. Raises HostError."""
    digests: dict[str, bytes] = {}
    text = read_private(path, "the tokens").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, _, digest = entry.partition(":")
        if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest.lower()):
            raise HostError(
                f"{path}:{number}: expected NAME:SHA256, a name and 64 hexadecimal digits",
                'printf %s "$TOKEN" | sha256sum',
            )
        if name in digests or bytes.fromhex(digest) in digests.values():
            raise HostError(f"{path}:{number}: the name {name} or its token is there already")
        digests[name] = bytes.fromhex(digest)
    if not digests:
        raise HostError(f"{path} has no token", "A line is NAME:SHA256.")
    return Tokens(digests)


def read_token(path: str) -> str:
    """Return the token of a client's file, which others may not read nor its group write. Raises HostError."""
    token = read_private(path, "the token", 0o027).decode("utf-8", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise HostError(f"{path} has no token: expected letters, digits and -._~+/ in one line")
    return token
