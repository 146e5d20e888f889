"""Packaging: runtime dependencies live in requirements.txt, tool settings in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The version string of the package, read without importing it."""
    text = (ROOT / "xmodaler" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def read_requirements() -> list[str]:
    """The runtime requirements without their comments."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


TEST = ["pytest>=8.0", "hypothesis>=6.100", "ruff>=0.6"]
DOCS = ["sphinx>=7.2", "myst-parser>=3.0"]
VIDEO = ["av>=12.0"]

setup(
    name="xmodaler",
    version=read_version(),
    description="A registry-driven PyTorch codebase for vision-and-language research",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["xmodaler", "xmodaler.*"]),
    package_data={"xmodaler": ["py.typed", "evaluation/templates/*"]},
    install_requires=read_requirements(),
    extras_require={"test": TEST, "docs": DOCS, "video": VIDEO, "dev": TEST + DOCS + VIDEO},
)
