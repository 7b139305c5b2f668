"""What docs/guides/containerd.md, kubernetes.md and occlum.md show of files, and what they say of options."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.carriers.occlum_config import occlum_json
from inclavare.doctor.registration import register_containerd, register_docker
from inclavare.enclave.hostconfig import HostConfig, read
from inclavare.shim.options import KEYS
from tests.conftest import Bundle
from tests.containerd_kit import schema
from tests.containerd_kit.ttrpc import RpcError
from tests.integration.shim import Shim

SHIM = "/usr/local/bin/containerd-shim-rune-v2"
KUBERNETES = Path("tools/kubernetes")


def blocks(checkout: Path, document: str, kind: str) -> list[str]:
    """Return what a document shows of a kind."""
    text = (checkout / "docs" / document).read_text()
    found = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found


def test_the_entries_are_those_that_are_written(checkout: Path) -> None:
    before, since, *_ = blocks(checkout, "guides/containerd.md", "toml")
    assert tomllib.loads(before) == tomllib.loads(register_containerd("", "f", SHIM))
    assert tomllib.loads(since) == tomllib.loads(register_containerd("version = 3\n", "f", SHIM))
    (docker,) = blocks(checkout, "guides/containerd.md", "json")
    assert docker == register_docker("", "f", SHIM)


def test_the_manifests_are_those_that_are_installed(checkout: Path) -> None:
    runtime_class, environment, annotations, carrier = blocks(checkout, "guides/kubernetes.md", "yaml")
    assert runtime_class in (checkout / KUBERNETES / "runtimeclass.yaml").read_text()
    assert environment in (checkout / KUBERNETES / "pod-environment.yaml").read_text()
    assert annotations in (checkout / KUBERNETES / "pod-annotations.yaml").read_text()
    assert "RUNE_CARRIER" in carrier


@pytest.mark.parametrize(
    ("document", "changed"),
    [
        ("guides/occlum.md", {"signature_server", "signature_ca_file", "signature_token_file"}),
        ("carriers.md", set()),
    ],
)
def test_the_administrators_file_is_understood_and_shows_defaults(
    checkout: Path, tmp_path: Path, document: str, changed: set[str]
) -> None:
    (text,) = blocks(checkout, document, "toml")
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(0o644)
    config = read(str(path))
    assert vars(config)
    assert {name for name, value in vars(config).items() if value != getattr(HostConfig, name)} == changed


def test_variables_of_occlum_have_the_defaults_that_the_guide_names(checkout: Path) -> None:
    text = (checkout / "docs/guides/occlum.md").read_text()
    rows = re.findall(r"^\| `OCCLUM_([A-Z_]+)`[^|]* \| `([a-z_.]+)` \| (\S+) \|$", text, re.MULTILINE)
    document = json.loads(occlum_json(["/bin/hello"], {}))
    for _, keys, default in rows:
        table, key = keys.split(".")
        value = document[table][key]
        assert default == (value[0] if isinstance(value, list) else str(value).lower().replace("mb", "MB")), keys
    source = (checkout / "src/inclavare/carriers/occlum_config.py").read_text()
    assert sorted(name for name, _, _ in rows) == sorted(re.findall(r'chosen\("([A-Z_]+)"', source))


@pytest.mark.parametrize(
    ("engine", "path"), [("containerd", "etc/containerd/config.toml"), ("docker", "etc/docker/daemon.json")]
)
def test_make_makes_the_shim_known_and_unknown(checkout: Path, tmp_path: Path, engine: str, path: str) -> None:
    def make(target: str) -> None:
        words = ["make", "--silent", f"{target}-{engine}", f"DESTDIR={tmp_path}"]
        subprocess.run(words, cwd=checkout, stdout=subprocess.DEVNULL, check=True)

    make("install")
    assert "io.containerd.rune.v2" in (tmp_path / path).read_text()
    make("uninstall")
    assert not (tmp_path / path).exists()


# --- options, as the shim gets them -----------------------------------------------------------------------------------


def test_the_guide_names_every_option(checkout: Path) -> None:
    text = (checkout / "docs/guides/containerd.md").read_text()
    part = text[text.index("## Options") : text.index("## Docker")]
    assert set(re.findall(r"`([A-Z][A-Za-z]+)`", part)) - {"BinaryName"} >= set(KEYS) - {"BinaryName"}


@pytest.fixture
def shim(rune_program: Path, tmp_path: Path, as_root: None) -> Iterator[Shim]:
    del as_root
    made = Shim(rune_program.with_name("containerd-shim-rune-v2"), tmp_path, "")
    yield made
    made.end()


@pytest.mark.parametrize("by", ["config_body", "config_path"])
def test_options_come_as_toml_in_the_message_or_in_a_file(
    shim: Shim, busybox_bundle: Bundle, tmp_path: Path, by: str
) -> None:
    busybox_bundle.config["root"] = {"path": "rootfs"}

    def options(text: str) -> Any:
        (tmp_path / "rune.toml").write_text(text)
        message = (
            {"config_body": text.encode()} if by == "config_body" else {"config_path": str(tmp_path / "rune.toml")}
        )
        return schema.pack("runtimeoptions.v1.Options", **message)

    bundle = busybox_bundle.write()
    shim.start(bundle, "task")
    request: dict[str, Any] = {"id": "task", "bundle": str(bundle)}
    with pytest.raises(RpcError, match="unknown key 'SystemCgroup'"):
        shim.call("Create", **request, options=options("SystemCgroup = true\n"))
    shim.call("Create", **request, options=options(f'Root = "{tmp_path}/root"\nBinaryName = "/none"\n'))
    assert os.listdir(tmp_path / "root/test") == ["task"]
    assert json.loads((bundle / "options.json").read_text())["root"] == f"{tmp_path}/root"
    shim.call("Kill", id="task", signal=9)
    shim.call("Wait", id="task")
    shim.call("Delete", id="task")
    assert not (tmp_path / "root/test/task").exists()
