"""A daemon that answers what a test wrote down: for answers that no daemon of ours would give."""

from __future__ import annotations

import socket
import threading

from inclavare.aesm.codec import HEAD_SIZE, decode_request, encode, message_size
from inclavare.aesm.messages import Request, Response


class ScriptedDaemon:
    """Answers one request a connection with `answers`, one after the other, and keeps the requests."""

    def __init__(self, path: str, *answers: Response) -> None:
        self.requests: list[Request] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                head = connection.recv(HEAD_SIZE, socket.MSG_WAITALL)
                self.requests.append(decode_request(connection.recv(message_size(head), socket.MSG_WAITALL)))
                connection.sendall(encode(answer))
