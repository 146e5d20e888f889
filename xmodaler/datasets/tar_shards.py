"""Pictures and captions in tar shards, in the layout that the webdataset library reads.

Members of one sample follow each other and share a name up to its first dot: ``000017.jpg`` and
``000017.txt`` (or ``000017.json`` with a ``caption``). A shard is indexed by its headers alone; a
picture is read from its place in the shard when its sample is asked for. So shards are ordinary
map-style data: every sample once an epoch for any number of ranks and workers, in a seeded order,
resumable at any batch, and nothing of a shard is held in memory.
"""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import Problem
from .bad_samples import SampleError

PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "ppm", "tif", "tiff")
TEXT_SUFFIXES = ("txt", "caption", "text")
_CAPTION_FIELDS = ("caption", "text", "txt")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LONGEST_TEXT = 1 << 20


def is_shards(pattern: str) -> bool:
    """Whether a path names tar shards: it ends with ``.tar`` or is a folder that holds some."""
    if pattern.endswith(".tar"):
        return True
    return os.path.isdir(pattern) and bool(glob.glob(os.path.join(glob.escape(pattern), "*.tar")))


def shard_paths(pattern: str) -> list[str]:
    """The shards of a file, a folder, a glob, or a range such as ``cc-{0000..0331}.tar``.

    Raises:
        UserError: There are none, or one of a range is missing.
    """
    path = expand_path(pattern)
    found = _RANGE.search(path)
    if found:
        low, high = (int(number) for number in found.groups())
        width = len(found[1])
        names = [path[: found.start()] + f"{n:0{width}d}" + path[found.end() :]
                 for n in range(low, high + 1)]  # fmt: skip
        missing = [name for name in names if not os.path.isfile(name)]
        if missing or not names:
            first = missing[0] if missing else path
            raise UserError(f"shard '{first}' does not exist ({len(missing)} of {len(names)})")
        return names
    if os.path.isdir(path):
        return sorted(glob.glob(os.path.join(glob.escape(path), "*.tar")))
    names = [path] if os.path.isfile(path) else sorted(glob.glob(path))
    if not names:
        raise UserError(f"there is no shard '{path}'; a .tar, a folder of them or a glob is needed")
    return names


def index_shards(pattern: str) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The samples of shards.

    Returns:
        Records with ``image_id`` (``<shard>/<key>``), ``caption``, ``shard`` (path), ``offset``
        and ``size`` of the picture, and ``where``; and what is wrong with others.

    Raises:
        UserError: There is no shard, or none holds a sample.
    """
    records: list[dict[str, Any]] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for path in shard_paths(pattern):
        for record, problem in _index(path):
            if problem is None and record["image_id"] in seen:
                reason = f"the sample {record['image_id']} occurs twice"
                problem = Problem(record["where"], reason, record["where"])
            if problem is not None:
                problems.append(problem)
            else:
                seen.add(record["image_id"])
                records.append(record)
    if not records:
        first = f"; the first problem: {problems[0]}" if problems else ""
        raise UserError(
            f"the shards '{pattern}' hold no sample; each needs a picture and a .txt (or a .json "
            f"with 'caption') of the same name{first}"
        )
    return records, problems


def _index(path: str) -> Iterator[tuple[dict[str, Any], Problem | None]]:
    name = os.path.basename(path)
    group: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isfile():
                    continue
                folder, base = os.path.split(member.name)
                key, _, suffix = base.partition(".")
                key = f"{folder}/{key}" if folder else key
                if group and group["key"] != key:
                    yield _sample(path, group)
                    group = {}
                group = group or {"key": key}
                _take(group, suffix.lower(), member, shard)
            # The library takes a header that is cut off for the end of the file.
            if 0 < os.path.getsize(path) - shard.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError, EOFError) as error:
        # What comes before the damage has been given; a truncated last sample has not.
        yield {}, Problem(name, f"the shard is damaged or no tar file: {error}", name)
        return
    if group:
        yield _sample(path, group)


def _take(
    group: dict[str, Any], suffix: str, member: tarfile.TarInfo, shard: tarfile.TarFile
) -> None:
    kind = suffix.rpartition(".")[2]
    if kind in PICTURE_SUFFIXES:
        group["offset"], group["size"] = member.offset_data, member.size
    elif kind in TEXT_SUFFIXES or (kind == "json" and "caption" not in group):
        if member.size > _LONGEST_TEXT:
            group["fault"] = f"its .{kind} has {member.size} bytes"
            return
        content = shard.extractfile(member).read()
        if len(content) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        try:
            group["caption"] = _caption(content.decode("utf-8-sig"), kind)
        except (ValueError, RecursionError):
            group["fault"] = f"its .{kind} holds no caption"


def _caption(text: str, kind: str) -> str:
    if kind == "json":
        content = json.loads(text)
        found = next((content[key] for key in _CAPTION_FIELDS if key in content), None)
        if not isinstance(found, str):
            raise ValueError("no caption")
        text = found
    return text.strip()


def _sample(path: str, group: dict[str, Any]) -> tuple[dict[str, Any], Problem | None]:
    name = os.path.basename(path)
    where = f"{name} sample {group['key']}"
    fault = group.get("fault", "")
    if not fault and "offset" not in group:
        fault = "no picture"
    if not fault and not group.get("caption"):
        fault = "no caption"
    if fault:
        return {}, Problem(where, fault, where)
    record = {
        "image_id": f"{name.removesuffix('.tar')}/{group['key']}",
        "caption": group["caption"],
        "shard": path,
        "offset": group["offset"],
        "size": group["size"],
        "where": where,
    }
    return record, None


def read_member(record: dict[str, Any]) -> bytes:
    """The bytes of a record's picture.

    Raises:
        SampleError: The shard is gone or shorter than it was.
    """
    try:
        with open(record["shard"], "rb") as shard:
            shard.seek(record["offset"])
            content = shard.read(record["size"])
    except OSError as error:
        raise SampleError(record["where"], f"{record['shard']}: {error.strerror}") from None
    if len(content) < record["size"]:
        raise SampleError(record["where"], "the shard ends within its picture")
    return content
