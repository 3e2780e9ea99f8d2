"""`encore report`: the report of a run made anew, or of several seeds together, from what their folders hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer.commands.arguments import parse
from trainer.exceptions import ConfigError


@dataclass(frozen=True)
class ReportCommand:
    """Make the report of a run of `encore fbc` or `encore demo` anew, or of several that differ in training seeds."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """The run's folder; or those of several runs of one experiment, for one page on all of them."""
    page: Path = Path("seeds.html")
    """The page on several runs; a single one's is in its folder."""
    films: bool = True
    """Film before and after; takes some seconds a film."""
    gif: Path | None = None
    """Also write the first film as a GIF to this file."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: TrainerError: a folder holds no run, nothing was evaluated yet, or the runs differ."""
    options = parse(ReportCommand, arguments, "report")

    from trainer.config import from_mapping
    from trainer.demo import print_table
    from trainer.fbc_config import FBCConfig
    from trainer.films import make_films
    from trainer.journal import read_journal
    from trainer.report import JOURNAL, gather, write_report
    from trainer.report_video import animation

    if len(options.folders) != 1:
        return _several(options)
    folder = options.folders[0].resolve()
    config = from_mapping(FBCConfig, read_journal(folder / JOURNAL)["config"], str(folder / JOURNAL))
    films = make_films(config, folder) if options.films or options.gif else []
    page = write_report(folder, films)
    if options.gif is not None and films:
        options.gif.parent.mkdir(parents=True, exist_ok=True)
        options.gif.write_bytes(animation(films[0].frames, films[0].frames_per_second, "gif"))
    print_table(gather(folder), folder, page)
    return 0


def _several(options: ReportCommand) -> int:
    if not options.folders:
        raise ConfigError("report: name the folder of a run, or those of several")

    from trainer.report import title_of
    from trainer.seeds_report import Spread, write_seeds_report

    for arm in write_seeds_report([folder.resolve() for folder in options.folders], options.page):
        print(f"{title_of(arm.name):<12} {Spread.of(arm.shares)}  seeds: {arm.each}")
    print(f"(mean over seeds, 95 % interval by Student's t)\nreport       {options.page}")
    return 0
