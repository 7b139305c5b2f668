"""`make demo`, as a visitor runs it: what it shows, and that nothing of it is left, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which temporary files are made in a folder of the test's own."""
    (tmp_path / "temporary").mkdir()
    return dict(os.environ) | {"TMPDIR": str(tmp_path / "temporary")}


def test_the_demo_shows_the_greeting_the_measurement_and_the_platform(
    checkout: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    for _ in range(2):  # the second time on a used machine
        done = subprocess.run(
            ["make", "--silent", "demo"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (checkout / "native/skeleton/MRENCLAVE").read_text().strip() in done.stdout
        for shown in (
            "Hello Inclavare Containers!",
            "Enclave runtime skeleton initialization succeeded",
            "platform: emulated",
            "SGX_INVALID_MEASUREMENT",
            '"platform": "emulated"',
            "now there is no state, mount, cgroup or process of it",
        ):
            assert shown in done.stdout
        assert not _left(tmp_path)


@pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd (Debian package containerd)")
def test_the_demo_of_containerd_shows_tasks_a_crash_and_a_verified_quote(
    checkout: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        ["make", "--silent", "demo-containerd"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "hello from process 1",
        "PAUSED",
        "exit with non-zero exit code 137",
        "One shim serves the three",
        "still here",
        "Hello Inclavare Containers!",
        "Enclave runtime skeleton initialization succeeded",
        "SIMULATED, ACCEPTED",
        (checkout / "native/skeleton/MRENCLAVE").read_text().strip(),
        "now there is no state, socket, mount, cgroup",
    ):
        assert shown in done.stdout
    assert not done.stderr
    assert not _left(tmp_path)


def test_a_demo_that_shows_something_else_fails(checkout: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    other = tmp_path / "other"
    for name in ("build", "src"):
        other.mkdir(exist_ok=True)
        (other / name).symlink_to(checkout / name)
    shutil.copytree(checkout / "demo", other / "demo")
    (other / "native/skeleton").mkdir(parents=True)
    (other / "native/skeleton/MRENCLAVE").write_text("00" * 32 + "\n")
    done = subprocess.run([other / "demo/run.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "demo: the image is not the expected one" in done.stderr
    assert not _left(tmp_path)


@pytest.mark.parametrize(
    ("script", "title", "signal_number"),
    [
        ("run.sh", "== A container", signal.SIGINT),
        ("run.sh", "== The same", signal.SIGTERM),
        ("run.sh", "== Where it ran", signal.SIGINT),
        ("run.sh", "== What is left", signal.SIGHUP),
        ("containerd.sh", "== A containerd", signal.SIGTERM),
        ("containerd.sh", "== The life", signal.SIGINT),
        ("containerd.sh", "== containerd crashes", signal.SIGHUP),
        ("containerd.sh", "== Its quote", signal.SIGINT),
    ],
)
def test_an_interrupted_demo_cleans_up(
    checkout: Path, tmp_path: Path, environment: dict[str, str], script: str, title: str, signal_number: signal.Signals
) -> None:
    if script == "containerd.sh" and shutil.which("containerd") is None:
        pytest.skip("needs containerd (Debian package containerd)")
    demo = subprocess.Popen(
        [checkout / "demo" / script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(title):
            os.killpg(demo.pid, signal_number)  # as a terminal does
            break
    else:
        pytest.fail(f"the demo never says {title!r}")
    demo.stdout.read()
    assert demo.wait(timeout=60) == 128 + signal_number
    assert not _left(tmp_path)
    assert not [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"inclavare-demo-{demo.pid}" in path]
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if str(tmp_path).encode() in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended
        return b""


def _left(directory: Path) -> list[Path]:
    return list((directory / "temporary").iterdir())
