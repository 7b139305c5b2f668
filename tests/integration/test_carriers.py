"""An ordinary image becomes an enclave container: prepared by a carrier, run by rune on the software platform."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare import carriers
from inclavare.log import Log
from inclavare.wire import ttrpc
from tests.conftest import Bundle, Rune
from tests.containerd_kit.ttrpc import RpcError
from tests.integration.conftest import Docker
from tests.integration.shim import Shim, wait_until
from tests.unit.carriers.conftest import emulated_settings, make_occlum

GREETING = "Hello Inclavare Containers!\n"
SUCCESS = "Enclave runtime skeleton initialization succeeded"
SETTINGS = """
[sgx]
platform = "emulated"
[signature]
throw_away_key = true
[cache]
size = 0
"""


@pytest.fixture
def emulated(rune: Rune) -> Rune:
    rune.options = ("--sgx-platform", "emulated")
    return rune


@pytest.mark.parametrize("cwd", ["/", "/run/rune"])
def test_a_busybox_image_runs_in_the_skeletons_enclave(emulated: Rune, busybox_bundle: Bundle, cwd: str) -> None:
    busybox_bundle.config["process"]["env"].append("RUNE_CARRIER=skeleton")
    busybox_bundle.config["process"]["cwd"] = cwd
    bundle = busybox_bundle.write()
    carriers.prepare(str(bundle), emulated_settings(), Log(sys.stderr.fileno()), {})
    done = emulated("run", "--bundle", bundle, "skeleton")
    assert done.returncode == 0, done.stderr
    assert GREETING in done.stdout
    assert SUCCESS in done.stdout + done.stderr


def test_the_same_image_without_a_carrier_is_an_ordinary_container(emulated: Rune, busybox_bundle: Bundle) -> None:
    busybox_bundle.config["process"]["args"] = ["echo", "plain"]
    bundle: Path = busybox_bundle.write()
    carriers.prepare(str(bundle), emulated_settings(), Log(sys.stderr.fileno()), {})
    done = emulated("run", "--bundle", bundle, "plain")
    assert (done.returncode, done.stdout) == (0, "plain\n"), done.stderr


# --- the shim as containerd starts it ---------------------------------------------------------------------------------


@pytest.fixture
def settings() -> str:
    return SETTINGS


@pytest.fixture
def shim(rune_program: Path, tmp_path: Path, settings: str, as_root: None) -> Iterator[Shim]:
    del as_root
    made = Shim(rune_program.with_name("containerd-shim-rune-v2"), tmp_path, settings)
    yield made
    made.end()


@pytest.fixture
def occlum(tmp_path: Path) -> Path:
    """Return the tree of a stand-in for Occlum; beside it is `programs`."""
    return make_occlum(tmp_path)


@pytest.fixture
def image(busybox_bundle: Bundle, tmp_path: Path) -> dict[str, Any]:
    """Return what Create says of a bundle whose root filesystem is still to be mounted: an image and a layer above."""
    busybox_bundle.rootfs.rename(tmp_path / "image")
    for name in ("bundle/rootfs", "upper", "overlay"):
        (tmp_path / name).mkdir()
    options = [f"lowerdir={tmp_path}/image", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/overlay"]
    busybox_bundle.config["root"] = {"path": "rootfs"}
    busybox_bundle.config["process"].update(cwd="/run/rune", args=["skeleton"])
    return {
        "id": "task",
        "bundle": str(busybox_bundle.path),
        "rootfs": [{"type": "overlay", "source": "overlay", "options": options}],
        "stdout": f"file://{tmp_path}/output",
    }


def change(request: dict[str, Any], env: str = "", annotations: dict[str, str] | None = None) -> Path:
    """Write the configuration of a bundle, with another variable and annotations; give the bundle."""
    bundle = Path(request["bundle"])
    made = Bundle(bundle)
    made.config["root"] = {"path": "rootfs"}
    made.config["process"].update(cwd="/run/rune", args=["skeleton"])
    made.config["process"]["env"].extend([env] if env else [])
    made.config["annotations"] = annotations or {}
    return made.write()


@pytest.mark.parametrize(("env", "annotations"), [("RUNE_CARRIER=skeleton", {}), ("", {"enclave.carrier": "skeleton"})])
def test_the_shim_has_the_carrier_prepare_the_enclave(
    shim: Shim, image: dict[str, Any], tmp_path: Path, env: str, annotations: dict[str, str]
) -> None:
    shim.start(change(image, env, annotations), "task")
    assert shim.call("Create", **image).pid
    assert sorted(os.listdir(tmp_path / "upper/run/rune")) == ["encl.bin", "encl.ss"]
    shim.call("Start", id="task")
    assert shim.call("Wait", id="task").exit_status == 0
    output = (tmp_path / "output").read_text()
    assert GREETING in output
    assert SUCCESS in output
    assert b"carrier skeleton: the enclave signed" in shim.log
    shim.call("Delete", id="task")
    assert not shim.mounts()
    shim.call("Shutdown", id="task")
    wait_until(lambda: not shim.lives(), "the shim does not end")


@pytest.mark.parametrize("settings", ['[enclave_runtime]\ncarrier = "skeleton"\n' + SETTINGS])
def test_the_administrators_carrier_is_for_containers_and_not_for_the_one_that_is_the_pod(
    shim: Shim, image: dict[str, Any], tmp_path: Path
) -> None:
    kind = "io.kubernetes.cri.container-type"
    bundle = change(image, annotations={kind: "sandbox", "enclave.carrier": "skeleton"})
    shim.start(bundle, "task")
    with pytest.raises(RpcError, match="executable file not found"):  # busybox has no applet `skeleton`
        shim.call("Create", **image)
    assert not list((tmp_path / "upper").rglob("encl.*"))
    change(image, annotations={kind: "container"})
    assert shim.call("Create", **image).pid
    assert list((tmp_path / "upper").rglob("encl.*"))
    shim.call("Kill", id="task", signal=9)
    shim.call("Wait", id="task")
    shim.call("Delete", id="task")


@pytest.mark.parametrize("settings", ["# with a fault\n[cache]\nsize = -1\n"])
def test_a_broken_file_is_named_with_its_line_to_those_who_need_it(
    shim: Shim, image: dict[str, Any], tmp_path: Path
) -> None:
    shim.start(change(image, "RUNE_CARRIER=skeleton"), "task")
    with pytest.raises(RpcError, match=r"config\.toml, line 3: cache\.size is -1"):
        shim.call("Create", **image)
    assert not shim.mounts()
    change(image)
    with pytest.raises(RpcError, match="executable file not found"):  # an ordinary container gets as far as that
        shim.call("Create", **image)
    assert not list((tmp_path / "upper").rglob("encl.*"))


def test_the_shim_has_occlum_build_an_instance_and_gives_it_to_rune(
    shim: Shim, image: dict[str, Any], tmp_path: Path, occlum: Path, native: Path
) -> None:
    """With the skeleton in the place of Occlum's PAL, and its enclave in the image: there is no Occlum to run it."""
    shim.environment = {
        "PATH": f"{occlum.parent}/programs:{os.environ['PATH']}",
        "OCCLUM_TEST_CALLS": f"{tmp_path}/calls",
    }
    pal = native / "liberpal-skeleton-v3.so"
    (tmp_path / "etc/inclavare-containers/config.toml").write_text(
        f'{SETTINGS}directory = "{tmp_path}/cache"\n[enclave_runtime.occlum]\n'
        f'enclave_runtime_path = "{pal}"\nenclave_libos_path = "{occlum}/build/lib/libocclum-libos.so"\n'
    )
    place = tmp_path / "image/run/rune"
    place.mkdir(parents=True)
    for name in ("encl.bin", "encl.ss"):
        shutil.copy(native / "skeleton" / name, place)
    bundle = change(image, "RUNE_CARRIER=occlum")
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["/bin/busybox"]
    (bundle / "config.json").write_text(json.dumps(config))
    shim.start(bundle, "task")
    assert shim.call("Create", **image).pid
    assert (tmp_path / "calls").read_text().splitlines() == [
        "occlum init",
        "occlum build",
        "sgx_sign gendata",
        "sgx_sign catsig",
    ]
    assert (tmp_path / "upper/run/rune/build/lib/libocclum-libos.signed.so").is_file()
    assert GREETING in (tmp_path / "output").read_text()
    assert not list((tmp_path / "cache/building").iterdir())
    shim.call("Kill", id="task", signal=9)
    shim.call("Wait", id="task")
    shim.call("Delete", id="task")


