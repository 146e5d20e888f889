"""Versions of the configuration schema.

There is one version so far, so the table of converters is empty; a second one adds an entry here.
"""

import logging
from collections.abc import Callable

from xmodaler.utils.errors import UserError

from .config import CfgNode

LATEST_VERSION = 1

# Both tables map a version to a function that edits a config of that version in place: to the
# next one in UPGRADES, to the previous one in DOWNGRADES.
UPGRADES: dict[int, Callable[[CfgNode], None]] = {}
DOWNGRADES: dict[int, Callable[[CfgNode], None]] = {}


def upgrade_config(cfg: CfgNode, to_version: int | None = None) -> CfgNode:
    """A clone of ``cfg`` upgraded to ``to_version`` (None: the latest).

    Raises:
        UserError: There is no way from the config's VERSION to ``to_version``.
    """
    target = LATEST_VERSION if to_version is None else to_version
    if target < cfg.VERSION:
        raise UserError(f"Cannot upgrade a v{cfg.VERSION} config to the older v{target}")
    return convert_config(cfg, cfg.VERSION, target, "the config")


def downgrade_config(cfg: CfgNode, to_version: int) -> CfgNode:
    """A clone of ``cfg`` downgraded to ``to_version``.

    Raises:
        UserError: There is no way from the config's VERSION to ``to_version``.
    """
    if to_version > cfg.VERSION:
        raise UserError(f"Cannot downgrade a v{cfg.VERSION} config to the newer v{to_version}")
    return convert_config(cfg, cfg.VERSION, to_version, "the config")


def convert_config(cfg: CfgNode, version: int, target: int, source: str) -> CfgNode:
    """A clone of ``cfg`` taken from ``version`` to ``target`` one converter at a time.

    Args:
        cfg: A config, frozen or not; it is not changed.
        version: The version it was written for.
        target: The version wanted.
        source: Name of the config in messages.

    Raises:
        UserError: A converter on the way does not exist.
    """
    converted = cfg.clone()
    frozen = converted.is_frozen()
    converted.defrost()
    step, table = (1, UPGRADES) if target > version else (-1, DOWNGRADES)
    while version != target:
        if version not in table:
            raise UserError(
                f"Cannot convert {source} from version {version} to {target}; this release "
                f"knows version {LATEST_VERSION} only"
            )
        table[version](converted)
        version += step
        converted.VERSION = version
    if frozen:
        converted.freeze()
    return converted


def guess_version(cfg: CfgNode, filename: str) -> int:
    """The version of a config file that does not name one: the latest, as only one ever was.

    Args:
        cfg: The loaded file.
        filename: Its name, for the log.
    """
    del cfg
    logging.getLogger(__name__).debug(
        "Config '%s' has no VERSION; it is read as version %d.", filename, LATEST_VERSION
    )
    return LATEST_VERSION
