"""The command `encore`: help everywhere and at once, errors in one line, exit codes that mean something."""

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rollout_manager.bag_writer import EpisodeWriter
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.results import read_results
from trainer import cli
from trainer.commands.arguments import find_config, option
from trainer.exceptions import ConfigError
from trainer.pieces import Terminated, TimeIsUp
from vla_policy_node.exceptions import SpecError

HEAVY = ("torch", "mujoco", "matplotlib", "rclpy", "transformers", "metaworld", "accelerate")


SOURCE = str(Path(cli.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "osmesa")}


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=ENVIRONMENT, cwd=cwd)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, what) in cli.COMMANDS.items():
        assert f"  {name} " in text
        assert what in text
    assert cli.main([]) == 2, "a command is needed"


def test_an_unknown_command_is_answered_with_the_valid_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dance"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'dance' is not a command; valid are demonstrate, rollout, train" in error


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert f"encore {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys, importlib\n"
        f"importlib.import_module('{cli.COMMANDS[name][0]}')\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT
    )
    assert done.stdout.strip() == "[]"


def test_help_is_there_at_once() -> None:
    begun = time.monotonic()
    assert run("--help").returncode == 0
    assert time.monotonic() - begun < 2.0, "a generous limit for a busy machine; 0.1 s on an idle one"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SpecError("no such\nrobot"), 2, "encore: no such robot\n"),
        (BagError("torn"), 2, "encore: torn\n"),
        (ConfigError("steps"), 2, "encore: steps\n"),
        (KeyboardInterrupt(), 130, "\nencore bags: interrupted; the same command goes on where it was\n"),
        (Terminated("told to stop"), 143, "\nencore bags: told to stop; the same command goes on where it was\n"),
        (
            TimeIsUp("5 minutes are over"),
            3,
            "\nencore bags: 5 minutes are over; the same command goes on where it was\n",
        ),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module("trainer.commands.bags"), "main", fail)
    assert cli.main(["bags"]) == code
    assert capfd.readouterr().err == text


