"""Which carrier a bundle asks for, and what becomes of config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inclavare.carriers import choose, is_asked_for
from inclavare.errors import EnclaveError, HostError, SpecError

if TYPE_CHECKING:
    from tests.unit.carriers.conftest import Bundle


def configuration(env: list[str], annotations: dict[str, str]) -> dict[str, object]:
    return {"process": {"env": env}, "annotations": annotations}


@pytest.mark.parametrize(
    ("env", "annotations", "default", "name"),
    [
        ([], {}, "none", "none"),
        ([], {}, "skeleton", "skeleton"),
        (["A=1", "RUNE_CARRIER=skeleton"], {}, "none", "skeleton"),
        (["RUNE_CARRIER=skeleton", "RUNE_CARRIER=none"], {}, "none", "skeleton"),
        (["RUNE_CARRIER="], {"enclave.carrier": "skeleton"}, "skeleton", ""),
        (["RUNE_CARRIER=empty"], {"enclave.carrier": "skeleton"}, "skeleton", "empty"),
        ([], {"enclave.carrier": "skeleton"}, "none", "skeleton"),
        (["RUNE_CARRIER"], {}, "none", "none"),
    ],
)
def test_the_variable_wins_over_the_annotation_and_that_over_the_default(
    env: list[str], annotations: dict[str, str], default: str, name: str
) -> None:
    assert choose(configuration(env, annotations), default) == name


def test_a_pods_annotation_is_for_its_containers_and_not_for_the_one_that_holds_its_namespaces() -> None:
    sandbox = {"io.kubernetes.cri.container-type": "sandbox", "enclave.carrier": "skeleton"}
    assert choose(configuration([], sandbox), "skeleton") == ""
    assert choose(configuration(["RUNE_CARRIER=skeleton"], sandbox), "none") == "skeleton"


@pytest.mark.parametrize(
    ("env", "annotations", "is_asked"),
    [
        ([], {}, False),
        (["RUNE_CARRIER=none"], {"enclave.carrier": "skeleton"}, False),
        (["RUNE_CARRIER=skeleton"], {}, True),
        ([], {"enclave.carrier": "skeleton"}, True),
        (["RUNE_CARRIER=Occlum"], {}, True),  # so that it is refused
        (["RUNE_CARRIER=graphene"], {}, True),
    ],
)
def test_a_configuration_that_asks_for_no_carrier_is_known_without_the_administrators_file(
    env: list[str], annotations: dict[str, str], *, is_asked: bool
) -> None:
    assert is_asked_for(configuration(env, annotations)) is is_asked


def test_a_configuration_without_process_has_the_default_carrier() -> None:
    assert choose({}, "none") == "none"


def test_an_unknown_carrier_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(EnclaveError, match="unexpected carrier kind: Occlum: unknown carrier") as caught:
        choose(configuration(["RUNE_CARRIER=Occlum"], {}), "none")
    assert "none, empty, occlum, skeleton" in caught.value.hint


def test_graphene_is_refused_by_name() -> None:
    with pytest.raises(EnclaveError, match="Carrier graphene has not been implemented"):
        choose(configuration(["RUNE_CARRIER=graphene"], {}), "none")


@pytest.mark.parametrize("name", ["", "none", "empty"])
def test_without_a_carrier_nothing_is_changed(bundle: Bundle, name: str) -> None:
    bundle.env.append(f"RUNE_CARRIER={name}")
    bundle.write()
    before = bundle.files()
    assert bundle.prepare() == ""
    assert bundle.files() == before


def test_a_bundle_without_configuration_is_an_error(bundle: Bundle) -> None:
    bundle.write()
    (bundle.path / "config.json").unlink()
    bundle.write = lambda: None  # type: ignore[method-assign]
    with pytest.raises(HostError, match=r"cannot read .*config\.json"):
        bundle.prepare()


@pytest.mark.parametrize(
    ("process", "path"),
    [({"cwd": "run"}, "process.cwd"), ({"cwd": None}, "process.cwd")],
)
def test_what_a_carrier_needs_of_the_configuration_is_named(
    bundle: Bundle, process: dict[str, object], path: str
) -> None:
    bundle.env.append("RUNE_CARRIER=skeleton")
    bundle.config["process"].update(process)
    with pytest.raises(SpecError) as caught:
        bundle.prepare()
    assert caught.value.path == path


def test_a_default_carrier_is_the_administrators_word(bundle: Bundle) -> None:
    bundle.settings.carrier = "skeleton"
    bundle.prepare()
    assert "ENCLAVE_TYPE=intelSgx" in bundle.written()["process"]["env"]


def test_variables_are_added_behind_the_others_and_everything_else_stays(bundle: Bundle) -> None:
    bundle.env.extend(["RUNE_CARRIER=skeleton", "Z=1", "A=ü", "A=2", "B=\udc80"])
    bundle.config["unknown"] = {"number": 1.5, "large": 1 << 70, "none": None}
    bundle.write()
    (bundle.path / "config.json").chmod(0o640)
    bundle.prepare()
    document = bundle.written()
    env = document["process"].pop("env")
    assert env[: len(bundle.env)] == bundle.env
    assert [entry.partition("=")[0] for entry in env[len(bundle.env) :]] == [
        "ENCLAVE_TYPE",
        "ENCLAVE_RUNTIME_PATH",
        "ENCLAVE_RUNTIME_ARGS",
    ]
    bundle.config["process"].pop("env")
    assert document == bundle.config
    assert (bundle.path / "config.json").stat().st_mode & 0o777 == 0o640


def test_what_the_bundle_says_of_its_enclave_is_not_replaced(bundle: Bundle) -> None:
    bundle.env.extend(["RUNE_CARRIER=skeleton", "ENCLAVE_TYPE=other"])
    bundle.config["annotations"] = {"enclave.runtime.path": "/opt/pal.so", "enclave.runtime.args": "a"}
    bundle.prepare()
    assert bundle.written()["process"]["env"] == bundle.env
