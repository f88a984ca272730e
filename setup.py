"""The C builds that pyproject.toml cannot say: the cffi module, and the two static programs."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

BUILD = Path(__file__).resolve().parent / "phantom_cri" / "native" / "build.py"


class BuildNative(build_ext):
    """Builds the programs wherever the cffi module goes: into a wheel, or in place when editable."""

    def run(self) -> None:
        super().run()
        module = Path(self.get_ext_fullpath("phantom_cri.native._native"))
        module.parent.mkdir(parents=True, exist_ok=True)
        # By its path: the package cannot be imported before the module is there.
        build = runpy.run_path(str(BUILD))
        build["build_fragment"](module.parent / "fragment")
        shim = module.parents[2] / "shim"
        shim.mkdir(exist_ok=True)
        build["build_launcher"](shim / build["LAUNCHER"])


setup(cffi_modules=["phantom_cri/native/build.py:ffibuilder"], cmdclass={"build_ext": BuildNative})
