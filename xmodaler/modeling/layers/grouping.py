"""One image, many queries: rows of text are image-major groups over rows of images."""

from torch import Tensor

from xmodaler.utils.errors import UserError


def queries_per_image(rows: int, images: int) -> int:
    """``G`` such that ``rows == images * G``.

    Raises:
        UserError: The rows do not divide over the images.
    """
    if images == 0 or rows % images:
        raise UserError(
            f"{rows} text rows do not divide over {images} images; a batch must hold the same "
            "number of captions for every image, the captions of one image adjacent"
        )
    return rows // images


def repeat_rows(tensor: Tensor, rows: int) -> Tensor:
    """Per-image rows repeated consecutively until there are ``rows`` of them.

    Args:
        tensor: (B, ...).
        rows: B * G.

    Returns:
        (B * G, ...); the tensor itself when G is 1.
    """
    groups = queries_per_image(rows, tensor.shape[0])
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=0)
