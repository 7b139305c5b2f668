"""Asks the enclave in a container for a report, through the agent of its runelet."""

from __future__ import annotations

import _socket

from inclavare.container import lifecycle
from inclavare.container.exec import connect_agent
from inclavare.enclave import agent
from inclavare.errors import EnclaveError, HostError, StateError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record

REPORT_SIZE = 432
TIMEOUT_S = 60  # an enclave may be busy


def local_report(record: Record, target_info: bytes, report_data: bytes) -> bytes:
    """Return a REPORT (432 bytes) for the enclave that `target_info` (512 bytes) describes.

    `report_data` is what it says, 64 bytes or none. Raises StateError for a container that has stopped, EnclaveError
    for one without an enclave and for what its runtime says, HostError for an agent that cannot be reached.
    """
    if record.enclave is None:
        raise EnclaveError(f"container {record.id} has no enclave", "Only enclave containers can attest.")
    if lifecycle.status(record) == "stopped":
        raise StateError("cannot attest a container that has stopped")
    client = _socket.socket(fileno=connect_agent(record))
    try:
        client.settimeout(TIMEOUT_S)
        client.sendall(agent.attest_request(target_info, report_data))
        size = agent.message_size(_receive(client, agent.HEAD_SIZE))
        response = agent.parse_response(_receive(client, size))
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError(f"cannot ask the agent of container {record.id}: {reason}") from error
    finally:
        client.close()
    if response.kind != agent.ATTEST_RESPONSE or response.error or len(response.report) != REPORT_SIZE:
        raise EnclaveError(response.error or f"the agent's report has {len(response.report)} bytes, not {REPORT_SIZE}")
    return response.report


def _receive(client: _socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            raise EnclaveError("the agent closed the connection without an answer")
        data += part
    return data
