"""Engines newer than the machine's: Debian packages of another release, unpacked beside it and never installed.

apt has a configuration of its own here, with the archive that the machine's own release comes from. What was fetched is
kept from one run of the tests to the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpacked(package: str, release: str) -> Path:
    """Return the folder with the files of a package as a release of Debian has it. Skips what cannot have it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inclavare/engines"
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / f"{package}-{release}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            try:
                _fetch(package, release, tree)
            except (OSError, subprocess.SubprocessError) as error:
                said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
                pytest.skip(f"cannot fetch Debian's package {package} of {release}: {error} {said}")
    return tree


def _fetch(package: str, release: str, tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
        work = Path(folder)
        (work / "sources.list").write_text(
            f"deb [signed-by={KEYRING} target=Packages] {_archive()} {release} main\n",
        )
        for name in ("lists/partial", "cache/archives/partial", "files"):
            (work / name).mkdir(parents=True)
        options = {
            "Dir::State::lists": work / "lists",
            "Dir::Cache": work / "cache",
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",  # the folder is nobody else's
        }
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        _run([*apt, "update"], work)
        _run([*apt, "download", package], work)
        (archive,) = work.glob("*.deb")
        _run(["dpkg-deb", "--extract", str(archive), "files"], work)
        shutil.move(work / "files", tree)


def _archive() -> str:
    """Return the address that the machine's release of Debian comes from."""
    release = _run(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"]).strip()
    would_fetch = _run(["apt-get", "--print-uris", "update"])
    found = re.search(rf"'(\S+)/dists/{release}/(?:In)?Release'", would_fetch)
    if not found:
        raise OSError(f"no archive of {release} among apt's sources")
    return found[1]


def _run(words: list[str], place: Path = Path("/")) -> str:
    done = subprocess.run(
        words, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout
