"""From a run's folder to its report: everything is read back from the journal and the files it names."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_manager.results import COLUMNS, EpisodeResultRow, read_results
from trainer.exceptions import TrainerError
from trainer.fbc_stages import EVALUATION, ZERO_SHOT, measured
from trainer.journal import Output, read_journal
from trainer.report_data import Ancestor, Arm, Candidate, Collection, Curve, Report, Video, attempts_of
from trainer.report_page import page
from trainer.statistics import compare_paired, success_by_state
from trainer.training_log import read_history

JOURNAL, RESULTS, PAGE = "journal.json", "results.csv", Path("report") / "index.html"

TITLES: Mapping[str, str] = {"bc": "BC", "control": "control", "best_bc": "best BC", "unfiltered": "unfiltered"}
GIVEN = "base", "the policy that the rounds began from, trained elsewhere"
"""Title and note of the base where it is not behaviour cloning of this run."""
NOTES: Mapping[str, str] = {
    "bc": "demonstrations alone, the best of its checkpoints on the validation seeds",
    "control": "as many gradient steps as FBC, from the same start, on demonstrations alone",
    "best_bc": "the best checkpoint that any training on demonstrations alone gave",
    "unfiltered": "as FBC, on all of its tries instead of those that succeeded",
}


def write_report(folder: Path, videos: Sequence[Video] = ()) -> Path:
    """Write the page and the table of all evaluation episodes. Returns the page's path.

    Raises:
        TrainingError: the folder holds no run.
        TrainerError: nothing of it has been evaluated yet.
    """
    report = gather(folder, videos)
    write_all_results(report.arms, folder / RESULTS)
    target = folder / PAGE
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(page(report))
    temporary.replace(target)
    return target


def gather(folder: Path, videos: Sequence[Video] = ()) -> Report:
    """Everything that a run's folder says. Raises as `write_report`."""
    journal = read_journal(folder / JOURNAL)
    outputs: dict[str, Output] = {stage["name"]: stage["output"] for stage in journal["stages"]}
    given = bool(journal["config"].get("base_checkpoint"))
    arms = _arms(folder, outputs, "evaluate ", EVALUATION, given)
    if not arms:
        raise TrainerError(f"'{folder}': nothing has been evaluated yet; finish the run first")
    config = journal["config"]
    collections = _collections(folder, outputs, config)
    trained = {name.removeprefix("train "): output for name, output in outputs.items() if name.startswith("train ")}
    return Report(
        title=f"{len(config['tasks'])} tasks, {config['demonstrations']['per_task']} demonstrations each, "
        "and what the policy taught itself",
        summary=summary(arms),
        arms=arms,
        zero_shot=_arms(folder, outputs, "zero-shot ", ZERO_SHOT, given),
        pairs=_pairs(arms),
        losses=tuple(curve for name in trained if (curve := _loss(folder, name))),
        candidates=tuple(c for name, output in trained.items() for c in _candidates(name, output)),
        collections=collections,
        lineage=tuple(_ancestor(name, output) for name, output in trained.items()),
        videos=tuple(videos),
        stages=tuple((stage["name"], stage["seconds"]) for stage in journal["stages"]),
        paths=_paths(folder, outputs, trained, collections),
        facts=_facts(config, arms),
    )


def summary(arms: Sequence[Arm]) -> str:
    """The result in a sentence or two, with what it rests on."""
    by_name = {arm.name: arm for arm in arms}
    last = _last_own(arms)
    base = by_name["bc"]
    begun = "Behaviour cloning" if base.title == TITLES["bc"] else "The policy that it began with"
    text = f"{begun} succeeds in {_percent(base)} of {base.summary.rate.trials} tries"
    if last is None:
        return f"{text}."
    iterations = sum(arm.name.startswith("fbc_") for arm in arms)
    text += f"; after {iterations} iteration{'s' * (iterations > 1)} on its own successes, {_percent(last)}."
    if control := by_name.get("control"):
        test = compare_paired(success_by_state(control.rows), success_by_state(last.rows))
        verdict = "beyond" if test.p_value <= 0.05 else "not beyond"
        text += f" The same gradient steps on demonstrations alone give {_percent(control)}: "
        text += f"a difference of {100 * test.difference:+.1f} points, {verdict} chance (p = {test.p_value:.3f})."
    return text


