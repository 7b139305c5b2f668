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
    ("title", "signal_number"),
    [
        ("== A container", signal.SIGINT),
        ("== The same", signal.SIGTERM),
        ("== Where it ran", signal.SIGINT),
        ("== What is left", signal.SIGHUP),
    ],
)
def test_an_interrupted_demo_cleans_up(
    checkout: Path, tmp_path: Path, environment: dict[str, str], title: str, signal_number: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [checkout / "demo/run.sh"],
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


def _left(directory: Path) -> list[Path]:
    return list((directory / "temporary").iterdir())
