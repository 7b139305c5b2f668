"""What pyproject.toml cannot say: `pip install .` builds the native parts with make and puts them in the wheel.

The wheel fits any Python 3 on this kind of machine: the native parts are programs and libraries of their own, no
extension modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

BUILD = "build/wheel"  # `build` itself is make's


class _BuildWithNativeParts(build_py):
    def run(self) -> None:
        """Run make, then collect the package, without what an earlier build left."""
        subprocess.run(["make", "--silent", "all"], check=True)
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class _WheelForAnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag (python, ABI, platform)."""
        return "py3", "none", super().get_tag()[2]


class _DistributionOfPrograms(Distribution):
    def has_ext_modules(self) -> bool:
        """Say that the wheel is for one platform only."""
        return True


os.makedirs(BUILD, exist_ok=True)
setup(
    distclass=_DistributionOfPrograms,
    cmdclass={"build_py": _BuildWithNativeParts, "bdist_wheel": _WheelForAnyPython},
    options={"build": {"build_base": BUILD}, "egg_info": {"egg_base": BUILD}},
)
