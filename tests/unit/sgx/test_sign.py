from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import EnclaveError
from inclavare.sgx.sign import (
    SigningParameters,
    combine,
    key_modulus,
    load_private_key,
    load_public_modulus,
    sign,
    signing_attributes,
    signing_xfrm,
    unsigned,
)
from inclavare.sgx.sigstruct import require, to_be_signed, verify

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(PEM, SPKI)


def test_a_signature_verifies_and_is_the_same_every_time(key: rsa.RSAPrivateKey) -> None:
    plain = unsigned(bytes(32), SigningParameters())
    signed = sign(plain, key)
    require(verify(signed))
    assert signed == sign(plain, key)


def test_the_defaults_are_a_debug_enclave_of_no_date(key: rsa.RSAPrivateKey) -> None:
    signed = sign(unsigned(b"\7" * 32, SigningParameters()), key)
    assert (signed.attributes, signed.attributes_mask, signed.xfrm, signed.xfrm_mask) == (6, 6, 3, 3)
    assert (signed.date, signed.vendor, signed.isvprodid, signed.isvsvn) == (0, 0, 0, 0)
    assert signed.enclavehash == b"\7" * 32


def test_short_quotients_are_padded(key: rsa.RSAPrivateKey) -> None:
    # Q2 is below modulus/256 for one enclave in about 256; going through dates finds one quickly.
    for date in range(4096):
        signed = sign(unsigned(bytes(32), SigningParameters(date=date)), key)
        if signed.q1[-1] == 0 or signed.q2[-1] == 0:
            require(verify(signed))
            return
    pytest.fail("no short quotient in 4096 signatures")


def test_two_steps_give_what_one_step_gives(key: rsa.RSAPrivateKey) -> None:
    plain = unsigned(bytes(32), SigningParameters(isvsvn=7))
    signature = key.sign(to_be_signed(plain), padding.PKCS1v15(), hashes.SHA256())
    assert combine(plain, load_public_modulus(public_pem(key)), signature) == sign(plain, key)


def test_openssl_can_be_the_signer(key_pem: bytes, key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    plain = unsigned(bytes(32), SigningParameters())
    (tmp_path / "key.pem").write_bytes(key_pem)
    command = ["openssl", "dgst", "-sha256", "-sign", str(tmp_path / "key.pem")]
    done = subprocess.run(command, input=to_be_signed(plain), stdout=subprocess.PIPE, check=True)
    assert combine(plain, key_modulus(key.public_key()), done.stdout) == sign(plain, key)


def test_a_signature_of_other_options_is_refused(key: rsa.RSAPrivateKey) -> None:
    signature = key.sign(to_be_signed(unsigned(bytes(32), SigningParameters())), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(EnclaveError, match="not one of this enclave by this key") as caught:
        combine(unsigned(bytes(32), SigningParameters(isvsvn=1)), key_modulus(key.public_key()), signature)
    assert "same image and options" in caught.value.hint


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [(b"short", "384 bytes, found 5"), (b"\xff" * 384, "not one of"), (bytes(384), "not one of")],
)
def test_what_is_no_signature_is_refused(key: rsa.RSAPrivateKey, signature: bytes, sentence: str) -> None:
    with pytest.raises(EnclaveError, match=sentence):
        combine(unsigned(bytes(32), SigningParameters()), key_modulus(key.public_key()), signature)


@pytest.mark.parametrize(
    ("exponent", "bits", "sentence"),
    [(3, 2048, "Invalid key size 256"), (65537, 3072, "Exponent must be set to 3.")],
)
def test_keys_that_sgx_does_not_take_are_refused(exponent: int, bits: int, sentence: str) -> None:
    other = rsa.generate_private_key(exponent, bits)
    for refused in (
        lambda: load_private_key(other.private_bytes(PEM, PKCS8, PLAIN)),
        lambda: load_public_modulus(public_pem(other)),
        lambda: sign(unsigned(bytes(32), SigningParameters()), other),
    ):
        with pytest.raises(EnclaveError) as caught:
            refused()
        assert caught.value.message == sentence
        assert "RSA-3072 with exponent 3" in caught.value.hint


def test_keys_of_another_kind_are_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(EnclaveError, match="it is not an RSA key"):
        load_private_key(other.private_bytes(PEM, PKCS8, PLAIN))
    with pytest.raises(EnclaveError, match="it is not an RSA key"):
        load_public_modulus(public_pem(other))


def test_an_encrypted_key_is_refused_with_a_way_out(key: rsa.RSAPrivateKey) -> None:
    encrypted = key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(EnclaveError, match="it is encrypted") as caught:
        load_private_key(encrypted)
    assert "--tbs-out" in caught.value.hint


@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_are_no_key(data: bytes, armoured: bool) -> None:
    for label, load in (("RSA PRIVATE KEY", load_private_key), ("PUBLIC KEY", load_public_modulus)):
        pem = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), data, label.encode())
        with pytest.raises(EnclaveError):
            load(pem if armoured else data)


