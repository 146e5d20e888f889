"""What ``configs/zoo.yaml`` says of the released models."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from xmodaler.utils.errors import UserError, did_you_mean

from .paths import config_root

__all__ = ["ZOO", "Paper", "ZooEntry", "find_entry", "get_entry", "names"]

ZOO = "zoo.yaml"


@dataclass(frozen=True)
class Paper:
    """A publication.

    Attributes:
        authors: First author and how many others, as they are cited.
        title: Its title.
        venue: Where and when it appeared.
    """

    authors: str
    title: str
    venue: str

    def __str__(self) -> str:
        return f"{self.authors}, {self.venue}"


@dataclass(frozen=True)
class ZooEntry:
    """One released model: an architecture, trained on a data set for an objective.

    Attributes:
        name: ``<task>/<model>``, with ``_rl`` where the objective is CIDEr.
        model: Name of the architecture.
        config: Path of its config below ``configs/``.
        paper: Where the architecture comes from.
        task: ``"image captioning"``, ``"video captioning"``, ``"pre-training"``,
            ``"visual question answering"``, ``"visual commonsense reasoning"``, ``"retrieval"``,
            ``"grounding"`` or ``"reasoning"``.
        dataset: What it was trained and tested on.
        objective: Of captioners ``"cross-entropy"`` or ``"CIDEr"``.
        scores: What was published for the released model, metric to value (times 100); empty
            where nothing was.
        headline: The metric to name where there is room for one.
        source: Where the scores were published.
        shapes: The config of this architecture for generated data, below ``configs/``, or ``''``.
        fixture: Name of the reference numbers that the architecture reproduces.
    """

    name: str
    model: str
    config: str
    paper: Paper
    task: str
    dataset: str
    objective: str
    scores: dict[str, float] = field(default_factory=dict)
    headline: str = "CIDEr-D"
    source: str = ""
    shapes: str = ""
    fixture: str = ""


@functools.lru_cache(maxsize=1)
def _entries() -> dict[str, ZooEntry]:
    tree = yaml.safe_load(Path(config_root(), ZOO).read_text(encoding="utf-8"))
    tables = tree["score_tables"]
    found: dict[str, ZooEntry] = {}
    for model in tree["models"]:
        shared = {key: model.get(key, "") for key in ("model", "shapes", "fixture")}
        shared["paper"] = Paper(**model["paper"])
        for release in model["releases"]:
            table = tables[release["table"]]
            values, metrics = release.get("scores", []), table.get("metrics", tree["metrics"])
            if values and len(values) != len(metrics):
                raise UserError(f"{ZOO}: {release['name']} needs {len(metrics)} scores")
            own = {key: release[key] for key in ("shapes", "fixture") if key in release}
            found[release["name"]] = ZooEntry(
                name=release["name"],
                config=release["config"],
                scores=dict(zip(metrics, map(float, values), strict=False)),
                headline=table.get("headline", "CIDEr-D"),
                source=table["source"] if values else "",
                **{key: table[key] for key in ("task", "dataset", "objective")},
                **{**shared, **own},
            )
    return found


def names(task: str | None = None) -> list[str]:
    """Names of the released models, in the order of the zoo's pages.

    Args:
        task: As in :class:`ZooEntry`; None for all.
    """
    return [name for name, entry in _entries().items() if task in (None, entry.task)]


def find_entry(name: str) -> ZooEntry | None:
    """The entry of that name, or None."""
    return _entries().get(name)


def get_entry(name: str) -> ZooEntry:
    """What is known of a released model.

    Raises:
        UserError: There is none of that name.
    """
    entry = find_entry(name)
    if entry is None:
        raise UserError(
            f"the model zoo has no model '{name}'{did_you_mean(name, names())}; "
            "xmodaler.model_zoo.list() gives all names"
        )
    return entry
