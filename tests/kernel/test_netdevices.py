"""Network devices of the host that move into a container, made in a network namespace of the test's own."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel.conftest import Bundle, Rune

MAKE = (
    "ip link add one type veth peer name two && ip address add 192.0.2.7/24 broadcast 192.0.2.255 dev one && "
    "ip address add 2001:db8::7/64 dev one nodad && ip link set one up"
)


def _run(rune: Rune, bundle: Bundle, make: str = MAKE) -> subprocess.CompletedProcess[str]:
    words = rune.command("run", "--bundle", bundle.write(), "c")
    command = ["unshare", "-n", "sh", "-c", f'({make}) || exit 77; "$@"; s=$?; echo AFTER; ip -o link; exit $s', "sh"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip(f"no veth devices here: {done.stderr}")
    return done


@pytest.mark.parametrize("user", [False, True])
def test_a_device_moves_with_its_name_and_addresses(rune: Rune, bundle: Bundle, user: bool) -> None:
    if user:
        bundle.linux["namespaces"].append({"type": "user"})
        mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
        bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mapping
    bundle.linux["netDevices"] = {"one": {"name": "eth0"}, "two": {}}
    bundle.shell("ip address show eth0; ip address show two")
    done = _run(rune, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    inside, _, outside = done.stdout.partition("AFTER\n")
    assert "eth0: <BROADCAST,MULTICAST,UP,LOWER_UP>" in inside.replace("@two", "")
    assert "inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0" in inside
    assert "inet6 2001:db8::7/64 scope global" in inside
    assert "two: <BROADCAST,MULTICAST,UP,LOWER_UP>" in inside.replace("@eth0", "")
    assert "one" not in outside
    assert rune.leftovers() == []


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"absent": {}}, "cannot move the network device absent into the container as absent: No such device"),
        ({"one": {"name": "lo"}}, "cannot move the network device one into the container as lo: File exists"),
        ({"two": {"name": "eth0"}, "absent": {}}, "cannot move the network device absent"),
        ({"lo": {"name": "other"}}, "cannot move the network device lo into the container as other: "),
        ({"one": {"name": "a/b"}}, 'linux.netDevices.one: "a/b" cannot be the name of a network device'),
        ({"one": {"name": "sixteen-letters-"}}, "cannot be the name of a network device"),
        ({"one": {"name": "x"}, "two": {"name": "x"}}, "linux.netDevices.two: two devices are to be x"),
        ({"one": {"name": 7}}, "linux.netDevices.one.name: must be a string"),
    ],
)
def test_a_device_that_cannot_move_is_named(
    rune: Rune, bundle: Bundle, devices: dict[str, object], message: str
) -> None:
    bundle.linux["netDevices"] = devices
    done = _run(rune, bundle)
    assert done.returncode == 1
    assert message in done.stderr
    assert {"one", "two"} <= set(done.stdout.replace("@", ":").replace(" ", "").split(":")), done.stdout
    assert rune.leftovers() == []


def test_devices_need_a_network_namespace_to_move_to(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [item for item in bundle.linux["namespaces"] if item["type"] != "network"]
    bundle.linux["netDevices"] = {"lo": {}}
    result = rune.run(bundle)
    assert "linux.netDevices: unable to move network devices without a private NET namespace" in result.error
