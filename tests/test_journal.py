"""The stage journal: what is finished stays finished, what is torn is refused, and a run has one configuration."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.exceptions import ConfigError, TrainingError
from trainer.journal import Journal, differences, read_journal, write_json

CONFIG = {"tasks": ["push", "reach"], "base": {"steps": 100}}


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"kept": 3}

    with Journal(tmp_path, CONFIG) as journal:
        assert journal.output("filter") is None
        assert journal.run("filter", work) == {"kept": 3}
        assert journal.run("filter", work) == {"kept": 3}
    with Journal(tmp_path, CONFIG) as journal:
        assert journal.run("filter", work) == {"kept": 3}
        assert [stage.name for stage in journal.stages] == ["filter"]
    assert len(calls) == 1


def test_a_stage_that_raises_is_not_finished(tmp_path: Path) -> None:
    with Journal(tmp_path, CONFIG) as journal:
        with pytest.raises(KeyboardInterrupt):
            journal.run("train", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert journal.output("train") is None
    assert read_journal(tmp_path / "journal.json")["stages"] == []


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    Journal(tmp_path, CONFIG).close()
    changed = {"tasks": ["push"], "base": {"steps": 200}}
    with pytest.raises(ConfigError, match=r"base\.steps: 100 there, 200 now") as caught:
        Journal(tmp_path, changed)
    assert 'tasks: ["push", "reach"] there, ["push"] now' in str(caught.value)
    with Journal(tmp_path, CONFIG) as journal:
        assert journal.stages == ()


def test_a_run_goes_on_with_other_settings_of_the_machine(tmp_path: Path) -> None:
    with Journal(tmp_path, {"workers": 16, "base": {"device": "cuda", "steps": 9}}) as journal:
        journal.run("train", lambda: {"steps": 9})
    with Journal(tmp_path, {"workers": 2, "base": {"device": "cpu", "steps": 9}}) as journal:
        assert journal.output("train") == {"steps": 9}
    with pytest.raises(ConfigError, match=r"configuration: base\.steps: 9 there, 8 now\. Go"):
        Journal(tmp_path, {"workers": 1, "base": {"device": "cpu", "steps": 8}})


def test_a_run_is_given_more_iterations_and_measures_its_end_anew(tmp_path: Path) -> None:
    with Journal(tmp_path, {"iterations": 1, "base": {"steps": 9}}) as journal:
        for name in ("train fbc_1", "evaluate fbc_1", "evaluate control", "zero-shot control"):
            journal.run(name, lambda: {"digest": "a"})
    with Journal(tmp_path, {"iterations": 3, "base": {"steps": 9}}) as journal:
        assert [stage.name for stage in journal.stages] == ["train fbc_1"]
    with pytest.raises(ConfigError, match="iterations: 3 there, 2 now"):
        Journal(tmp_path, {"iterations": 2, "base": {"steps": 9}})
    with pytest.raises(ConfigError, match="steps: 9 there, 8 now"):
        Journal(tmp_path, {"iterations": 4, "base": {"steps": 8}})


def test_tuples_and_lists_are_the_same_configuration(tmp_path: Path) -> None:
    Journal(tmp_path, {"tasks": ("push", "reach")}).close()
    Journal(tmp_path, {"tasks": ["push", "reach"]}).close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path, CONFIG), pytest.raises(TrainingError, match="in use by another run"):
        Journal(tmp_path, CONFIG)
    Journal(tmp_path, CONFIG).close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}', '{"config": {}, "stages": [{"name": "x"}]}'])
def test_a_damaged_journal_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "journal.json").write_text(content)
    with pytest.raises(TrainingError, match="is not the journal of a run"):
        Journal(tmp_path, CONFIG)


def _write_until_killed(folder: str) -> None:
    with Journal(Path(folder), CONFIG) as journal:
        for stage in range(100_000):
            journal.run(f"stage {stage}", lambda: {"text": "x" * 2000})


def test_a_kill_at_any_moment_leaves_a_whole_journal(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(str(tmp_path),))
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "journal.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with Journal(tmp_path, CONFIG) as journal:
        names = [stage.name for stage in journal.stages]
    assert names == [f"stage {i}" for i in range(len(names))]
    assert names


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.dictionaries(st.text("abc", max_size=2), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_there_are_differences_exactly_between_different_trees(one: Any, other: Any) -> None:
    assert differences(one, one) == []
    keys_with_none = json.dumps([one, other]).count("null")
    if one != other and not keys_with_none:
        assert differences(one, other)


def _help(folder: str, times: Any, begun: Any) -> None:
    with Journal(Path(folder), CONFIG, helping=True) as journal:
        begun.set()
        for stage in ("a", "b", "c"):
            journal.run(stage, lambda: times.put(os.getpid()) or {"by": os.getpid()})


def test_a_helper_does_what_has_not_begun_and_waits_for_what_has(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    times, begun = context.Queue(), context.Event()
    with Journal(tmp_path, CONFIG) as journal:
        helper = context.Process(target=_help, args=(str(tmp_path), times, begun))

        def work() -> dict[str, Any]:
            helper.start()
            assert begun.wait(60)
            time.sleep(0.5)  # Time for the helper to do the stage as well, if it did not wait.
            return {"by": os.getpid()}

        assert journal.run("a", work) == {"by": os.getpid()}
        helper.join(60)
        assert journal.run("b", lambda: {"by": os.getpid()}) == {"by": helper.pid}
        assert journal.run("d", lambda: {"by": os.getpid()}) == {"by": os.getpid()}
        assert [stage.name for stage in journal.stages] == ["a", "b", "c", "d"]
    assert [times.get(timeout=5) for _ in range(2)] == [helper.pid] * 2
    assert times.empty()
    with Journal(tmp_path, CONFIG, helping=True), pytest.raises(TrainingError, match="in use by another helper"):
        Journal(tmp_path, CONFIG, helping=True)
