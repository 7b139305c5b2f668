"""The commands of docs/guides/offline-signing.md, as a reader types them, on a machine of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from inclavare.sgx.arch import Sigstruct

PREPARE = """
set -e
ip link set lo up
mkdir -p "$0/etc" "$0/overlay"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/overlay" /etc
echo 127.0.0.1 signer.example >>/etc/hosts
exec bash "$1"
"""
ASK = "curl --silent --fail --cacert /etc/signature/pki/tls.pem https://signer.example:9080/ping"
UNTIL_IT_LISTENS = f"for _ in $(seq 100); do {ASK} && break; sleep 0.1; done"
TITLE = re.compile(r"^## (.*)$", re.MULTILINE)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def guide(checkout: Path) -> dict[str, list[str]]:
    """Return the commands of the guide, by the titles above them."""
    first, *rest = TITLE.split((checkout / "docs/guides/offline-signing.md").read_text())
    parts = {"": first} | dict(zip(rest[::2], rest[1::2], strict=True))
    return {title: COMMANDS.findall(text) for title, text in parts.items()}


@pytest.mark.usefixtures("as_root")
def test_the_guides_commands_do_what_it_says(
    guide: dict[str, list[str]], checkout: Path, native: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(native / "skeleton/encl.bin", work)
    script = ["set -e", "trap 'kill $(jobs -p)' EXIT"]
    for title, commands in guide.items():
        for command in commands:
            # An examination of this machine lacks what it lacks.
            script.append(re.sub(r"^(runectl doctor .*?)( *#.*)?$", r"\1 || [ $? = 3 ]", command, flags=re.MULTILINE))
            if command.endswith("&\n"):
                script.append(UNTIL_IT_LISTENS)
        if title == "In two steps":
            script.append("cp encl.ss two-steps.ss")
    (work / "script").write_text("\n".join(script))
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", PREPARE, tmp_path, "script"],
        cwd=work,
        env={"PATH": f"{checkout}/build/bin:{os.environ['PATH']}", "HOME": str(work)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "https://signer.example:9080 listens" in done.stdout
    # Both ways the same key has signed the same, so the result is the same.
    assert (work / "encl.ss").read_bytes() == (work / "two-steps.ss").read_bytes()
    signed = Sigstruct.from_bytes((work / "encl.ss").read_bytes())
    assert (signed.isvsvn, signed.enclavehash.hex()) == (
        3,
        (checkout / "native/skeleton/MRENCLAVE").read_text().strip(),
    )
    (line,) = [json.loads(line) for line in (work / "signatures.jsonl").read_text().splitlines()]
    assert (line["token"], line["isvsvn"], line["debug"]) == ("node-1", 3, False)
    assert f"node-1 {signed.enclavehash.hex()} debug: false" in done.stdout


def test_the_guides_options_are_those_of_the_unit(guide: dict[str, list[str]]) -> None:
    """What is read from server.conf and what is typed differ in the audit log only."""
    commands = "".join(guide["A signature server"])
    (configured,) = re.findall(r'^OPTIONS="(.*)"$', commands, re.MULTILINE)
    (typed,) = re.findall(r"^runectl signature-server (.*?)&$", commands, re.MULTILINE | re.DOTALL)
    words = typed.replace("\\\n", " ").replace("'", "").split()
    assert words == [*configured.split(), "--audit", "signatures.jsonl"]
