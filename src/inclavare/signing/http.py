"""As much of HTTP/1.1 (RFC 9112) as the signature server needs: heads of requests, and whole answers.

One request a connection. A body has a Content-Length; what could be read in two ways (a header twice, a line folded,
a transfer coding) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

HEAD_MAX = 16384
TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) ([!-~]{1,8192}) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_LENGTH = re.compile(r"[0-9]{1,15}")


class BadRequestError(Exception):
    """The head of a request is malformed, or asks for what is not offered; `status` is the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body_size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent."""

    status: int
    body: bytes
    type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_head(head: bytes) -> Request:
    """Return the request whose head, up to and with the empty line, is `head`. Raises BadRequestError."""
    line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise BadRequestError("malformed request line")
    headers: dict[str, str] = {}
    for text in fields:
        header = _HEADER.fullmatch(text)
        if header is None or header[1].lower() in headers:
            raise BadRequestError("malformed or repeated header")
        headers[header[1].lower()] = header[2].strip()
    if "transfer-encoding" in headers:
        raise BadRequestError("a body needs a Content-Length", 411)
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise BadRequestError("malformed Content-Length")
    try:
        path = urlsplit(matched[2]).path
    except ValueError as error:
        raise BadRequestError("malformed target") from error
    return Request(matched[1], path, headers, int(length))


def encode_answer(answer: Answer, now: float, *, with_body: bool = True) -> bytes:
    """Return the bytes of `answer`, of which the answer to HEAD has no body. `now` is in seconds since 1970."""
    headers = {
        "Content-Type": answer.type,
        **answer.headers,
        "Content-Length": str(len(answer.body)),
        "Date": formatdate(now, usegmt=True),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if with_body else b"")
