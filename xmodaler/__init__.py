"""xmodaler: vision-and-language models assembled from parts that a config names.

Importing the package itself loads nothing heavy; import the rooms you need, for example
``from xmodaler.config import get_cfg`` or ``from xmodaler.modeling import build_model``.
"""

__version__ = "0.1.0"
