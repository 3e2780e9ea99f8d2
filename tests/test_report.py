"""The report: its figures by hand, its page whole and self-contained, its pictures real images."""

import base64
import io
import random
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rollout_manager.results import EpisodeResultRow
from trainer import report_plots as plots
from trainer.exceptions import TrainerError
from trainer.report_data import (
    Ancestor,
    Arm,
    Candidate,
    Collection,
    Curve,
    Report,
    Video,
    attempts_of,
    count,
)
from trainer.report_page import page, table
from trainer.report_video import BORDER, GAP, HOLD_FRAMES, animation, side_by_side

ROW = EpisodeResultRow(
    environment="metaworld",
    task="push-v3",
    seed=0,
    attempt=0,
    driver="policy",
    success=True,
    steps=60,
    ending="success",
    reason="",
    exploration=0.0,
    control_mode="in_process",
    checkpoint_digest="c0ffee",
    spec_digest="beef",
)
FAILED = replace(ROW, success=False, ending="truncated", steps=200)


def rows(task: str, outcomes: str, steps: int = 60) -> list[EpisodeResultRow]:
    """One row a character: `1` success, `0` none, `x` aborted; seeds count up."""
    kinds = {"1": replace(ROW, steps=steps), "0": FAILED, "x": replace(FAILED, ending="aborted", reason="died")}
    return [replace(kinds[c], task=task, seed=30_000 + i) for i, c in enumerate(outcomes)]


def some_report() -> Report:
    """Three arms on two tasks, with everything that a page can show."""
    draw = random.Random(0)
    arms = []
    for name, title, share in (
        ("bc", "Behaviour cloning", 0.6),
        ("control", "Control", 0.65),
        ("fbc_1", "FBC 1", 0.75),
        ("fbc_2", "FBC 2", 0.85),
    ):
        of_task = {t: "".join("1" if draw.random() < share else "0" for _ in range(20)) for t in ("push-v3", "a<b")}
        content = tuple(row for task, outcomes in of_task.items() for row in rows(task, outcomes))
        arms.append(Arm(name, title, content, f"note on {name}", f"training/{name}"))
    frames = [np.full((24, 24, 3), 10 * i, np.uint8) for i in range(5)]
    film = side_by_side(frames[:2], frames, False, True)
    return Report(
        title="From 10 demonstrations",
        summary="Success rises & stays <up>.",
        arms=tuple(arms),
        pairs=(("bc", "fbc_2"), ("control", "fbc_2")),
        losses=(Curve("bc", (0, 10, 20), (1.0, 0.5, 0.2)), Curve("fbc_1", (0, 10), (0.3, 0.2))),
        candidates=(Candidate("bc", 10, 3, 10), Candidate("bc", 20, 6, 10, True), Candidate("fbc", 30, 8, 10, True)),
        collections=(
            Collection(
                "iteration 1", 30, 20, ((0.0, 15, 20), (0.3, 5, 10)), (8, 12), {"a<b": 4}, {"no success": 10}, ("x",)
            ),
        ),
        lineage=(Ancestor("bc", "c0ffee", "", 20, 10, 0, "training/bc"),),
        videos=(Video("push-v3", 30_001, "before and after", film),),
        stages=(("demonstrations", 61.0), ("bc", 125.4)),
        paths={"bags": "bags"},
        facts={"mujoco": "3.3.0"},
    )


