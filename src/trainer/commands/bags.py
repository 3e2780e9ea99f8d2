"""`encore bags`: what was recorded, whether it is whole, and the recovery of what was interrupted."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rollout_manager.bag import EpisodeReader, recover, verify
from rollout_manager.catalog import Catalog, EpisodeRow, find_bags
from rollout_manager.episode import was_helped
from rollout_manager.exceptions import BagError
from rollout_manager.labels import read_labels
from trainer.commands.arguments import parse


@dataclass(frozen=True)
class ListBags:
    """List every episode below some folders, with how it ended and what is wrong with it."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of bags, searched through."""
    task: str = ""
    """Only this task."""
    outcome: str = ""
    """Only episodes that count as this: success, failure, aborted or discard."""


@dataclass(frozen=True)
class ShowBag:
    """Show one episode: its header, how it ended, its labels and topics."""

    bag: tyro.conf.Positional[Path]
    """The episode's bag folder."""


@dataclass(frozen=True)
class VerifyBags:
    """Check every byte of the bags below some folders. Exit code 1 if anything is wrong."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of bags, searched through."""


@dataclass(frozen=True)
class RecoverBags:
    """Make whole bags, labelled aborted, of recordings that were interrupted. Exit code 1 if one could not be."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of bags, searched through; or `<episode>.partial` folders."""


@dataclass(frozen=True)
class ImportBags:
    """Make episodes of bags that something else recorded, such as `ros2 bag record`, as a mapping in YAML says."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders or files: sqlite3 or MCAP, compressed or not."""
    mapping: Path
    """The YAML file: docs/replay.md has an example."""
    output: Path
    """Folder of bags that the episodes are added to."""


Command = (
    Annotated[ListBags, tyro.conf.subcommand("list")]
    | Annotated[ShowBag, tyro.conf.subcommand("show")]
    | Annotated[VerifyBags, tyro.conf.subcommand("verify")]
    | Annotated[RecoverBags, tyro.conf.subcommand("recover")]
    | Annotated[ImportBags, tyro.conf.subcommand("import")]
)


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: BagError: a folder is not there, or a bag is not ours or not whole."""
    options: Command = parse(Command, arguments, "bags")  # type: ignore[arg-type]
    if isinstance(options, ListBags):
        return list_bags(options)
    if isinstance(options, ShowBag):
        return show_bag(options.bag)
    if isinstance(options, ImportBags):
        return import_bags(options)
    return verify_bags(options.roots) if isinstance(options, VerifyBags) else recover_bags(options.roots)


def list_bags(options: ListBags) -> int:
    """Print a line an episode, and a line in the end."""
    with Catalog.rebuild(options.roots, ":memory:") as catalog:
        rows = [row for row in catalog.rows() if _wanted(row, options)]
        damaged = catalog.damaged()
    for row in rows:
        by = f"label by {row.label.author}" if row.label else "no label"
        attempt = f"try {row.header.attempt + 1}"
        human = f", {row.outcome.human_steps} by a human" if row.outcome.human_steps else ""
        what = f"{row.effective:<8} {row.outcome.steps:>4} steps{human}  {attempt}  {row.header.driver:<7}"
        print(f"{what} {by:<20} {row.path}")
    for bag in damaged:
        print(f"damaged  {bag.problem}")
    size = sum(row.size_bytes for row in rows) / 1e6
    helped = sum(row.success and was_helped(row.header.driver, row.outcome.human_steps) for row in rows)
    successes = f"{sum(r.success for r in rows)} successes" + (f" ({helped} with a human's help)" if helped else "")
    print(f"{len(rows)} episodes, {successes}, {size:.1f} MB, {len(damaged)} damaged")
    return 0


def _wanted(row: EpisodeRow, options: ListBags) -> bool:
    return options.task in ("", row.header.task) and options.outcome in ("", row.effective)


def show_bag(path: Path) -> int:
    """Print all that is known of an episode."""
    reader = EpisodeReader(path)
    counts: dict[str, int] = {}
    for message in reader.raw_messages():
        counts[message.topic] = counts.get(message.topic, 0) + 1
    _print_fields("header", reader.header.to_dict())
    _print_fields("outcome", reader.outcome.to_dict())
    _print_fields("recording", {"digest": reader.digest, "bytes": reader.size_bytes, "dropped": reader.dropped or 0})
    _print_fields("messages", counts)
    labels = [dataclasses.asdict(label) for label in read_labels(path)]
    for label in labels:
        _print_fields("label", label)
    return 0


def _print_fields(title: str, fields: Mapping[str, object]) -> None:
    print(title)
    for name, value in fields.items():
        print(f"  {name}: {value}")


def verify_bags(roots: Sequence[Path]) -> int:
    """Print every problem; 1 where there is any."""
    paths = [path for root in roots for path in find_bags(root)]
    problems = 0
    for path in paths:
        for problem in verify(path):
            problems += 1
            print(f"{path}: {problem}")
    print(f"{len(paths)} bags, {problems} problems")
    return 1 if problems else 0


def recover_bags(roots: Sequence[Path]) -> int:
    """Recover every interrupted recording; 1 where one could not be."""
    partial = [path for root in roots for path in find_bags(root) if path.name.endswith(".partial")]
    problems = 0
    for path in partial:
        try:
            bag = recover(path)
        except BagError as error:  # what is wrong with one must not keep the others from being recovered
            problems += 1
            print(error)
            continue
        print(f"{path}: " + (f"recovered as {bag}" if bag else "held nothing yet and was removed"))
    print(f"{len(partial)} interrupted recordings, {problems} could not be recovered")
    return 1 if problems else 0


def import_bags(options: ImportBags) -> int:
    """Make the episodes, and say what came of each. Raises: BagError, ConfigError: with what does not fit."""
    from rollout_manager.bag_import import import_bag
    from rollout_manager.import_mapping import ImportMapping
    from trainer.config import load_config, require
    from trainer.episode_arrays import decode_episode, episode_topics
    from vla_policy_node.spec import load_spec

    require(len(options.bags) > 0, "bags import: no bag is given")
    mapping = load_config(ImportMapping, options.mapping)
    spec = load_spec(mapping.robot)
    for bag in options.bags:
        for imported in import_bag(bag, mapping, spec, options.output):
            reader = EpisodeReader(imported.bag)
            camera = spec.cameras[0] if spec.cameras else None
            size = (camera.height, camera.width) if camera else (1, 1)
            steps = decode_episode(reader.header, reader.messages(episode_topics(reader.header, spec)), spec, size)
            print(f"{imported.bag}: {imported.actions} actions, {len(steps)} steps that can be learned from")
            for problem in imported.problems:
                print(f"  {problem}")
    return 0
