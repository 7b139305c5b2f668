"""Where a signature server listens, and its TLS.

To other machines than this one it speaks only by TLS, and only with those who prove who they are, unless it is told
otherwise: whoever can ask has the signer's name on what he likes.
"""

from __future__ import annotations

import os
import socket
import ssl
from ipaddress import ip_address

from inclavare.errors import HostError, UsageError
from inclavare.signing.private_files import read_private

BACKLOG = 1024
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


def opened(listen: str, *, guarded: bool) -> socket.socket:
    """Return a socket that listens at `ADDRESS:PORT`. Raises UsageError, also for an address that other machines can
    reach unless the server is `guarded`, and HostError.
    """  # noqa: D205  # one sentence more
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise UsageError(f"--listen {listen}: expected ADDRESS:PORT")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        if not guarded and not ip_address(address[0]).is_loopback:
            raise UsageError(
                f"--listen {listen}: other machines reach this, and anybody there could have things signed",
                "Set --tls-certificate, --tls-key and --tokens or --client-ca; or --insecure, if you mean it.",
            )
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise HostError(f"cannot listen on {listen}: {error.strerror}") from error
    return listener


def server_tls(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """Return TLS 1.2 and later with a certificate chain and its key; with `client_ca`, only for clients that have a
    certificate by it. Raises HostError for files that cannot be used, also for a key that others can read.
    """  # noqa: D205  # one sentence more
    read_private(key, "the key of TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password: else OpenSSL would ask whoever is at the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
        if client_ca:
            context.load_verify_locations(cafile=client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        files = ", ".join(path for path in (certificate, key, client_ca) if path)
        raise HostError(
            f"cannot use TLS with {files}: {error.reason or error}",
            "All are PEM files, the key is the certificate's and not encrypted.",
        ) from error
    except OSError as error:
        missing = next((path for path in (certificate, client_ca) if path and not os.access(path, os.R_OK)), key)
        raise HostError(f"cannot read {missing}: {error.strerror}") from error
    return context
