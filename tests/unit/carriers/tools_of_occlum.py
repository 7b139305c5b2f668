"""`occlum` and `sgx_sign` as far as a carrier sees them. They fail when they are called in another way than these.

They write each call to the file $OCCLUM_TEST_CALLS. As the real ones they decide nothing by chance: what `occlum build`
makes depends on the image and Occlum.json only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from inclavare.sgx.sign import SigningParameters, unsigned
from inclavare.sgx.sigstruct import to_be_signed


def main() -> None:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    with Path(os.environ["OCCLUM_TEST_CALLS"]).open("a") as file:
        file.write(" ".join([name, *words[:1]]) + "\n")
    require(os.environ["LC_ALL"] == "C.UTF-8", "LC_ALL")
    require("RUNE_SECRET" not in os.environ, "containerd's own variables do not concern it")
    for variable in ("HOME", "TMPDIR"):
        place = Path(os.environ[variable])
        require(place.stat().st_mode & 0o777 == 0o700 and not list(place.iterdir()), f"{variable} is private and empty")
    require(not sys.stdin.read(), "no input")
    {"occlum": occlum, "sgx_sign": sgx_sign}[name](words)


def require(condition: object, what: str) -> None:
    if not condition:
        sys.exit(f"called wrongly: {what}")


def occlum(words: list[str]) -> None:
    if words == ["init"]:
        require(not list(Path().iterdir()), "init works in an empty directory")
        require(Path().stat().st_mode & 0o077 == 0, "the directory is private")
        for name in ("bin", "etc", "host", "lib64", "proc", "tmp"):
            Path("image", name).mkdir(parents=True)
        Path("image/etc/hosts").write_text("Occlum's\n")
        Path("run").mkdir()
        Path("initfs/etc").mkdir(parents=True)
        Path("Occlum.json").write_text('{"this": "is a template"}')
        Path(".__occlum_status").write_text("initialized\n")
    elif words == ["build"]:
        require(Path(".__occlum_status").read_text() == "initialized\n", "init comes first")
        configuration = Path("Occlum.json").read_bytes()
        require("entry_points" in json.loads(configuration), "Occlum.json is the template")
        if "OCCLUM_TEST_FAILS" in os.environ:
            print("error: out of \x1b[1menclave\x1b[0m memory")
            sys.exit(7)
        time.sleep(float(os.environ.get("OCCLUM_TEST_SLOW", "0")))
        if "OCCLUM_TEST_HANGS" in os.environ:
            Path(os.environ["OCCLUM_TEST_HANGS"]).write_text(str(os.getpid()))
            subprocess.run(["sleep", "1000"], check=True)
        files = sorted(str(path.relative_to("image")) for path in Path("image").rglob("*"))
        contents = [Path("image", name).read_bytes() for name in files if Path("image", name).is_file()]
        Path("build/mount/__ROOT").mkdir(parents=True)
        Path("build/mount/__ROOT/metadata").write_text("\n".join(files))
        Path("build/lib").mkdir()
        library = hashlib.sha256(configuration + b"\0".join(contents)).hexdigest()
        Path("build/lib/libocclum-libos.so.0.29").write_text(library)
        Path("build/lib/libocclum-libos.so.0").symlink_to("libocclum-libos.so.0.29")
        Path("build/lib/libocclum-libos.signed.so").write_text("by the key that comes with Occlum")
        Path("build/Enclave.xml").write_text("<EnclaveConfiguration/>")
        Path(".__occlum_status").write_text("built\n")
    else:
        require(condition=False, what=f"{words}")


def sgx_sign(words: list[str]) -> None:
    command, options = words[0], dict(zip(words[1::2], words[2::2], strict=True))
    expected = {"gendata": {"-enclave", "-config", "-out"}}
    expected["catsig"] = expected["gendata"] | {"-key", "-sig", "-unsigned"}
    require(set(options) == expected[command], f"{words}")
    require(all(value.startswith("/") for value in options.values()), "paths are absolute")
    require(Path(options["-config"]).read_text() == "<EnclaveConfiguration/>", "the configuration that was built")
    enclave = Path(options["-enclave"])
    require(enclave.name == "libocclum-libos.so", "the enclave's name")
    parameters = SigningParameters(isvprodid=1)
    material = to_be_signed(unsigned(hashlib.sha256(enclave.read_bytes()).digest(), parameters))
    out = Path(options["-out"])
    require(not out.exists(), "nothing is overwritten")
    if command == "gendata":
        out.write_bytes(material)
        return
    require(Path(options["-unsigned"]).read_bytes() == material, "the same material")
    check = ["openssl", "dgst", "-sha256", "-verify", options["-key"], "-signature", options["-sig"]]
    subprocess.run([*check, options["-unsigned"]], check=True, stdout=subprocess.DEVNULL)
    key = Path(options["-key"]).read_text()
    out.write_text(f"{enclave.read_text()}\n{key}")


if __name__ == "__main__":
    main()
