"""The protocol's grammar as Google's library reads it, written apart from the tables that are tested with it."""

from __future__ import annotations

from typing import Any

import pytest

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2", reason="needs protobuf (PyPI)")
descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
message_factory = pytest.importorskip("google.protobuf.message_factory")

# member: number, name; then fields as `number name type`, `!` for required. What requests and responses have in common
# (timeout 9, errorCode 1) is added below.
GRAMMAR = """
1 InitQuote: -> 2 target_info bytes, 3 gid bytes
2 GetQuote: 1 report bytes!, 2 quote_type u32!, 3 spid bytes!, 4 nonce bytes, 5 sig_rl bytes, 6 buf_size u32!, 7 qe_report bool -> 2 quote bytes, 3 qe_report bytes
3 GetLaunchToken: 1 mr_enclave bytes!, 2 mr_signer bytes!, 3 se_attributes bytes! -> 2 token bytes
4 ReportAttestationError: 1 platform_info bytes!, 2 attestation_error_code u32!, 3 update_info_size u32! -> 2 platform_update_info bytes
10 GetWhiteListSize: -> 2 white_list_size u32
11 GetWhiteList: 1 white_list_size u32 -> 2 white_list bytes
12 SGXGetExtendedEpidGroupId: -> 2 x_group_id u32
13 SGXSwitchExtendedEpidGroup: 1 x_group_id u32 ->
14 SGXRegister: 1 buf bytes!, 2 data_type u32! ->
15 InitQuoteEx: 1 att_key_id bytes, 3 b_pub_key_id bool!, 4 buf_size u64 -> 2 target_info bytes, 3 pub_key_id_size u64, 4 pub_key_id bytes
16 GetQuoteSizeEx: 1 att_key_id bytes -> 2 quote_size u32
17 GetQuoteEx: 1 report bytes!, 2 att_key_id bytes, 3 qe_report_info bytes, 4 buf_size u32! -> 2 quote bytes, 3 qe_report_info bytes
18 CheckUpdateStatus: 1 platform_info bytes, 2 update_info_size u32!, 3 config u32! -> 2 platform_update_info bytes, 3 status u32
19 SelectAttKeyID: 1 att_key_id_list bytes, 2 timeout u32 -> 2 selected_att_key_id bytes
21 GetSupportedAttKeyIDNum: -> 2 att_key_id_num u32
22 GetSupportedAttKeyIDs: 1 buf_size u32! -> 2 att_key_ids bytes
"""  # noqa: E501  # one line a request
FIELDS = descriptor_pb2.FieldDescriptorProto
TYPES = {"bytes": FIELDS.TYPE_BYTES, "u32": FIELDS.TYPE_UINT32, "u64": FIELDS.TYPE_UINT64, "bool": FIELDS.TYPE_BOOL}


def google_messages() -> dict[str, Any]:
    """Return Google's classes of Request and Response by name."""
    file = descriptor_pb2.FileDescriptorProto(name="aesm.proto", package="aesm.message", syntax="proto2")
    outer = {side: file.message_type.add(name=side) for side in ("Request", "Response")}
    for line in GRAMMAR.strip().splitlines():
        head, _, rest = line.partition(":")
        number, name = head.split()
        request, response = (part.strip() for part in rest.split("->"))
        if "timeout" not in request:
            request = ", ".join(filter(None, [request, "9 timeout u32"]))
        for side, fields in (
            ("Request", request),
            ("Response", ", ".join(filter(None, ["1 error_code u32!", response]))),
        ):
            inner = outer[side].nested_type.add(name=f"{name}{side}")
            outer[side].field.add(
                name=name,
                number=int(number),
                label=1,
                type=FIELDS.TYPE_MESSAGE,
                type_name=f".aesm.message.{side}.{name}{side}",
            )
            for field in fields.split(", "):
                place, member, kind = field.split()
                label = FIELDS.LABEL_REQUIRED if kind.endswith("!") else FIELDS.LABEL_OPTIONAL
                added = inner.field.add(name=member, number=int(place), label=label, type=TYPES[kind.rstrip("!")])
                if member == "error_code":
                    added.default_value = "1"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        side: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"aesm.message.{side}"))
        for side in ("Request", "Response")
    }
