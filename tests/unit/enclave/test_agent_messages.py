"""The agent's messages: expected frames, a foreign encoder and decoder, and random bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.enclave.agent import (
    ATTEST_RESPONSE,
    EXEC_RESPONSE,
    FRAME_MAX,
    attest_request,
    execute_request,
    frame,
    kill_request,
    message_size,
    parse_response,
)
from inclavare.errors import EnclaveError

# A word as the rest of the program holds it: any text without NUL, other bytes as lone surrogates (PEP 383).
WORDS = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def protobuf() -> Any:
    """Return the messages Request and Response of the module's grammar, made by Google's library."""
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2", reason="needs protobuf (PyPI)")
    factory = pytest.importorskip("google.protobuf.message_factory")
    kinds = descriptor.FieldDescriptorProto
    file = descriptor.FileDescriptorProto(name="agent.proto", package="agent", syntax="proto3")

    def add(message: str, **fields: tuple[int, int, bool, str]) -> None:
        target = file.message_type.add(name=message)
        for name, (number, kind, repeated, kind_name) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            target.field.add(name=name, number=number, type=kind, label=label, type_name=kind_name or None)

    text, octets, number, message = kinds.TYPE_STRING, kinds.TYPE_BYTES, kinds.TYPE_INT32, kinds.TYPE_MESSAGE
    add(
        "Execute",
        argv=(1, text, False, ""),
        envp=(2, text, False, ""),
        args=(3, octets, True, ""),
        env=(4, octets, True, ""),
    )
    add("Kill", sig=(1, number, False, ""))
    add("Attest", target_info=(5, octets, False, ""), report_data=(6, octets, False, ""))
    add(
        "Request",
        exec=(1, message, False, ".agent.Execute"),
        kill=(2, message, False, ".agent.Kill"),
        attest=(3, message, False, ".agent.Attest"),
    )
    add("Executed", exitCode=(1, number, False, ""), error=(2, text, False, ""))
    add("Attested", exitCode=(1, number, False, ""), error=(2, text, False, ""), localReport=(3, octets, False, ""))
    add("Response", exec=(1, message, False, ".agent.Executed"), attest=(2, message, False, ".agent.Attested"))
    return factory.GetMessages([file])


def test_a_signal_is_framed_as_ever() -> None:
    assert kill_request(15).hex(" ") == "04 00 00 00 12 02 08 0f"


def test_arguments_and_environment_are_one_field_a_word() -> None:
    assert execute_request(["a b", ""], ["X=1"]) == b"\x0e\0\0\0\x0a\x0c" + b"\x1a\x03a b" + b"\x1a\0" + b"\x22\x03X=1"


def test_bytes_that_are_not_utf8_go_through() -> None:
    assert execute_request(["\udcff\udc80"], []).endswith(b"\x1a\x02\xff\x80")


def test_a_request_for_a_report_carries_the_target() -> None:
    request = attest_request(bytes(range(256)) * 2)
    assert request[:4] == len(request[4:]).to_bytes(4, "little")
    assert request[4:10] == b"\x1a\x83\x04\x2a\x80\x04"
    assert request[10:] == bytes(range(256)) * 2


@pytest.mark.parametrize("size", [0, 511, 513])
def test_a_target_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(EnclaveError, match=f"a target info has 512 bytes, found {size}"):
        attest_request(bytes(size))


@pytest.mark.parametrize("size", [1, 63, 65])
def test_report_data_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(EnclaveError, match=f"report data has 64 bytes, found {size}"):
        attest_request(bytes(512), bytes(size))


@pytest.mark.parametrize(
    ("word", "words"), [("a\0b", "holds a NUL"), ("\ud800", "holds half a character"), ("x" * FRAME_MAX, "too long")]
)
@pytest.mark.parametrize("place", ["args", "env"])
def test_a_word_that_cannot_be_sent_is_refused(place: str, word: str, words: str) -> None:
    with pytest.raises(EnclaveError, match=words):
        execute_request([word] if place == "args" else ["a"], [word] if place == "env" else [])


def test_the_longest_frame_is_accepted_by_both_sides() -> None:
    longest = frame(bytes(FRAME_MAX))
    assert message_size(longest[:4]) == FRAME_MAX
    with pytest.raises(EnclaveError, match="too long for the agent"):
        frame(bytes(FRAME_MAX + 1))


@pytest.mark.parametrize("head", [b"", b"\1\0\0", b"\0\0\0\0", b"\1\0\x10\0", b"\xff\xff\xff\xff"])
def test_a_length_out_of_bounds_is_refused(head: bytes) -> None:
    with pytest.raises(EnclaveError, match="announced a message of"):
        message_size(head)


def test_the_original_answer_is_read() -> None:
    response = parse_response(bytes.fromhex("0a020803"))
    assert (response.kind, response.exit_code, response.error, response.report) == (EXEC_RESPONSE, 3, "", b"")


def test_an_exit_code_of_0_may_be_left_out() -> None:
    assert parse_response(b"\x0a\0").exit_code == 0


def test_fields_of_later_versions_are_skipped() -> None:
    later = b"\x98\x06\x07" + b"\x9a\x06\x01x" + b"\x9d\x06abcd" + b"\x99\x06abcdefgh"  # numbers 99, four wire types
    response = parse_response(later + b"\x0a" + bytes([2 + len(later)]) + later + b"\x08\x05")
    assert response.exit_code == 5


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "is no response"),
        (b"\x08\x01", "is no response"),
        (b"\x1a\0", "is no response"),
        (b"\x0a\0\x0a\0", "is no response"),
        (b"\x0a\x05\x08\x01", "is cut off"),
        (b"\x0a", "cut off in a number"),
        (b"\x0a\x02\x08\x80", "cut off in a number"),
        (b"\x0a" + b"\x80" * 11, "cut off in a number"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x0a\x02\x0a\0", "wrong type"),
        (b"\x0a\x02\x10\x01", "wrong type"),
    ],
)
def test_what_is_no_response_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(EnclaveError, match=words):
        parse_response(message)


@given(st.binary())
def test_random_bytes_are_read_or_refused_by_our_error(message: bytes) -> None:
    try:
        response = parse_response(message)
    except EnclaveError:
        return
    assert response.kind in (EXEC_RESPONSE, ATTEST_RESPONSE)
    assert 0 <= response.exit_code <= 255


@given(args=st.lists(WORDS, max_size=5), env=st.lists(WORDS, max_size=5))
def test_protobuf_reads_our_execute_request(protobuf: Any, args: list[str], env: list[str]) -> None:
    framed = execute_request(args, env)
    assert message_size(framed[:4]) == len(framed) - 4
    request = protobuf["agent.Request"].FromString(framed[4:])
    assert list(request.exec.args) == [raw(word) for word in args]
    assert list(request.exec.env) == [raw(entry) for entry in env]


@given(signal=st.integers(1, 64))
def test_protobuf_reads_and_writes_our_kill_request(protobuf: Any, signal: int) -> None:
    framed = kill_request(signal)
    request = protobuf["agent.Request"].FromString(framed[4:])
    assert request.kill.sig == signal
    assert request.SerializeToString() == framed[4:]


@given(target=st.binary(min_size=512, max_size=512), data=st.just(b"") | st.binary(min_size=64, max_size=64))
def test_protobuf_reads_and_writes_our_attest_request(protobuf: Any, target: bytes, data: bytes) -> None:
    framed = attest_request(target, data)
    request = protobuf["agent.Request"].FromString(framed[4:])
    assert (request.attest.target_info, request.attest.report_data) == (target, data)
    assert request.SerializeToString() == framed[4:]


@given(code=st.integers(0, 255), error=st.text(), report=st.none() | st.binary(min_size=432, max_size=432))
def test_we_read_what_protobuf_answers(protobuf: Any, code: int, error: str, report: bytes | None) -> None:
    message = protobuf["agent.Response"]()
    answer = message.exec if report is None else message.attest
    answer.exitCode = code
    answer.error = error
    answer.SetInParent()
    if report is not None:
        answer.localReport = report
    response = parse_response(message.SerializeToString())
    assert response.kind == (EXEC_RESPONSE if report is None else ATTEST_RESPONSE)
    assert (response.exit_code, response.error, response.report) == (code, error, report or b"")
