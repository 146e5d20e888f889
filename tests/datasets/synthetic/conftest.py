"""A small data set with videos, made once."""

from pathlib import Path

import pytest

from xmodaler.datasets.synthetic import make_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures and ten videos (read only)."""
    folder = tmp_path_factory.mktemp("shapes") / "set"
    make_shapes(str(folder), size=40, seed=3, videos=10)
    return folder