@pytest.fixture
def never(tmp_path: Path) -> str:
    """Return settings with an enclave that never can be read: nobody writes into the FIFO."""
    os.mkfifo(tmp_path / "encl.bin")
    return f'{SETTINGS}[enclave_runtime.skeleton]\nenclave_path = "{tmp_path}/encl.bin"\n'


def is_building(shim: Shim) -> bool:
    """Tell whether a carrier's process waits in open(2) for somebody who writes the enclave."""
    return any(_wait_channel(pid) in ("wait_for_partner", "fifo_open") for pid in shim.children())


def _wait_channel(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:  # it has ended
        return ""


class TestCancelled:
    """A creation that would take for ever ends, and nothing of it is left."""

    @pytest.fixture
    def settings(self, never: str) -> str:
        return never

    @pytest.fixture
    def begun(self, shim: Shim, image: dict[str, Any]) -> Callable[..., Callable[[], Any]]:
        """Return a function that begins a Create, waits until the carrier works, and returns how to get the answer."""
        shim.start(change(image, "RUNE_CARRIER=skeleton"), "task")

        def begin(**values: Any) -> Callable[[], Any]:
            answer = shim.begin("Create", **image, **values)
            wait_until(lambda: is_building(shim), "no carrier works")
            return answer

        return begin

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, shim: Shim, begun: object, tmp_path: Path) -> Iterator[None]:
        del begun
        before = (tmp_path / "bundle/config.json").read_text()
        yield
        assert not list((tmp_path / "upper").iterdir())
        assert not [path for path in (tmp_path / "bundle").iterdir() if path.name.startswith(".carrier")]
        assert (tmp_path / "bundle/config.json").read_text() == before
        if shim.lives():
            assert not shim.mounts()
            wait_until(lambda: not shim.children(), "something goes on")
            assert b"Traceback" not in shim.log

    @pytest.mark.parametrize(
        ("method", "values", "refusal"),
        [("Kill", {"signal": 9}, 0), ("Delete", {}, ttrpc.NOT_FOUND), ("Shutdown", {"now": True}, 0)],
    )
    def test_a_call_for_the_container_ends_it(
        self, shim: Shim, begun: Callable[..., Any], method: str, values: dict[str, Any], refusal: int
    ) -> None:
        answer = begun()
        if refusal:
            with pytest.raises(RpcError) as caught:
                shim.call(method, id="task", **values)
            assert caught.value.code == refusal
        else:
            shim.call(method, id="task", **values)
        refused = answer()
        assert isinstance(refused, RpcError)
        assert (refused.code, refused.message) == (ttrpc.CANCELLED, "container task: its creation was ended")
        if method == "Shutdown":
            wait_until(lambda: not shim.lives(), "the shim does not end")

    def test_the_time_that_containerd_gives_ends_it(self, begun: Callable[..., Any]) -> None:
        refused = begun(timeout_s=3)()
        assert isinstance(refused, RpcError)
        assert refused.code == ttrpc.DEADLINE_EXCEEDED

    def test_a_shutdown_for_another_container_does_not(self, shim: Shim, begun: Callable[..., Any]) -> None:
        answer = begun()
        shim.call("Shutdown", id="other")
        assert shim.children()
        with pytest.raises(RpcError, match="already exists"):
            shim.call("Create", id="task", bundle="/none")
        shim.call("Kill", id="task", signal=15)
        assert isinstance(answer(), RpcError)

    def test_other_containers_of_the_shim_go_on(self, shim: Shim, begun: Callable[..., Any], tmp_path: Path) -> None:
        answer = begun()
        other = Bundle(tmp_path / "other")
        other.path.mkdir()
        other.config["root"] = {"path": str(tmp_path / "image")}
        other.config["process"]["args"] = ["echo", "here"]
        other.config["linux"]["cgroupsPath"] += "-other"
        shim.call("Create", id="other", bundle=str(other.write()), stdout=f"file://{tmp_path}/here")
        shim.call("Start", id="other")
        assert shim.call("Wait", id="other").exit_status == 0
        shim.call("Delete", id="other")
        assert (tmp_path / "here").read_text() == "here\n"
        assert is_building(shim)
        shim.call("Kill", id="task", signal=9)
        assert isinstance(answer(), RpcError)

    def test_the_death_of_the_shim_ends_it(self, shim: Shim, begun: Callable[..., Any], tmp_path: Path) -> None:
        begun()
        children = shim.children()
        mounted = Path(f"/proc/{children[0]}/root{tmp_path}/bundle/rootfs/bin")
        assert mounted.is_dir()
        os.kill(shim.pid, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), "something goes on")

    def test_the_same_container_can_be_created_afterwards(
        self, shim: Shim, begun: Callable[..., Any], image: dict[str, Any], tmp_path: Path, native: Path
    ) -> None:
        answer = begun()
        shim.call("Kill", id="task", signal=9)
        answer()
        begun_again = shim.begin("Create", **image)
        with (tmp_path / "encl.bin").open("wb") as fifo:
            fifo.write((native / "skeleton/encl.bin").read_bytes())
        made = begun_again()
        assert made.pid
        shim.call("Kill", id="task", signal=9)
        shim.call("Wait", id="task")
        shim.call("Delete", id="task")
        shutil.rmtree(tmp_path / "upper")
        (tmp_path / "upper").mkdir()
        change(image, "RUNE_CARRIER=skeleton")