def test_any_other_error_is_a_bug_and_shows_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: Sequence[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(importlib.import_module("trainer.commands.bags"), "main", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["bags"])


def test_a_wrong_option_is_refused() -> None:
    done = run("evaluate", "--no-such-option", "1")
    assert done.returncode == 2
    assert "no-such-option" in done.stderr + done.stdout


def test_a_configuration_by_name_by_path_or_refused(tmp_path: Path) -> None:
    assert find_config("demo").name == "demo.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("tasks: [push-v3]")
    assert find_config(str(own)) == own
    with pytest.raises(ConfigError, match=r"'dem0': neither a file nor one of .*demo"):
        find_config("dem0")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--config", "demo"], "demo"),
        (["--output", "x", "--config=demo"], "demo"),
        (["--config"], None),
        (["--configuration", "demo"], None),
        ([], None),
    ],
)
def test_an_option_is_found_before_the_others_are_parsed(arguments: list[str], value: str | None) -> None:
    assert option(arguments, "--config") == value


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real demonstrations, made by the command."""
    folder = tmp_path_factory.mktemp("demonstrations")
    done = run("demonstrate", "--tasks", "reach-v3", "--per-task", "2", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    assert "2/2" in done.stdout
    return folder / "bags"


def test_demonstrating_again_does_nothing_again(bags: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in bags.rglob("*.mcap"))
    done = run("demonstrate", "--tasks", "reach-v3", "--per-task", "2", "--output", str(bags.parent))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((path, path.stat().st_mtime_ns) for path in bags.rglob("*.mcap")) == before
    assert len(before) == 2


def test_bags_are_listed_shown_and_verified(bags: Path) -> None:
    listed = run("bags", "list", str(bags)).stdout
    assert listed.count("success ") == 2
    assert "2 episodes, 2 successes" in listed
    bag = bags / "metaworld_reach-v3_s0_a0"
    shown = run("bags", "show", str(bag)).stdout
    for expected in ("task: reach-v3", "ending: success", "/camera/front/image_raw", "rule: simulator"):
        assert expected in shown
    verified = run("bags", "verify", str(bags))
    assert (verified.returncode, verified.stdout) == (0, "2 bags, 0 problems\n")


def test_bags_in_which_a_human_helped_say_so(tmp_path: Path) -> None:
    header = EpisodeHeader("a", "robot", "cube", "lift", 1, "arm", "0" * 16, "policy", "real_time")
    EpisodeWriter(tmp_path, header).close(Outcome("success", 50, 1.0, human_steps=7))
    EpisodeWriter(tmp_path, replace(header, episode_id="b")).close(Outcome("success", 50, 1.0))
    listed = run("bags", "list", str(tmp_path)).stdout.splitlines()
    assert "50 steps, 7 by a human" in listed[0]
    assert "by a human" not in listed[1]
    assert "2 successes (1 with a human's help)" in listed[2]


def test_a_damaged_bag_is_found(bags: Path, tmp_path: Path) -> None:
    shutil.copytree(bags, tmp_path / "bags")
    file = next((tmp_path / "bags").rglob("*_s1_a0*.mcap"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    verified = run("bags", "verify", str(tmp_path / "bags"))
    assert verified.returncode == 1
    assert "_s1_a0" in verified.stdout


def test_a_label_overrules_and_keeps_history(bags: Path, tmp_path: Path) -> None:
    shutil.copytree(bags, tmp_path / "bags")
    bag = tmp_path / "bags" / "metaworld_reach-v3_s0_a0"
    done = run("label", str(bag), "discard", "--author", "ann", "--note", "wrong light")
    assert done.stdout.splitlines()[-1] == "discard  by ann (human) wrong light"
    assert len(run("label", str(bag)).stdout.splitlines()) == 2
    assert "1 episodes, 1 successes" in run("bags", "list", str(tmp_path / "bags"), "--outcome", "success").stdout
    missing = run("label", str(tmp_path / "nothing"), "success")
    assert missing.returncode == 2
    assert "no such bag to label" in missing.stderr


def test_a_reader_that_has_enough_is_no_error(bags: Path) -> None:
    show = f"{sys.executable} -m trainer.cli bags show {bags / 'metaworld_reach-v3_s0_a0'}"
    command = f"{show} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout.splitlines() == ["header", "0"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["demonstrate", "--tasks", "drawr-v3", "--output", "x"],
            "task 'drawr-v3' is not one of the 50 of mt50, mt10; near",
        ),
        (["demonstrate", "--tasks", "reach-v3", "--output", "x", "--environment", "mars"], "environment 'mars' is not"),
        (
            ["rollout", "--checkpoint", "none", "--tasks", "reach-v3", "--output", "x"],
            "checkpoint 'none' does not exist",
        ),
        (
            ["demonstrate", "--tasks", "reach-v3", "--output", "x", "--takeover-from", "none"],
            "checkpoint 'none' does not exist",
        ),
        (
            ["demonstrate", "--output", "x", "--takeover-from", "none", "--takeover-steps", "9", "3"],
            "takeover-steps 9 3: the fewest and the most",
        ),
        (
            ["demonstrate", "--output", "x", "--takeover-from", "none", "--via", "ros"],
            "in process only; use --via pool",
        ),
        (["evaluate", "--tasks", "reach-v3"], "give --checkpoint FOLDER, or --driver expert"),
        (
            ["evaluate", "--tasks", "reach-v3", "--driver", "none", "--robot", "r2d2"],
            "robot 'r2d2': neither a file nor",
        ),
        (
            ["fbc", "--config", "nope", "--output", "x"],
            "'nope': neither a file nor one of libero90, libero_10tasks, metaworld",
        ),
        (["demo", "--output", "x", "--iterations", "0"], "iterations 0 is not at least 1"),
        (["report", "nowhere"], "is not the journal of a run"),
        (["bags", "list", "nowhere"], "no such folder of bags"),
        (["train", "--output", "x"], "bags: none given"),
        (["up", "--task", "reach-v3", "--schedule", "x.yaml"], "give --task or --schedule, not both"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("encore: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.mcap"))


def test_every_driver_gives_the_same_kind_of_rows(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    common = ["evaluate", "--tasks", "reach-v3", "--seeds", "2", "--time-limit", "60", "--results", str(results)]
    assert "100.0 % (2/2)" in run(*common, "--driver", "expert").stdout
    assert "0.0 % (0/2)" in run(*common, "--driver", "none").stdout
    rows = read_results(results)
    assert [(row.driver, row.success) for row in rows].count(("expert", True)) == 2
    assert {row.ending for row in rows if row.driver == "none"} == {"truncated"}
    assert {row.seed for row in rows} == {30_000, 30_001}
