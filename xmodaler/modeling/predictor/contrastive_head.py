"""Vectors of pictures and texts in one space."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.utils.errors import UserError


class ContrastiveHead(nn.Module):
    """Unit vectors of both sides and the temperature of their products (Radford et al. 2021).

    Args:
        vision_width: Width of the tokens of a picture.
        text_width: Width of the states of a text.
        embed_dim: Width E of the common space.
        temperature: What products are divided by, where it starts.
        fixed: Whether it stays there.
    """

    bounds = (0.001, 0.5)
    """Where a learned temperature is kept."""

    def __init__(
        self,
        vision_width: int,
        text_width: int,
        embed_dim: int = 256,
        temperature: float = 0.07,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        if not self.bounds[0] <= temperature <= self.bounds[1]:
            raise UserError(
                f"MODEL.X2VLM.TEMPERATURE is {temperature}; it must be {self.bounds[0]} to "
                f"{self.bounds[1]}"
            )
        self.vision_proj = nn.Linear(vision_width, embed_dim)
        self.text_proj = nn.Linear(text_width, embed_dim)
        start = torch.tensor(temperature)
        if fixed:
            self.register_buffer("temperature", start)
        else:
            self.temperature = nn.Parameter(start)

    def images(self, cls: Tensor) -> Tensor:
        """Tokens of whole pictures (B, D) -> unit vectors (B, E)."""
        return F.normalize(self.vision_proj(cls), dim=-1)

    def texts(self, cls: Tensor) -> Tensor:
        """First states of texts (R, D) -> unit vectors (R, E)."""
        return F.normalize(self.text_proj(cls), dim=-1)

    @torch.no_grad()
    def keep_in_bounds(self) -> None:
        """Put the temperature back between its bounds; called before every training step."""
        self.temperature.clamp_(*self.bounds)