def test_a_task_of_containerds_is_prepared(docker: Docker, rune_program: Path, busybox_bundle: Bundle) -> None:
    place = ["nsenter", f"--target={docker.pid_of_containerd}", "--net", "--mount"]
    folder = "/etc/inclavare-containers"
    write = f"mkdir -p {folder} && cat >{folder}/config.toml"
    subprocess.run([*place, "sh", "-c", write], input=SETTINGS, text=True, check=True)
    try:
        words = ["ctr", "--address", f"{docker.directory}/containerd.sock", "run", "--rm", "--rootfs"]
        words += ["--runtime", str(rune_program.with_name("containerd-shim-rune-v2")), "--cwd", "/opt/rune"]
        words += ["--env", "RUNE_CARRIER=skeleton", "--cgroup", f"{docker.cgroup_parent}/carried"]
        words += [str(busybox_bundle.rootfs), f"carried-{os.getpid()}", "skeleton"]
        done = subprocess.run([*place, *words], capture_output=True, text=True, timeout=60, check=False)
    finally:
        subprocess.run([*place, "rm", "-r", folder], check=True)
    assert done.returncode == 0, done.stderr
    assert GREETING in done.stdout
    assert SUCCESS in done.stdout + done.stderr


def test_a_creation_whose_time_is_over_at_any_moment_leaves_nothing(shim: Shim, image: dict[str, Any]) -> None:
    """Also when the container is made already, and it is too late to tell the runtime."""
    bundle = change(image)
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=["sleep", "1000"])
    (bundle / "config.json").write_text(json.dumps(config))
    shim.start(bundle, "task")
    ends = []
    for step in range(80):
        try:
            shim.call("Create", timeout_s=0.0005 * (step + 1), **image)
        except RpcError as error:
            ends.append(error.code)
        else:
            shim.call("Kill", id="task", signal=9)
            shim.call("Wait", id="task")
            shim.call("Delete", id="task")
            ends.append(ttrpc.OK)
        wait_until(lambda: not shim.children(), "something goes on")
        assert not shim.mounts()
        assert not Path(f"/proc/{shim.pid}/root/run/containerd/runc/test/task").exists()
    assert set(ends) == {ttrpc.OK, ttrpc.DEADLINE_EXCEEDED}
    path = config["linux"]["cgroupsPath"].lstrip("/")
    assert not [group for depth in ("", "*/") for group in Path("/sys/fs/cgroup").glob(depth + path)]
    assert b"Traceback" not in shim.log


def test_a_container_without_a_carrier_pays_nothing_for_those(shim: Shim, image: dict[str, Any]) -> None:
    """No file of theirs is opened, and none of TOML."""
    request = json.loads(json.dumps(image))
    bundle = change(request)
    shim.start(bundle, "task")
    with subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "trace=openat,execve", "-p", str(shim.pid)],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stderr is not None
        wait_until(lambda: "TracerPid:\t0" not in Path(f"/proc/{shim.pid}/status").read_text(), "strace does not begin")
        with pytest.raises(RpcError, match="executable file not found"):
            shim.call("Create", **request)
        tracer.send_signal(signal.SIGINT)
        calls = tracer.stderr.read()
    assert "inclavare-containers/config.toml" in calls  # whether it names a carrier
    assert "tomllib" not in calls
    assert "/carriers/" not in calls
    assert "python3" not in calls
