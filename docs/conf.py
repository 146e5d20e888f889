"""Sphinx configuration: MyST pages and API pages made from the docstrings."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "xmodaler"
author = "the xmodaler authors"
copyright = "2026, the xmodaler authors"
release = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "xmodaler" / "__init__.py").read_text(), re.MULTILINE
).group(1)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # or attributes that autodoc finds too would be described twice
autodoc_typehints = "description"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Vision and language research on one set of parts"}
