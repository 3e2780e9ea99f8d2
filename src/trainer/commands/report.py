"""`encore report`: the report of a run made anew, from what its folder holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer.commands.arguments import parse


@dataclass(frozen=True)
class ReportCommand:
    """Make the report of a run of `encore fbc` or `encore demo` anew."""

    folder: tyro.conf.Positional[Path]
    """The run's folder."""
    films: bool = True
    """Film before and after; takes some seconds a film."""
    gif: Path | None = None
    """Also write the first film as a GIF to this file."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: TrainerError: the folder holds no run, or nothing was evaluated yet."""
    options = parse(ReportCommand, arguments, "report")

    from trainer.config import from_mapping
    from trainer.demo import print_table
    from trainer.fbc_config import FBCConfig
    from trainer.films import make_films
    from trainer.journal import read_journal
    from trainer.report import JOURNAL, gather, write_report
    from trainer.report_video import animation

    folder = options.folder.resolve()
    config = from_mapping(FBCConfig, read_journal(folder / JOURNAL)["config"], str(folder / JOURNAL))
    films = make_films(config, folder) if options.films or options.gif else []
    page = write_report(folder, films)
    if options.gif is not None and films:
        options.gif.parent.mkdir(parents=True, exist_ok=True)
        options.gif.write_bytes(animation(films[0].frames, films[0].frames_per_second, "gif"))
    print_table(gather(folder), folder, page)
    return 0
