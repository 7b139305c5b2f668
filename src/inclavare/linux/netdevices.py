"""Moves network devices of the host into a container's network namespace, with their addresses, by rtnetlink(7).

runtime-spec: config-linux.md "Network Devices". Only bundles that ask for it come here. What the kernel drops with the
move (routes, addresses that are not permanent or not of global scope) stays dropped.
"""

from __future__ import annotations

import _socket
import os
from struct import Struct

from inclavare.errors import HostError

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
AF_NETLINK = 16
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_PERMANENT = 0x80
IFF_UP = 0x1
MESSAGE_MAX = 1 << 16

HEADER = Struct("<IHHII")  # struct nlmsghdr
LINK = Struct("<BxHiII")  # struct ifinfomsg
ADDRESS = Struct("<BBBBI")  # struct ifaddrmsg
ATTRIBUTE = Struct("<HH")  # struct rtattr
NUMBER = Struct("<i")


def move(devices: list[tuple[str, str]], pid: int, way: _socket.socket) -> None:
    """Move devices to the network namespace of process `pid`, which has sent a netlink socket of its own by `way`."""
    _, ancillary, _, _ = way.recvmsg(16, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    way.close()
    inside = _socket.socket(fileno=NUMBER.unpack_from(ancillary[0][2])[0])
    outside = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
    ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    moved: list[tuple[str, str]] = []
    try:
        for host, name in devices:
            try:
                _check_free(inside, name)
                addresses = _move(outside, host, name, theirs)
                moved.append((host, name))
                _raise(inside, name, addresses)
            except OSError as error:
                for old, new in moved:
                    _raise(outside, old, _move(inside, new, old, ours))
                raise HostError(
                    f"cannot move the network device {host} into the container as {name}: {error.strerror}"
                ) from error
    finally:
        inside.close()
        outside.close()
        os.close(ours)
        os.close(theirs)


def _move(link: _socket.socket, old: str, new: str, namespace: int) -> list[tuple[int, int, bytes]]:
    """Move a device and give the addresses that it had."""
    index = _index(link, old)
    addresses = _addresses(link, index)
    where = _attribute(IFLA_NET_NS_FD, NUMBER.pack(namespace)) + _attribute(IFLA_IFNAME, new.encode() + b"\0")
    _request(link, RTM_NEWLINK, 0, LINK.pack(0, 0, index, 0, IFF_UP) + where)
    return addresses


def _raise(link: _socket.socket, name: str, addresses: list[tuple[int, int, bytes]]) -> None:
    index = _index(link, name)
    for family, prefix, attributes in addresses:
        message = ADDRESS.pack(family, prefix, 0, 0, index) + attributes
        _request(link, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, message)
    _request(link, RTM_NEWLINK, 0, LINK.pack(0, 0, index, IFF_UP, IFF_UP))


def _index(link: _socket.socket, name: str) -> int:
    message = LINK.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
    for kind, content in _request(link, RTM_GETLINK, 0, message):
        if kind == RTM_NEWLINK:
            index: int = LINK.unpack_from(content)[2]
            return index
    raise OSError(19, os.strerror(19))


def _check_free(link: _socket.socket, name: str) -> None:
    """The kernel would move a device and then fail to rename it."""
    try:
        _index(link, name)
    except OSError:
        return
    raise OSError(17, os.strerror(17))


def _addresses(link: _socket.socket, wanted: int) -> list[tuple[int, int, bytes]]:
    """Give (family, prefix length, attributes) of a device's permanent addresses of global scope."""
    found = []
    for _, content in _request(link, RTM_GETADDR, NLM_F_DUMP, ADDRESS.pack(0, 0, 0, 0, 0)):
        family, prefix, flags, scope, index = ADDRESS.unpack_from(content)
        if index == wanted and scope == 0 and flags & IFA_F_PERMANENT:
            kept = b""
            at = ADDRESS.size
            while at + ATTRIBUTE.size <= len(content):
                size, kind = ATTRIBUTE.unpack_from(content, at)
                if size < ATTRIBUTE.size:
                    break
                if kind in (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST):
                    kept += _attribute(kind, content[at + ATTRIBUTE.size : at + size])
                at += _aligned(size)
            found.append((family, prefix, kept))
    return found


def _request(link: _socket.socket, kind: int, flags: int, content: bytes) -> list[tuple[int, bytes]]:
    """Send a message and give (type, content) of the answers before the acknowledgement. Raises OSError."""
    flags |= NLM_F_REQUEST | (0 if flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
    link.send(HEADER.pack(HEADER.size + len(content), kind, flags, 0, 0) + content)
    answers: list[tuple[int, bytes]] = []
    while True:
        data = link.recv(MESSAGE_MAX)
        at = 0
        while at + HEADER.size <= len(data):
            size, answer, _, _, _ = HEADER.unpack_from(data, at)
            body = data[at + HEADER.size : at + size]
            if answer == NLMSG_DONE:
                return answers
            if answer == NLMSG_ERROR:
                number = -NUMBER.unpack_from(body)[0]
                if number:
                    raise OSError(number, os.strerror(number))
                return answers
            answers.append((answer, body))
            at += _aligned(max(size, HEADER.size))


def _attribute(kind: int, content: bytes) -> bytes:
    size = ATTRIBUTE.size + len(content)
    return ATTRIBUTE.pack(size, kind) + content + bytes(_aligned(size) - size)


def _aligned(size: int) -> int:
    return (size + 3) & ~3
