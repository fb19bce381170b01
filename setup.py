"""Packaging stands in pyproject.toml; here is the one thing it cannot say.

The repository root is the package `orinspect`, so setuptools would take this file for a module of it.
"""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithoutThisFile(build_py):
    """Copies the package's modules, setup.py left out."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """(package, module, file) of each module in the package."""
        found: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return [row for row in found if (row[0], row[1]) != ("orinspect", "setup")]


setup(cmdclass={"build_py": BuildWithoutThisFile})
