"""Where the configs lie."""

from pathlib import Path

from xmodaler.utils.errors import UserError

_HERE = Path(__file__).resolve().parent


def config_root() -> str:
    """The folder of the configs: installed beside this file, or ``configs/`` of a checkout.

    Raises:
        UserError: There is neither.
    """
    for folder in (_HERE / "configs", _HERE.parents[1] / "configs"):
        if (folder / "zoo.yaml").is_file():
            return str(folder)
    raise UserError(
        f"this installation of xmodaler has no configs beside '{_HERE}'; install it again, or "
        "name config files by their paths"
    )
