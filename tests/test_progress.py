"""Progress in a log: a line now and then, and one at the end."""

import pytest

from trainer.progress import ProgressBar


def test_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 4.0, 11.0, 11.0, 12.0, 13.0, 13.0])
    with ProgressBar("training", 4, start=1, clock=lambda: next(times)) as bar:
        for loss in ("a", "b", "c"):
            bar.advance(loss)
    assert capsys.readouterr().err.splitlines() == ["training: 3/4 b", "training: 4/4"]


def test_nothing_is_printed_where_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("training", 1, visible=False) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
