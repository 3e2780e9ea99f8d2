"""Checks a bag to the last byte and says in words what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml

from rollout_manager.bag_format import METADATA_FILE, BagContent, bag_metadata
from rollout_manager.bag_reader import EpisodeReader, decode
from rollout_manager.exceptions import BagError, LabelError
from rollout_manager.labels import read_labels
from rollout_manager.mcap_records import check_sections


def verify(path: Path | str) -> list[str]:
    """What is wrong with a bag; empty where every byte is as it was written and every message can be decoded.

    Whatever is on disk, this does not raise.
    """
    folder = Path(path)
    try:
        reader = EpisodeReader(folder)
    except BagError as error:
        return [str(error)]
    problems = _check_file(reader.file) or _check_metadata(reader)
    try:
        read_labels(folder)
    except LabelError as error:
        problems.append(str(error))
    return problems


def _check_file(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            check_sections(stream)
    except (BagError, OSError) as error:
        return [f"{file}: {error}"]
    return []


def _check_metadata(reader: EpisodeReader) -> list[str]:
    """Compare metadata.yaml with the one that the MCAP file's own content gives, decoding every message."""
    content = BagContent(reader.header, reader.outcome, reader.dropped)
    try:
        for topic, type_name, log_time_ns, cdr in reader.raw_messages():
            decode(topic, type_name, cdr)
            content.types.setdefault(topic, type_name)
            content.counts.setdefault(topic, 0)
            content.count(topic, log_time_ns)
    except BagError as error:
        return [str(error)]
    file = reader.path / METADATA_FILE
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        return [f"{file}: not readable as YAML: {error}"]
    return [f"{file}: {problem}" for problem in differences(bag_metadata(content, reader.file.name), found)]


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """One sentence for every value that differs, naming its keys."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        problems = [f"{where}{key}: unknown" for key in found if key not in wanted]
        for key, value in wanted.items():
            problems += differences(value, found[key], f"{where}{key}.") if key in found else [f"{where}{key}: missing"]
        return problems
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [p for i, w in enumerate(wanted) for p in differences(w, found[i], f"{where}{i}.")]
    if wanted == found:
        return []
    return [f"{where.rstrip('.') or 'content'} is {found!r}, but the recording itself says {wanted!r}"]
