"""The training loop: schedule, optimizer, real runs, exact resume, a killed process, early stop, bad input."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_run import NETWORK, make_network, make_sampler, run_training, small_training, write_bags

from trainer.config import AugmentationConfig, OptimizerConfig
from trainer.dataset import Batch
from trainer.exceptions import TrainingError
from trainer.loop import _Run, derived_seed, train
from trainer.optimizer import learning_rate, make_optimizer
from trainer.train_state import Candidate, Progress
from trainer.training_log import read_history
from vla_policy_node.checkpoint import Lineage, load_checkpoint, load_network
from vla_policy_node.exceptions import CheckpointError

PLAIN = AugmentationConfig(shift_px=0, gain=0.0, offset=0.0)


def _weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(run / "state" / f"step_{step:08d}" / "weights.safetensors")
    return weights


def _assert_same_state(one: Path, other: Path, step: int) -> None:
    """Weights and optimizer are equal to the bit."""
    for file in ("weights.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "state" / f"step_{step:08d}" / file) for run in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_schedule_by_hand() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=3, final_share=0.2)
    rates = [learning_rate(step, 7, config) for step in range(8)]
    # Warm-up in quarters, then 0.2 + 0.8 * (1 + cos(pi k / 4)) / 2 for k = 0 .. 4.
    cosine = [0.2 + 0.4 * (1 + math.cos(math.pi * k / 4)) for k in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, *cosine])
    assert rates[3] == 1.0
    assert rates[7] == pytest.approx(0.2)
    assert learning_rate(0, 10, OptimizerConfig(warmup_steps=0, learning_rate=3.0)) == 3.0


def test_the_schedule_begins_anew_in_every_cycle() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=1, cycles=3, restart_share=0.5)
    once = [learning_rate(step, 4, replace(config, cycles=1)) for step in range(5)]
    rates = [learning_rate(step, 12, config) for step in range(13)]
    assert rates[:4] == pytest.approx(once[:4])
    assert rates[4:8] == rates[8:12] == pytest.approx([0.5 * rate for rate in once[:4]])
    assert rates[12] == pytest.approx(0.0)
    # Steps that do not divide evenly: the last cycle is the shorter one.
    uneven = [learning_rate(step, 11, config) for step in range(11)]
    assert uneven == rates[:11]


def test_biases_and_norms_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.Linear(4, 2))
    network[2].bias.requires_grad_(False)
    decayed, free = make_optimizer(network, OptimizerConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert [p.ndim for p in free["params"]] == [1, 1, 1]


def test_seeds_of_steps_and_streams_differ() -> None:
    seeds = {derived_seed(seed, step, stream) for seed in range(3) for step in range(50) for stream in range(3)}
    assert len(seeds) == 450
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_training_learns_and_writes_what_it_promises(tmp_path: Path) -> None:
    result = run_training(tmp_path, "run", small_training(60, save_every=0, augmentation=PLAIN, log_every=10))
    history = read_history(result.folder)
    losses = [line["loss"] for line in history if "loss" in line]
    assert [line["step"] for line in history] == [10, 20, 30, 40, 50, 60]
    assert losses[-1] < 0.5 * losses[0]
    assert history[0]["learning_rate"] > history[-1]["learning_rate"]
    assert result.seconds_per_step > 0
    assert list((result.folder / "tensorboard").iterdir())
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.lineage.gradient_steps == 60
    assert checkpoint.digest == result.best.digest
    final = _weights(result.folder, 60)
    network = load_network(checkpoint)
    assert all(torch.equal(final[name], value) for name, value in network.state_dict().items())


def test_two_steps_and_resume_equal_the_unbroken_run(tmp_path: Path) -> None:
    unbroken = run_training(tmp_path, "unbroken", small_training())

    def stop(step: int, checkpoint: Path) -> float:
        raise InterruptedError

    # Validation at step 3 stops the first run; the newest state is that of step 2.
    broken = small_training(validate_every=3)
    with pytest.raises(InterruptedError):
        run_training(tmp_path, "broken", broken, stop)
    assert [p.name for p in (tmp_path / "broken" / "state").iterdir()] == ["step_00000002"]
    # The weights to start from are of no matter to a resumed run.
    run_training(tmp_path, "broken", broken, lambda step, checkpoint: 0.0, seed=99)
    _assert_same_state(unbroken.folder, tmp_path / "broken", 6)
    lines = read_history(tmp_path / "broken")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    losses = [line["loss"] for line in read_history(unbroken.folder)]
    assert [line["loss"] for line in lines if "loss" in line] == losses


def test_an_interruption_loses_no_step_and_a_validation_cut_short_is_made_again(tmp_path: Path) -> None:
    unbroken = run_training(tmp_path, "unbroken", small_training())
    training = small_training(validate_every=3, save_every=0)
    asked = []

    def interrupt(step: int, checkpoint: Path) -> float:
        asked.append(step)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_training(tmp_path, "broken", training, interrupt)
        assert [p.name for p in (tmp_path / "broken" / "state").iterdir()] == ["step_00000003"]
    done = run_training(tmp_path, "broken", training, lambda step, checkpoint: float(step))
    assert asked == [3, 3]
    assert [candidate.step for candidate in done.progress.candidates] == [3, 6]
    _assert_same_state(unbroken.folder, tmp_path / "broken", 6)


def test_an_interruption_right_after_the_last_validation_leaves_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run_training(tmp_path, "unbroken", small_training())

    def interrupt(run: _Run) -> None:
        if run.progress.candidates:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "save_if_due", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_training(tmp_path, "broken", small_training())
    assert run_training(tmp_path, "broken", small_training()).progress.step == 6
    _assert_same_state(unbroken.folder, tmp_path / "broken", 6)


def test_a_signal_waits_for_the_end_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of gradient step 2 ends the run with two whole steps saved."""
    unbroken = run_training(tmp_path, "unbroken", small_training())
    training, calls = small_training(save_every=0), []

    def in_the_middle(run: _Run, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(run, batch, generator)

    plain = _Run._loss
    monkeypatch.setattr(_Run, "_loss", in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, "broken", training)
    assert [p.name for p in (tmp_path / "broken" / "state").iterdir()] == ["step_00000002"]
    run_training(tmp_path, "broken", training)
    assert len(calls) == 6
    _assert_same_state(unbroken.folder, tmp_path / "broken", 6)


def _start_process(root: Path, name: str, steps: int) -> subprocess.Popen[bytes]:
    source = Path(__file__).resolve().parents[1] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("training_run.py"))
    return subprocess.Popen([sys.executable, script, str(root), name, str(steps)], env=environment)


