"""Packaging: runtime dependencies live in requirements.txt, tool settings in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Puts the YAML files of ``configs/`` into the package, where ``xmodaler.model_zoo`` looks."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the checkout has them
        target = Path(self.build_lib, "xmodaler", "model_zoo", "configs")
        for source in sorted(ROOT.glob("configs/**/*.yaml")):
            path = target / source.relative_to(ROOT / "configs")
            self.mkpath(str(path.parent))
            self.copy_file(str(source), str(path))


def read_version() -> str:
    """The version string of the package, read without importing it."""
    text = (ROOT / "xmodaler" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def read_requirements() -> list[str]:
    """The runtime requirements without their comments."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


TEST = ["pytest>=8.0", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6"]
DOCS = ["sphinx>=7.2", "myst-parser>=3.0"]
VIDEO = ["av>=12.0"]
ANN = ["faiss-cpu>=1.8"]

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
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=read_requirements(),
    extras_require={
        "test": TEST,
        "docs": DOCS,
        "video": VIDEO,
        "ann": ANN,
        "dev": TEST + DOCS + VIDEO,
    },
)