@pytest.mark.parametrize(
    ("no_debugger", "attributes", "mask", "expected"),
    [
        (False, None, None, (6, 6)),
        (True, None, None, (4, 6)),
        (False, 0x16, None, (0x16, 0x16)),
        (False, None, 0x86, (0x86, 0x86)),
        (True, 4, None, (4, 4)),
        (True, 4, 6, (4, 6)),
        (True, 6, 4, (6, 4)),
        (False, 6, 0xFF, (6, 0xFF)),
    ],
)
def test_attributes_follow_the_rules(
    no_debugger: bool,
    attributes: int | None,
    mask: int | None,
    expected: tuple[int, int],
) -> None:
    assert signing_attributes(no_debugger=no_debugger, attributes=attributes, mask=mask) == expected


@pytest.mark.parametrize(
    ("no_debugger", "attributes", "mask", "sentence"),
    [
        (False, 0x4E, None, "Invalid option --attrs. The unsupported attributes 0x48 are set."),
        (False, 4, None, "Invalid option --attrs. The bitmap 0x6 must be set."),
        (True, 2, None, "Invalid option --attrs. The bitmap 0x4 must be set."),
        (False, 6, 4, "Invalid option --attrs-mask. The bitmap 0x6 must be set."),
        (True, 6, None, "--attrs & --attrs-mask conflicts with product enclave."),
        (True, None, 6, "--attrs & --attrs-mask conflicts with product enclave."),
    ],
)
def test_attributes_that_may_not_be_signed_are_refused(
    no_debugger: bool,
    attributes: int | None,
    mask: int | None,
    sentence: str,
) -> None:
    with pytest.raises(EnclaveError) as caught:
        signing_attributes(no_debugger=no_debugger, attributes=attributes, mask=mask)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("xfrm", "mask", "expected"),
    [(None, None, (3, 3)), (7, None, (7, 7)), (None, 7, (7, 7)), (0xE7, 3, (0xE7, 3))],
)
def test_xfrm_is_three_unless_given(xfrm: int | None, mask: int | None, expected: tuple[int, int]) -> None:
    assert signing_xfrm(xfrm, mask) == expected


@pytest.mark.parametrize(
    ("xfrm", "mask", "sentence"),
    [
        (4, None, "Invalid option --xfrm. The minimum bits 0x3 are not set."),
        (1, None, "Invalid option --xfrm. The minimum bits 0x2 are not set."),
        (3, 1, "Invalid option --xfrm-mask. The minimum bits 0x2 are not set."),
    ],
)
def test_xfrm_without_its_lowest_bits_is_refused(xfrm: int | None, mask: int | None, sentence: str) -> None:
    with pytest.raises(EnclaveError) as caught:
        signing_xfrm(xfrm, mask)
    assert caught.value.message == sentence


@given(st.binary(max_size=400))
def test_random_signatures_raise_only_our_error(data: bytes) -> None:
    modulus = (1 << 3071) + 1
    with contextlib.suppress(EnclaveError):
        combine(unsigned(bytes(32), SigningParameters()), modulus, data)
        pytest.fail("a random signature was accepted")