def test_a_killed_process_resumes_to_the_same_weights(tmp_path: Path) -> None:
    steps = 60
    unbroken = run_training(tmp_path, "unbroken", small_training(steps, save_every=1))
    process = _start_process(tmp_path, "killed", steps)
    state = tmp_path / "killed" / "state"
    deadline = time.monotonic() + 120
    while len(list(state.glob("step_*"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert max(int(p.name[5:]) for p in state.glob("step_*")) < steps
    assert _start_process(tmp_path, "killed", steps).wait() == 0
    _assert_same_state(unbroken.folder, tmp_path / "killed", steps)
    assert not list(state.glob(".*"))


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole = run_training(tmp_path, "run", small_training())
    wanted = _weights(whole.folder, 6)
    newest = whole.folder / "state" / "step_00000006" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    assert run_training(tmp_path, "run", small_training()).progress.step == 6
    again = _weights(whole.folder, 6)
    assert all(torch.equal(wanted[name], again[name]) for name in wanted)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run_training(tmp_path, "run", small_training())
    again = run_training(tmp_path, "run", small_training())
    assert again.progress == first.progress
    assert math.isnan(again.seconds_per_step)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    run_training(tmp_path, "run", small_training())
    with pytest.raises(TrainingError, match=r"training\.seed: 0 there, 1 now"):
        run_training(tmp_path, "run", small_training(seed=1))
    # When something is saved or logged is no matter of what is trained.
    run_training(tmp_path, "run", small_training(save_every=3))


def test_trainings_one_after_the_other_may_differ_in_precision(tmp_path: Path) -> None:
    losses = {}
    for name, precision in (("first", "bf16"), ("second", "no"), ("third", "bf16")):
        result = run_training(tmp_path, name, small_training(2, mixed_precision=precision))
        losses[name] = [line["loss"] for line in read_history(result.folder)]
    assert losses["first"] == losses["third"]
    assert losses["second"] != losses["first"]
    assert losses["second"] == pytest.approx(losses["first"], rel=0.05)


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    config = small_training(2, augmentation=PLAIN)
    sampler = make_sampler(write_bags(tmp_path / "bags"), tmp_path / "cache", config)
    results = []
    for parts in (1, 4):
        network = make_network(sampler, config=replace(NETWORK, dropout=0.0))
        train(network, sampler, replace(config, accumulation=parts), tmp_path / str(parts), Lineage(), None, False)
        results.append(read_history(tmp_path / str(parts))[0])
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)
    assert results[0]["gradient_norm"] == pytest.approx(results[1]["gradient_norm"], rel=1e-4)


def test_the_last_of_the_best_checkpoints_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    scores = {2: 0.25, 4: 0.75, 6: 0.75, 8: 0.5, 10: 0.9}
    config = small_training(10, validate_every=2, patience=2)
    result = run_training(tmp_path, "run", config, lambda step, checkpoint: scores[step])
    # Steps 4 and 6 are best, 6 has the lower learning rate; neither it nor 8 is better than 4: patience ends before 10.
    assert (result.progress.step, result.progress.finished) == (8, True)
    assert [c.score for c in result.progress.candidates] == [0.25, 0.75, 0.75, 0.5]
    assert result.best.step == 6
    assert [p.name for p in (result.folder / "checkpoints").iterdir()] == ["step_00000006"]
    assert load_checkpoint(result.checkpoint).lineage.gradient_steps == 6
    scored = [line["validation"] for line in read_history(result.folder) if "validation" in line]
    assert scored == [0.25, 0.75, 0.75, 0.5]


def test_the_checkpoint_to_be_scored_is_whole_and_loadable(tmp_path: Path) -> None:
    seen = []

    def look(step: int, checkpoint: Path) -> float:
        seen.append((step, load_checkpoint(checkpoint).lineage.gradient_steps))
        return float(step)

    run_training(tmp_path, "run", small_training(5, validate_every=2), look)
    assert seen == [(2, 2), (4, 4), (5, 5)]


def test_without_scores_the_last_candidate_is_best() -> None:
    candidates = tuple(Candidate(step, str(step), "", None) for step in (1, 2))
    assert Progress(2, candidates).best == candidates[1]
    assert Progress().best is None
    assert Progress().without_improvement() == 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    config = small_training()
    sampler = make_sampler(write_bags(tmp_path / "bags"), tmp_path / "cache", config)
    network = make_network(sampler)
    with torch.no_grad():
        network.queries.fill_(math.nan)
    with pytest.raises(TrainingError, match="gradient step 0: the loss is nan"):
        train(network, sampler, config, tmp_path / "run", Lineage(), visible=False)
    assert not (tmp_path / "run" / "state").exists()


def test_no_file_of_a_run_is_a_pickle(tmp_path: Path) -> None:
    result = run_training(tmp_path, "run", small_training())
    for path in [p for p in tmp_path.rglob("*") if p.is_file() and "tensorboard" not in p.parts]:
        assert path.suffix in (".safetensors", ".json", ".jsonl", ".npy", ".mcap", ".yaml"), path
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
    state = json.loads((result.folder / "state" / "step_00000006" / "state.json").read_text())
    assert state["progress"]["step"] == 6


def test_a_checkpoint_that_is_tampered_with_is_refused(tmp_path: Path) -> None:
    result = run_training(tmp_path, "run", small_training())
    weights = result.checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was saved"):
        load_checkpoint(result.checkpoint)
