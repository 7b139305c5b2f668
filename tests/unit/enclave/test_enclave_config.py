"""What a container asks for: variables, annotations, their precedence, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.enclave.config import KEYS, LOG_LEVELS, EnclaveConfig, choose_platform, read
from inclavare.errors import EnclaveError, InclavareError, SpecError

ANNOTATIONS = {"enclave.type": "intelSgx", "enclave.runtime.path": "/lib/pal.so"}
VARIABLES = ["ENCLAVE_TYPE=intelSgx", "ENCLAVE_RUNTIME_PATH=/lib/pal.so"]


def configured(env: list[str], annotations: dict[str, str] | None = None) -> EnclaveConfig:
    config, _ = read(env, annotations or {})
    assert config is not None
    return config


@pytest.mark.parametrize(
    ("env", "annotations"),
    [
        ([], {}),
        (["PATH=/bin", "HOME=/"], {"other": "x"}),
        (["ENCLAVE_TYPE="], {}),
        (["ENCLAVE_RUNTIME_PATH=/lib/pal.so", "A=b"], {"enclave.runtime.args": "x"}),
        (["enclave_type=intelSgx", "ENCLAVE_TYPES=intelSgx"], {"Enclave.Type": "intelSgx"}),
        (["PATH=/bin"], ANNOTATIONS | {"io.kubernetes.cri.container-type": "sandbox"}),
        (["PATH=/bin"], ANNOTATIONS | {"io.kubernetes.cri-o.ContainerType": "sandbox"}),
    ],
)
def test_without_a_type_it_is_a_plain_container_with_all_its_environment(
    env: list[str], annotations: dict[str, str]
) -> None:
    config, rest = read(env, annotations)
    assert config is None
    assert rest == env


@pytest.mark.parametrize(
    ("env", "annotations"),
    [
        (VARIABLES, {}),
        ([], ANNOTATIONS),
        (VARIABLES, {"enclave.type": "Jailhouse", "enclave.runtime.path": "/other"}),
        (VARIABLES[:1], {"enclave.runtime.path": "/lib/pal.so"}),
        (["ENCLAVE_TYPE=", *VARIABLES[1:]], ANNOTATIONS),
        ([], ANNOTATIONS | {"io.kubernetes.cri.container-type": "container"}),
        (VARIABLES, {"io.kubernetes.cri.container-type": "sandbox"}),
    ],
)
def test_a_variable_wins_over_an_annotation_unless_it_is_empty(env: list[str], annotations: dict[str, str]) -> None:
    config = configured(env, annotations)
    assert (config.type, config.path) == ("intelSgx", "/lib/pal.so")
    assert (config.args, config.log_level, config.ra_type) == ("", "info", "")


def test_every_variable_is_removed_and_the_first_of_a_name_counts() -> None:
    env = [
        "A=1",
        *VARIABLES,
        "ENCLAVE_RUNTIME_PATH=/evil",
        "ENCLAVE_RUNTIME_ARGS=a",
        "ENCLAVE_RUNTIME_ARGS=b",
        "B=ENCLAVE_TYPE=x",
    ]
    config, rest = read(env, {})
    assert config is not None
    assert config.path == "/lib/pal.so"
    assert rest == ["A=1", "B=ENCLAVE_TYPE=x"]


def test_variables_of_other_names_stay() -> None:
    _, rest = read([*VARIABLES, "ENCLAVE_RUNTIME=x", "MY_ENCLAVE_TYPE=y"], {})
    assert rest == ["ENCLAVE_RUNTIME=x", "MY_ENCLAVE_TYPE=y"]


def test_a_value_of_one_character_is_a_value() -> None:
    assert configured(["ENCLAVE_RUNTIME_PATH=p", "ENCLAVE_RUNTIME_ARGS=a", *VARIABLES[:1]]).path == "p"
    assert configured([], {**ANNOTATIONS, "enclave.runtime.args": "a"}).args == "a"


def test_a_value_may_hold_equals_signs() -> None:
    assert configured([*VARIABLES, "ENCLAVE_RUNTIME_ARGS=image=x"]).args == "image=x"


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("occlum_instance,debug", "occlum_instance debug"),
        ("a,b c", "a b c"),
        (",,", "  "),
        ("", ""),
    ],
)
def test_commas_in_arguments_become_blanks(text: str, args: str) -> None:
    assert configured([], {**ANNOTATIONS, "enclave.runtime.args": text}).args == args


@pytest.mark.parametrize("variable", [variable for variable, _ in KEYS.values()])
def test_a_variable_without_value_is_refused_with_its_place(variable: str) -> None:
    with pytest.raises(SpecError, match=f"{variable} has no value") as caught:
        read(["A=b", variable], {})
    assert caught.value.path == "process.env[1]"


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_every_log_level_is_taken_as_it_is(level: str) -> None:
    assert configured([], {**ANNOTATIONS, "enclave.runtime.loglevel": level}).log_level == level


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"enclave.type": "AwsNitroEnclaves"}, "Enclave hardware type (AwsNitroEnclaves) is not supported"),
        ({"enclave.type": "Jailhouse"}, "Enclave hardware type (Jailhouse) is not supported"),
        ({"enclave.type": "intelsgx"}, "Enclave hardware type (intelsgx) is not supported"),
        ({"enclave.runtime.path": ""}, "enclave runtime path is not configured"),
        ({"enclave.runtime.loglevel": "verbose"}, "unknown enclave log level 'verbose'"),
        ({"enclave.runtime.loglevel": "INFO"}, "unknown enclave log level 'INFO'"),
        ({"enclave.attestation.ra_type": "dcap"}, "unknown attestation type 'dcap'"),
        (
            {"enclave.attestation.ra_type": "EPIDlinkable"},
            "The enclave.attestation.ra_epid_spid Configuration isn't set!",
        ),
        (
            {"enclave.attestation.ra_type": "epidUnlinkable", "enclave.attestation.ra_epid_spid": "00"},
            "The enclave.attestation.ra_epid_subscription_key Configuration isn't set!",
        ),
        (
            {"enclave.attestation.ra_type": "ECDSA"},
            "attestation at start (ra_type ecdsa) is not supported yet",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_these_words(settings: dict[str, str], message: str) -> None:
    with pytest.raises(EnclaveError) as caught:
        read([], {**ANNOTATIONS, **settings})
    assert caught.value.message == message


def test_the_type_is_judged_before_the_path() -> None:
    with pytest.raises(EnclaveError, match="Enclave hardware type"):
        read(["ENCLAVE_TYPE=other"], {})


def test_the_state_says_all_but_the_subscription_key() -> None:
    values = {"type": "intelSgx", "path": "/lib/pal.so", "args": "a,b", "ra_epid_subscription_key": "secret"}
    assert EnclaveConfig(values).state() == {
        "Enclave": {
            "type": "intelSgx",
            "path": "/lib/pal.so",
            "args": "a b",
            "loglevel": "info",
            "ra_type": "",
            "ra_epid_spid": "",
            "ra_epid_subscription_key": "",
        }
    }


@pytest.mark.parametrize("variable", ["ENCLAVE_RA_EPID_SUB_KEY", "ENCLAVE_RA_EPID_SPID"])
def test_a_secret_that_nothing_would_use_is_refused(variable: str) -> None:
    with pytest.raises(EnclaveError, match="attestation at start is not supported yet") as caught:
        read([*VARIABLES, f"{variable}=0123secret"], {})
    assert "0123secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("requested", "has_sgx", "platform"),
    [
        ("", True, "hardware"),
        ("hardware", True, "hardware"),
        ("auto", True, "hardware"),
        ("auto", False, "emulated"),
        ("emulated", True, "emulated"),
        ("emulated", False, "emulated"),
    ],
)
def test_the_platform_is_the_one_that_was_asked_for(requested: str, platform: str, *, has_sgx: bool) -> None:
    assert choose_platform(requested, has_sgx=has_sgx) == platform


@pytest.mark.parametrize("requested", ["", "hardware"])
def test_without_sgx_nothing_is_emulated_unasked_and_the_hint_names_every_switch(requested: str) -> None:
    with pytest.raises(EnclaveError, match=r"Enclave hardware type \(intelSgx\) is not supported") as caught:
        choose_platform(requested, has_sgx=False)
    for switch in (
        "--sgx-platform emulated",
        "RUNE_SGX_PLATFORM=emulated",
        'platform = "emulated"',
        "[sgx]",
        "/etc/inclavare-containers/config.toml",
    ):
        assert switch in caught.value.hint


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(EnclaveError, match="unknown SGX platform 'simulated'"):
        choose_platform("simulated", has_sgx=True)


KNOWN = [variable for variable, _ in KEYS.values()]
ENTRIES = st.lists(st.tuples(st.sampled_from([*KNOWN, "PATH", "", "ENCLAVE_X"]), st.sampled_from(["", "="]), st.text()))
SETTINGS = st.dictionaries(st.sampled_from([annotation for _, annotation in KEYS.values()]) | st.text(), st.text())


@given(ENTRIES, SETTINGS)
def test_any_settings_give_a_configuration_or_our_error(
    entries: list[tuple[str, str, str]], settings: dict[str, str]
) -> None:
    env = ["".join(entry) for entry in entries]
    try:
        config, rest = read(env, settings)
    except InclavareError:
        return
    if config is None:
        assert rest == env
    else:
        assert not [entry for entry in rest if entry.partition("=")[0] in KNOWN]
        assert [entry for entry in env if entry in rest] == rest
