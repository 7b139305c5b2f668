"""The manifests for Kubernetes name what there is: runtime class, annotations, variables, enclave runtimes."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from inclavare.doctor.registration import RUNTIME, register_containerd
from inclavare.enclave.config import KEYS

MANIFESTS = Path(__file__).parents[3] / "tools/kubernetes"
PODS = sorted(MANIFESTS.glob("pod-*.yaml"))


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^[ -]*{re.escape(key)}: (\S+)$", text, re.MULTILINE)


def test_the_runtime_class_is_containerds_runtime() -> None:
    text = (MANIFESTS / "runtimeclass.yaml").read_text()
    assert values(text, "apiVersion") == ["node.k8s.io/v1"]
    assert values(text, "handler") == [RUNTIME]
    (name,) = values(text, "name")
    assert PODS
    assert all(values(pod.read_text(), "runtimeClassName") == [name] for pod in PODS)


@pytest.mark.parametrize("path", sorted(MANIFESTS.iterdir()), ids=lambda path: path.name)
def test_a_manifest_is_indented_by_pairs_of_blanks(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert re.fullmatch(r"(#.*|(  )*(- )?[\w.]+:( \S.*)?)", line), line


def test_annotations_are_known_and_passed_on_by_containerd() -> None:
    used = re.findall(r"^ +(enclave\.[\w.]+): ", (MANIFESTS / "pod-annotations.yaml").read_text(), re.MULTILINE)
    assert len(used) == 3
    assert set(used) <= {annotation for _, annotation in KEYS.values()}
    (pattern,) = re.findall(r'^  pod_annotations = \["(.*)"\]$', register_containerd("", "f", "/"), re.MULTILINE)
    assert all(fnmatch.fnmatch(name, pattern) for name in used)


def test_variables_are_known() -> None:
    used = re.findall(r"- name: ([A-Z_]+)$", (MANIFESTS / "pod-environment.yaml").read_text(), re.MULTILINE)
    assert len(used) == 3
    assert set(used) <= {variable for variable, _ in KEYS.values()}


@pytest.mark.parametrize("path", PODS, ids=lambda path: path.name)
def test_the_enclave_runtime_is_one_that_is_built(path: Path) -> None:
    (name,) = re.findall(r"/usr/local/lib/(\S+\.so)", path.read_text())
    assert (MANIFESTS.parents[1] / "src/inclavare/_native" / name).is_file()
