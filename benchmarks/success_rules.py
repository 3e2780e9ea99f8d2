"""How often success rules agree with the simulator's own predicate.

    python benchmarks/success_rules.py --states 5 --noise 0.5

The scripted expert tries each task that the file has a rule for, with noise, so that some tries fail. At every step
the rule and the simulator's predicate are both asked; a try agrees where both, or neither, were ever satisfied.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from rollout_manager.drivers import ExpertDriver
from rollout_manager.env import Env
from rollout_manager.envs.registry import make_env
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import Expert, expert_noise, make_expert
from rollout_manager.rollout import Tick, new_header
from rollout_manager.success_rules import Rule, load_rules
from trainer.statistics import wilson
from vla_policy_node.locations import config_dir
from vla_policy_node.observation import ObservationBuffer

AFTER = 20
"""Steps that a try goes on for once one of the two is satisfied, for the other to follow."""


@dataclass(frozen=True)
class Verdicts:
    """When each was first satisfied, in steps; None: never."""

    own: int | None
    rule: int | None

    @property
    def agree(self) -> bool:
        return (self.own is None) == (self.rule is None)


def judged(env: Env, expert: Expert, rule: Rule, task: str, seed: int, noise: float) -> Verdicts:
    """One try by the expert, seen by both."""
    driver = ExpertDriver(Demonstrator(expert, env.spec, expert_noise(env.name, env.spec, noise, 0.8)))
    header = new_header(env, task, seed, driver="expert", exploration=noise)
    env.reset(task, seed)
    driver.reset(header)
    judge, buffer = rule.judge(), ObservationBuffer(env.spec, depth=1)
    own = by_rule = None
    for step in range(1, header.time_limit_steps + 1):
        result = env.step(driver.step(Tick(env, buffer, step * env.spec.period_ns)).action)
        own = step if own is None and result.success else own
        by_rule = step if by_rule is None and judge.update(env.landmarks()) == 1.0 else by_rule
        first = min((s for s in (own, by_rule) if s is not None), default=None)
        if first is not None and step >= first + AFTER:
            break
    return Verdicts(own, by_rule)


def main() -> int:
    """Print a line a task; returns 1 where fewer than nine in ten tries agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default="libero")
    parser.add_argument("--rules", type=Path, default=config_dir() / "success" / "libero_10tasks.yaml")
    parser.add_argument("--states", type=int, default=5)
    parser.add_argument("--first-state", type=int, default=30)
    parser.add_argument("--noise", type=float, default=0.5)
    given = parser.parse_args()
    env, expert = make_env(given.environment), make_expert(given.environment)
    total: list[Verdicts] = []
    print(f"{'task':<84}{'own':>5}{'rule':>5}{'agree':>7}  rule's first step less own, median")
    for task, rule in load_rules(given.rules).rules.items():
        seeds = range(given.first_state, given.first_state + given.states)
        tries = [judged(env, expert, rule, task, seed, given.noise) for seed in seeds]
        total += tries
        lag = sorted(v.rule - v.own for v in tries if v.own is not None and v.rule is not None)
        own, by_rule = sum(v.own is not None for v in tries), sum(v.rule is not None for v in tries)
        agree = sum(v.agree for v in tries)
        print(
            f"{task:<84}{own:>5}{by_rule:>5}{agree:>4}/{len(tries)}  {lag[len(lag) // 2] if lag else '-'}", flush=True
        )
    env.close()
    rate = wilson(sum(v.agree for v in total), len(total))
    print(f"agreement {rate}")
    return int(rate.value < 0.9)


if __name__ == "__main__":
    sys.exit(main())
