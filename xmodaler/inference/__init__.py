"""Using a trained model: ``load(folder).caption(pictures)``."""

from xmodaler.inference.captioner import Caption, Captioner
from xmodaler.inference.loading import load

__all__ = ["Caption", "Captioner", "load"]
