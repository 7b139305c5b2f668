"""What a signature server answers: the original project's routes, for those who may ask, for what may be signed.

    POST /api/v1/signature/pkcs1       body: signing material; {"signature": base64, "publicKey": PEM}
    GET  /api/v1/signature/public-key  PEM
    GET  /ping, /healthz; HEAD /       that it is there

Status and body of an answer are the original's. Where tokens are set, everything below /api wants one. No sockets here:
`daemon` has those.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from inclavare.errors import HostError
from inclavare.signing.audit import AuditLog
from inclavare.signing.http import JSON, Answer, Request
from inclavare.signing.keystore import KeyStore
from inclavare.signing.material import described, refusal
from inclavare.signing.tokens import Tokens

BASE = "/api/v1/signature"
SIGN_ROUTE = ("POST", f"{BASE}/pkcs1")
PUBLIC_KEY_ROUTE = ("GET", f"{BASE}/public-key")
BODY_MAX = 1 << 16
_OPEN = {("GET", "/ping"): b"ping", ("GET", "/healthz"): b"ok", ("HEAD", "/"): b""}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: address and port, the subject of the certificate of his TLS, the name of his token; None for none."""

    client: str
    certificate: str | None = None
    token: str | None = None


class Service:
    """Signs with `key`. `tokens` None: everybody may ask. `any_material`: whatever it is."""

    def __init__(
        self,
        key: KeyStore,
        audit: AuditLog,
        tokens: Tokens | None = None,
        *,
        any_material: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._audit = audit
        self._tokens = tokens
        self._any_material = any_material
        self._clock = clock

    def answer_head(self, request: Request, caller: Caller) -> tuple[Answer | None, Caller]:
        """Return the answer to a request that has no need of its body; None for one to sign it. And who he is."""
        route = (request.method, request.path)
        if route in _OPEN:
            return Answer(200, _OPEN[route]), caller
        if route not in (SIGN_ROUTE, PUBLIC_KEY_ROUTE):
            return Answer(404, b"404 page not found", "text/plain"), caller
        if self._tokens is not None:
            name = self._tokens.name_of(request.headers.get("authorization"))
            if name is None:
                return self._refused(route, caller, 401, "no token that is known here"), caller
            caller = Caller(caller.client, caller.certificate, name)
        if route == PUBLIC_KEY_ROUTE:
            return Answer(200, self._key.public_key()), caller
        if request.body_size > BODY_MAX:
            reason = f"expected at most {BODY_MAX} bytes, found {request.body_size}"
            return self._refused(route, caller, 413, reason), caller
        return None, caller

    def sign(self, material: bytes, caller: Caller) -> Answer:
        """Return the answer to a request to sign `material`; may take its time, and be called by several threads."""
        said = described(material)
        reason = "" if self._any_material else refusal(material)
        if reason:
            return self._refused(SIGN_ROUTE, caller, 400, reason, said=said)
        try:
            signature = self._key.sign(material)
        except HostError as error:
            return self._refused(SIGN_ROUTE, caller, 500, error.message, "the key cannot be used", said)
        self._audit.tell(self._clock(), **asdict(caller), answer=200, **said)
        payload = {
            "signature": base64.b64encode(signature).decode(),
            "publicKey": self._key.public_key().decode("ascii"),
        }
        return Answer(200, json.dumps(payload, separators=(",", ":")).encode(), JSON)

    def _refused(
        self,
        route: tuple[str, str],
        caller: Caller,
        status: int,
        reason: str,
        told: str = "",
        said: Mapping[str, object] | None = None,
    ) -> Answer:
        """Refuse, and write down what was asked to be signed; the client is `told` the reason, or less."""
        if route == SIGN_ROUTE:
            self._audit.tell(self._clock(), **asdict(caller), answer=status, reason=reason, **(said or {}))
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return Answer(status, f"{told or reason}\n".encode(), headers=headers)
