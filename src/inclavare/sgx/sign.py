"""Making a SIGSTRUCT: at once with a private key, or in two steps with a signature made elsewhere.

The result depends on the arguments only: no clock, no machine is asked (XFRM is 3 unless somebody says otherwise), and
RSA PKCS#1 v1.5 is deterministic. So whoever has the image, the options and the key gets the same bytes.

Two steps: `unsigned` makes a SIGSTRUCT without a key, `sigstruct.to_be_signed` gives its 256 bytes for the signer, and
`combine` adds signature and public key, verifying them. Follows the Intel SDM, volume 3D, "Enclave Signature Structure
(SIGSTRUCT)"; the rules for attributes are those of the original project's sgxsign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import (
    SGX_ATTR_DEBUG,
    SGX_ATTR_EINITTOKENKEY,
    SGX_ATTR_KSS,
    SGX_ATTR_MODE64BIT,
    SGX_ATTR_PROVISIONKEY,
    SGX_EXPONENT,
    SGX_MODULUS_SIZE,
    SGX_SIGSTRUCT_HEADER,
    SGX_SIGSTRUCT_HEADER2,
    SGX_XFRM_LEGACY,
    Sigstruct,
    ssa_frame_pages,
)
from inclavare.sgx.measure import measure_image
from inclavare.sgx.sigstruct import quotients, require, to_be_signed, verify

SIGNABLE_ATTRIBUTES = (
    SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_PROVISIONKEY | SGX_ATTR_EINITTOKENKEY | SGX_ATTR_KSS
)
_KEY_HINT = "SGX wants RSA-3072 with exponent 3: runectl keygen KEY, or openssl genrsa -3 3072"


@dataclass(frozen=True, slots=True)
class SigningParameters:
    """What the signer decides; the defaults are a debug enclave without version.

    A bit that is clear in a mask may differ in the loaded enclave. `date` is BCD, 0xYYYYMMDD, 0 for none.
    """

    attributes: int = SGX_ATTR_MODE64BIT | SGX_ATTR_DEBUG
    attributes_mask: int = SGX_ATTR_MODE64BIT | SGX_ATTR_DEBUG
    xfrm: int = SGX_XFRM_LEGACY
    xfrm_mask: int = SGX_XFRM_LEGACY
    isvprodid: int = 0
    isvsvn: int = 0
    date: int = 0


def signing_attributes(*, no_debugger: bool, attributes: int | None, mask: int | None) -> tuple[int, int]:
    """Return ATTRIBUTES and their mask for a signature; `None` is what was not given.

    Of two, the one not given follows the other; with neither, DEBUG and MODE64BIT are enforced, or DEBUG is prohibited
    with `no_debugger`. Raises EnclaveError for bits that may not be signed, and for MODE64BIT (without `no_debugger`
    also DEBUG) left out.
    """
    enforced = SGX_ATTR_MODE64BIT if no_debugger else SGX_ATTR_MODE64BIT | SGX_ATTR_DEBUG
    chosen = mask if attributes is None else attributes
    if chosen is None:
        return enforced, SGX_ATTR_MODE64BIT | SGX_ATTR_DEBUG
    chosen_mask = chosen if mask is None else mask
    hint = "" if no_debugger else "--no-debugger signs an enclave that no debugger may enter"
    unsupported = chosen & ~SIGNABLE_ATTRIBUTES
    if unsupported:
        raise EnclaveError(f"Invalid option --attrs. The unsupported attributes {unsupported:#x} are set.")
    if enforced & ~chosen:
        raise EnclaveError(f"Invalid option --attrs. The bitmap {enforced:#x} must be set.", hint)
    if enforced & ~chosen_mask:
        raise EnclaveError(f"Invalid option --attrs-mask. The bitmap {enforced:#x} must be set.", hint)
    if no_debugger and chosen & chosen_mask & SGX_ATTR_DEBUG:
        raise EnclaveError(
            "--attrs & --attrs-mask conflicts with product enclave.",
            "leave DEBUG (0x2) out of --attrs, or leave --no-debugger out",
        )
    return chosen, chosen_mask


def signing_xfrm(xfrm: int | None, mask: int | None) -> tuple[int, int]:
    """Return XFRM and its mask for a signature; `None` is what was not given, and follows the other, else is 3.

    Raises EnclaveError unless both contain 3, as the processor demands of XFRM.
    """
    chosen = xfrm if xfrm is not None else mask if mask is not None else SGX_XFRM_LEGACY
    chosen_mask = mask if mask is not None else chosen
    for option, value in (("--xfrm", chosen), ("--xfrm-mask", chosen_mask)):
        missing = SGX_XFRM_LEGACY & ~value
        if missing:
            raise EnclaveError(f"Invalid option {option}. The minimum bits {missing:#x} are not set.")
    return chosen, chosen_mask


def unsigned(mrenclave: bytes, parameters: SigningParameters) -> Sigstruct:
    """Return the SIGSTRUCT of the enclave measured as `mrenclave` (32 bytes), without key and signature."""
    return Sigstruct(
        header=SGX_SIGSTRUCT_HEADER,
        date=parameters.date,
        header2=SGX_SIGSTRUCT_HEADER2,
        attributes=parameters.attributes,
        attributes_mask=parameters.attributes_mask,
        xfrm=parameters.xfrm,
        xfrm_mask=parameters.xfrm_mask,
        enclavehash=mrenclave,
        isvprodid=parameters.isvprodid,
        isvsvn=parameters.isvsvn,
    )


def sign(sigstruct: Sigstruct, key: rsa.RSAPrivateKey) -> Sigstruct:
    """Return `sigstruct` signed with `key`. Raises EnclaveError unless that is RSA-3072 with exponent 3."""
    modulus = key_modulus(key.public_key())
    signature = key.sign(to_be_signed(sigstruct), padding.PKCS1v15(), hashes.SHA256())
    return combine(sigstruct, modulus, signature)


def sign_image(image: bytes, parameters: SigningParameters, key: rsa.RSAPrivateKey) -> Sigstruct:
    """Return the SIGSTRUCT of an image, SGXS or flat, signed with `key`. Raises EnclaveError as `sign`."""
    return sign(unsigned(measure_image(image, ssa_frame_pages(parameters.xfrm)), parameters), key)


def combine(sigstruct: Sigstruct, modulus: int, signature: bytes) -> Sigstruct:
    """Return `sigstruct` with the signer's `modulus` and `signature`, 384 bytes big endian as signers write them.

    Raises EnclaveError when the signature is not one of `sigstruct` by that key.
    """
    if len(signature) != SGX_MODULUS_SIZE:
        raise EnclaveError(
            f"cannot use the signature: an RSA-3072 signature has {SGX_MODULUS_SIZE} bytes, found {len(signature)}",
            "give the bare signature, neither base64 nor in a container",
        )
    number = int.from_bytes(signature, "big")
    # A signature above the modulus has quotients of more than 384 bytes; verify refuses it without looking at them.
    q1, q2 = quotients(number, modulus) if number < modulus else (0, 0)
    # Fixed width before the order of bytes is turned: one quotient in 256 has a leading zero byte.
    complete = replace(
        sigstruct,
        modulus=modulus.to_bytes(SGX_MODULUS_SIZE, "little"),
        exponent=SGX_EXPONENT,
        signature=number.to_bytes(SGX_MODULUS_SIZE, "little"),
        q1=q1.to_bytes(SGX_MODULUS_SIZE, "little"),
        q2=q2.to_bytes(SGX_MODULUS_SIZE, "little"),
    )
    try:
        require(verify(complete))
    except EnclaveError as error:
        raise EnclaveError(
            "the signature is not one of this enclave by this key",
            "sign the 256 bytes with RSA PKCS#1 v1.5 and SHA-256, and give the same image and options in both steps",
        ) from error
    return complete


def load_private_key(pem: bytes) -> rsa.RSAPrivateKey:
    """Return the private key in `pem`. Raises EnclaveError for what is none, or is none that SGX takes."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise EnclaveError(
            "cannot read the private key: it is encrypted",
            "sign in two steps with the tool that can decrypt it: --tbs-out, then --signature and --public-key",
        ) from error
    except ValueError as error:
        raise EnclaveError("cannot read the private key: it is not in PEM format", _KEY_HINT) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise EnclaveError("cannot sign with the private key: it is not an RSA key", _KEY_HINT)
    key_modulus(key.public_key())
    return key


def load_public_modulus(pem: bytes) -> int:
    """Return the modulus of the public key in `pem`. Raises EnclaveError as `load_private_key`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise EnclaveError(
            "cannot read the public key: it is not in PEM format", "openssl rsa -in KEY -pubout -out PUBLIC-KEY"
        ) from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise EnclaveError("cannot use the public key: it is not an RSA key", _KEY_HINT)
    return key_modulus(key)


def key_modulus(key: rsa.RSAPublicKey) -> int:
    """Return the modulus of `key`. Raises EnclaveError unless it is RSA-3072 with exponent 3."""
    numbers = key.public_numbers()
    size = -(-key.key_size // 8)
    if size != SGX_MODULUS_SIZE or key.key_size != SGX_MODULUS_SIZE * 8:
        raise EnclaveError(f"Invalid key size {size}", _KEY_HINT)
    if numbers.e != SGX_EXPONENT:
        raise EnclaveError("Exponent must be set to 3.", _KEY_HINT)
    return numbers.n


def generate_key() -> bytes:
    """Return a new private key that SGX takes, in PEM format without encryption."""
    key = rsa.generate_private_key(public_exponent=SGX_EXPONENT, key_size=SGX_MODULUS_SIZE * 8)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