def write_all_results(arms: Sequence[Arm], path: Path) -> None:
    """One CSV row an evaluation episode of every arm: the arm's name, then the columns of every results file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arm", *COLUMNS))
        for arm in arms:
            writer.writerows((arm.name, *_cells(row)) for row in arm.rows)
    temporary.replace(path)


def title_of(name: str) -> str:
    """What an arm is called on the page."""
    return TITLES.get(name) or name.replace("fbc_", "FBC ")


def _cells(row: EpisodeResultRow) -> list[str]:
    cells = {name: getattr(row, name) for name in COLUMNS}
    cells["success"] = int(row.success)
    cells["versions"] = json.dumps(dict(row.versions), sort_keys=True)
    return [str(cells[name]) for name in COLUMNS]


def _arms(
    folder: Path, outputs: Mapping[str, Output], stages: str, results: str, given: bool = False
) -> tuple[Arm, ...]:
    """The arms that the stages whose names begin so have measured, into a results file; references first.

    Args: given: whether the base is a policy that there was before.
    """
    arms = []
    for stage, output in outputs.items():
        if stage.startswith(stages):
            name = stage.removeprefix(stages)
            rows = tuple(measured(folder / results, output["digest"]))
            title, note = title_of(name), NOTES.get(name, "demonstrations and its own successes so far")
            if given and name == "bc":
                title, note = GIVEN
            arms.append(Arm(name, title, rows, f"{note} ({output['checkpoint']})", output["checkpoint"]))
    order = ("bc", "best_bc", "control", "unfiltered")
    return tuple(sorted(arms, key=lambda arm: order.index(arm.name) if arm.name in order else len(order)))


def _last_own(arms: Sequence[Arm]) -> Arm | None:
    own = [arm for arm in arms if arm.name.startswith("fbc_")]
    return max(own, key=lambda arm: int(arm.name.removeprefix("fbc_"))) if own else None


def _pairs(arms: Sequence[Arm]) -> tuple[tuple[str, str], ...]:
    last = _last_own(arms)
    return tuple((arm.name, last.name) for arm in arms if arm is not last) if last else ()


def _percent(arm: Arm) -> str:
    rate = arm.summary.rate
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]" if rate.trials else "no try"


def _candidates(name: str, output: Output) -> list[Candidate]:
    return [
        Candidate(name, steps, successes, tries, chosen) for steps, successes, tries, chosen in output["candidates"]
    ]


def _collections(folder: Path, outputs: Mapping[str, Output], config: Mapping[str, Any]) -> tuple[Collection, ...]:
    found = []
    every = config["collection"].get("execute_every") or [config["evaluation"]["execute_every"]]
    for stage, output in outputs.items():
        if not stage.startswith("collect "):
            continue
        kept = outputs.get(f"keep {stage.removeprefix('collect ')}", {"kept": {}, "dropped": {}})
        rows = read_results(folder / output["results"])
        found.append(
            Collection(
                name=f"iteration {stage.removeprefix('collect ')}",
                tries=len(rows),
                successes=sum(row.success for row in rows),
                attempts=attempts_of(rows),
                execute_every=tuple(every),
                kept=_kept_names(kept),
                dropped=kept["dropped"],
                skipped=tuple(output["skipped"]),
                bags=", ".join(output["bags"]),
            )
        )
    return tuple(found)


def _kept_names(kept: Output) -> dict[str, int]:
    needed = {task: share for task, share in kept.get("progress_needed", {}).items() if share < 1}
    return {f"{t} (progress from {needed[t]:.2f} on)" if t in needed else t: n for t, n in kept["kept"].items()}


def _ancestor(name: str, output: Output) -> Ancestor:
    return Ancestor(
        name=name,
        digest=output["digest"],
        parent=output["parent"],
        steps=output["steps"],
        demonstrations=output["demonstrations"],
        own=output["own"],
        path=output["checkpoint"],
    )


def _loss(folder: Path, name: str) -> Curve | None:
    history = [line for line in read_history(folder / "training" / name) if "loss" in line]
    if not history:
        return None
    return Curve(name, tuple(int(line["step"]) for line in history), tuple(line["loss"] for line in history))


def _paths(
    folder: Path, outputs: Mapping[str, Output], trained: Mapping[str, Output], collections: Sequence[Collection]
) -> dict[str, str]:
    paths = {"results, one row an episode": RESULTS}
    if "demonstrations" in outputs:
        paths["bags of the demonstrations"] = outputs["demonstrations"]["bags"]
    for collection in collections:
        paths[f"bags of {collection.name}"] = collection.bags
    paths |= {f"checkpoint {name}": output["checkpoint"] for name, output in trained.items()}
    return {what: str((folder / path).resolve()) for what, path in paths.items()}


def _facts(config: Mapping[str, Any], arms: Sequence[Arm]) -> dict[str, str]:
    evaluation, start = config["evaluation"], config["seeds"]
    row = arms[0].rows[0]
    facts = {
        "environment": f"{row.environment}, robot {config['robot']} (spec {row.spec_digest})",
        "evaluation seeds": f"{evaluation['evaluation_seeds']} a task from {start['evaluation']} on",
        "collection seeds": _collection_seeds(config),
        "validation seeds": f"{evaluation['validation_seeds']} a task from {start['validation']} on",
        "exploration per try": ", ".join(f"{scale:g}" for scale in config["collection"]["attempts"]),
        "actions of a chunk carried out": _chunks(config),
        "time limit": f"{config['time_limit']} steps",
    }
    return facts | dict(row.versions)


def _chunks(config: Mapping[str, Any]) -> str:
    own = config["collection"].get("execute_every")
    tries = f"; in the tries {', '.join(map(str, own))} in turn" if own else ""
    return f"{config['evaluation']['execute_every']}{tries}"


def _collection_seeds(config: Mapping[str, Any]) -> str:
    collection, first = config["collection"], config["seeds"]["collection"]
    kind = "new ones each iteration" if collection["fresh"] else "the same ones each iteration"
    active = (
        "" if collection["active"] == 1 else f", {100 * collection['active']:g} % of them where success is uncertain"
    )
    return f"{collection['seeds_per_task']} a task from {first} on, {kind}{active}"
