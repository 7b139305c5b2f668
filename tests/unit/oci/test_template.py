from __future__ import annotations

import pytest

from inclavare.errors import UsageError
from inclavare.oci.jsontext import dumps, loads
from inclavare.oci.spec import parse
from inclavare.oci.template import template
from inclavare.oci.validate import validate


def test_the_template_is_a_configuration_that_runs() -> None:
    spec = parse(loads(dumps(template(), "\t").encode()))
    validate(spec)
    assert (spec.unknown, spec.warnings) == ([], [])
    assert (spec.process.args, spec.process.cwd, spec.process.terminal) == (["sh"], "/", True)
    assert (spec.hostname, spec.root.readonly, spec.annotations) == ("rune", True, {})


def test_the_skeleton_template_configures_the_enclave() -> None:
    spec = parse(template(enclave="skeleton", pal="/opt/pal.so"))
    validate(spec)
    assert (spec.process.args, spec.process.cwd, spec.process.terminal) == (["skeleton"], "/run/rune", False)
    assert spec.annotations == {
        "enclave.type": "intelSgx",
        "enclave.runtime.path": "/opt/pal.so",
        "enclave.runtime.args": "debug",
        "enclave.runtime.loglevel": "info",
    }
    assert not any("aesmd" in mount.destination for mount in spec.mounts)


def test_the_template_is_indented_with_tabs() -> None:
    assert dumps(template(), "\t").startswith('{\n\t"ociVersion": "1.3.0",\n\t"process": {\n\t\t"terminal": true,')


def test_another_enclave_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no template for the enclave 'muscle'") as caught:
        template(enclave="muscle")
    assert caught.value.hint == "known are: skeleton"