class _Addresses(HTMLParser):
    """Collects every address that a page would load or lead to, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_needs_nothing_but_itself() -> None:
    content = page(some_report())
    parser = _Addresses()
    parser.feed(content)
    assert parser.open == []
    assert parser.addresses
    assert all(address.startswith("data:image/") for address in parser.addresses)
    assert "<script" not in content
    assert "url(" not in content


def test_the_plot_says_how_each_try_was_made() -> None:
    svg = plots.collection_plot(some_report().collections)
    for expected in ("try 1", "try 2", "12", "±0.3", "15/20", "5/10", "iteration 1"):
        assert f">{expected}</text>" in svg


def test_the_page_shows_what_was_measured() -> None:
    report = some_report()
    parser = _Addresses()
    parser.feed(page(report))
    text = " ".join(parser.texts)
    for arm in report.arms:
        rate = arm.summary.rate
        assert f"{rate.successes}/{rate.trials}" in text
    assert "Success rises & stays <up>." in text, "what is said is escaped, not interpreted"
    for expected in ("a<b", "no success: 10", "c0ffee", "mastered, not tried", "3:06", "seed 30001"):
        assert expected in text


def test_every_embedded_picture_opens() -> None:
    found = re.findall(r"data:image/([a-z+]+);base64,([A-Za-z0-9+/=]+)", page(some_report()))
    assert {kind for kind, _ in found} == {"svg+xml", "webp"}
    for kind, text in found:
        content = base64.b64decode(text)
        if kind == "svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) > 1


def test_a_report_of_one_arm_alone_has_a_page() -> None:
    report = Report("Title", "Summary", (Arm("bc", "BC", tuple(rows("push-v3", "110"))),))
    content = page(report)
    assert "2/3" in content
    assert "Learning" not in content
    assert "Before and after" not in content


def test_aborted_tries_are_counted_apart() -> None:
    arm = Arm("bc", "BC", tuple(rows("push-v3", "10x1")))
    content = page(Report("Title", "Summary", (arm,)))
    assert "2/3" in content
    assert "2/4" not in content
    only_aborted = Arm("bc", "BC", tuple(rows("push-v3", "xx")))
    assert "–" in page(Report("Title", "Summary", (only_aborted,)))


def test_successes_with_a_humans_help_are_told() -> None:
    made = rows("push-v3", "110")
    arm = Arm("bc", "BC", (made[0], replace(made[1], human_steps=4), replace(made[2], human_steps=4)))
    content = page(Report("Title", "Summary", (arm,)))
    assert "1/3" in content
    assert "1 more with a human's help" in content
    assert "help" not in page(Report("Title", "Summary", (Arm("bc", "BC", tuple(made)),)))


def test_attempts_and_counts_by_hand() -> None:
    tries = [FAILED, ROW, replace(ROW, attempt=1, exploration=0.15), replace(FAILED, attempt=1, exploration=0.15), ROW]
    assert attempts_of(tries) == ((0.0, 2, 3), (0.15, 1, 2))
    assert count(["b", "a", "b", "c", "a", "b"]) == {"b": 3, "a": 2, "c": 1}


def test_a_table_sets_its_numbers_as_numbers() -> None:
    assert table(("a", "b"), [("1", "2")]).count("<td") == 2
    assert table(("a", "b"), [("1", "2")]).count("class='n'") == 2


def test_the_same_data_gives_the_same_picture() -> None:
    arms = some_report().arms
    assert plots.success_plot(arms) == plots.success_plot(arms)


def test_iterations_darken_and_references_keep_their_colours() -> None:
    names = ["bc", "control", "fbc_1", "fbc_2", "fbc_3"]
    assert plots.arm_colour("bc", names) == plots.REFERENCE_COLOURS["bc"]
    own = [plots.arm_colour(name, names) for name in names[2:]]
    assert [plots.OWN_COLOURS.index(colour) for colour in own] == sorted({plots.OWN_COLOURS.index(c) for c in own})
    many = [f"fbc_{i}" for i in range(9)]
    assert plots.arm_colour(many[-1], many) == plots.OWN_COLOURS[-1]


def test_the_shorter_film_waits_in_the_colour_of_its_outcome() -> None:
    short = [np.full((4, 6, 3), 100, np.uint8)]
    long = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2, 3)]
    film = side_by_side(short, long, True, False)
    assert len(film) == 3 + HOLD_FRAMES
    assert film[0].shape == (4 + 2 * BORDER, 2 * (6 + 2 * BORDER) + GAP, 3)
    assert tuple(film[0][0, 0]) == (42, 157, 92), "success is green"
    assert tuple(film[0][0, -1]) == (29, 39, 51), "still running"
    assert tuple(film[2][0, -1]) == (201, 72, 59), "ended without success"
    assert film[1][BORDER, -BORDER - 1, 0] == 2
    assert film[-1][BORDER, -BORDER - 1, 0] == 3


def test_films_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TrainerError, match="not one size"):
        side_by_side([np.zeros((4, 4, 3), np.uint8)], [np.zeros((5, 4, 3), np.uint8)], True, True)
    with pytest.raises(TrainerError, match="not one size"):
        side_by_side([], [np.zeros((4, 4, 3), np.uint8)], True, True)
    with pytest.raises(TrainerError, match="at least one"):
        animation([], 20)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_an_animation_keeps_its_frames_and_pace(kind: str) -> None:
    frames = [np.full((16, 20, 3), 60 * i, np.uint8) for i in range(4)]
    image = Image.open(io.BytesIO(animation(frames, 20, kind)))  # type: ignore[arg-type]
    assert (image.size, getattr(image, "n_frames", 1)) == ((20, 16), 4)
    image.seek(1)
    image.load()
    assert image.info["duration"] == 50
    assert abs(int(np.asarray(image.convert("RGB"))[8, 8, 0]) - 60) <= 4


def test_many_tasks_are_drawn_as_a_map_with_their_numbers() -> None:
    tasks = [f"scene{i}_open_the_drawer" for i in range(plots.MOST_BARS + 1)]
    arms = [Arm(name, name, tuple(row for t in tasks for row in rows(t, "1" * 3 + "0"))) for name in ("bc", "fbc_1")]
    svg = plots.task_plot(arms, [*tasks, "never_tried"])
    assert svg.count(">75<") == 2 * len(tasks)
    assert svg.count(">–<") == 2
    assert "scene3 open the drawer" in svg
    bars = plots.task_plot(arms, tasks[:2])
    assert ">75<" not in bars


def test_a_name_that_is_too_long_keeps_its_ends() -> None:
    assert plots.shortened("door-open-v3") == "door-open"
    name = "KITCHEN_SCENE1_" + "and_" * 40 + "close_it"
    short = plots.shortened(name)
    assert len(short) <= plots.LONGEST + 2
    assert short.startswith("KITCHEN SCENE1 and")
    assert short.endswith("close it")


def test_success_over_iterations_has_every_arm_and_no_method_is_needed() -> None:
    arms = [Arm(n, t, tuple(rows("push-v3", "1100"))) for n, t in (("bc", "BC"), ("fbc_1", "FBC 1"), ("control", "C"))]
    svg = plots.iterations_plot(arms, [(arm, arm) for arm in arms])
    for title in ("BC", "FBC 1", ">C<"):
        assert title in svg
    ElementTree.fromstring(plots.iterations_plot(arms[2:]))
