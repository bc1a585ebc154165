"""A sweep: runs that differ in a few settings, to find the values that work best.

A sweep is a series, see `alexnet.series`, of `sweep.json` and the runs `trial-1`, `trial-2` and so on. Trials that the
others leave behind end early, and the report puts all of them in order.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from alexnet import data, runs, series
from alexnet.recipes import Recipe, RecipeError, parse_setting
from alexnet.runs import SWEEP_FILE, Run, RunError
from alexnet.series import Series, mean_and_deviation

SEARCHES = ("grid", "random", "optuna")
TRIALS = 10  # of a search that does not say how many
MOST_TRIALS = 1000
WITHOUT_OPTUNA = "Optuna is not installed; install it (pip install optuna) or search at random."
TOO_MANY = f"these values make more than {MOST_TRIALS:,} combinations"
FEWEST_EARLIER = 3  # trials that one has to be compared with before it may end early
MOST_ASKED = 100  # times that Optuna may suggest what has been tried
FIELDS = {f.name: f for f in fields(Recipe)}


@dataclass(frozen=True)
class Span:
    """Numbers to draw from: `low` to `high`, both among them; whole numbers, where the setting is one."""

    low: float
    high: float

    @property
    def is_logarithmic(self) -> bool:
        """Whether it spans a factor of ten or more, and each factor is as likely as any other."""
        return 0 < 10 * self.low <= self.high


Values = tuple[Any, ...] | Span


@dataclass(frozen=True)
class Plan:
    """What a sweep tries."""

    vary: Mapping[str, Values]  # setting -> its values
    search: str  # one of SEARCHES
    trials: int
    pruning: bool  # whether hopeless trials may end early


@dataclass(frozen=True)
class Sweep(Series):
    """What `sweep.json` says; `recipe` has the settings that no trial changes."""

    FILE: ClassVar[str] = SWEEP_FILE
    COMMAND: ClassVar[str] = "sweep"
    BEARS_FAILURES: ClassVar[bool] = True  # a learning rate may be too high, and that is a result

    plan: Plan

    @classmethod
    def read_more(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The `plan`; raises KeyError, TypeError or ValueError where there is none."""
        vary = {name: _values_from_json(values) for name, values in dict(config["vary"]).items()}
        plan = Plan(vary, config["search"], config["trials"], config["pruning"])
        if not vary or not vary.keys() <= FIELDS.keys() or [type(plan.trials), type(plan.pruning)] != [int, bool]:
            raise TypeError
        if plan.search not in SEARCHES or not 1 <= plan.trials <= MOST_TRIALS:
            raise ValueError
        values: Any = vary.values()
        if plan.search == "grid" and plan.trials != math.prod(map(len, values)):  # TypeError for a range
            raise ValueError
        return {"plan": plan}

    @property
    def count(self) -> int:
        """How many trials there are to be."""
        return self.plan.trials

    def recipe_of(self, number: int) -> Recipe:
        """The recipe of a trial, by its number from 1; where Optuna searches, it follows from the trials before it."""
        if self.plan.search == "optuna":
            return self.recipe.replace(**_suggested(self, number))
        return self.recipe.replace(**next(itertools.islice(_combinations(self.recipe, self.plan), number - 1, None)))

    def trials(self) -> list[dict[str, Any]]:
        """What `alexnet.series.outcome` says of each trial so far, and its `values`: setting -> value.

        Raises:
            RunError: the `run.json` of one cannot be read.
        """
        return [{**series.outcome(run), "values": self.values_of(run)} for run in self.made()]

    def values_of(self, run: Run) -> dict[str, Any]:
        """The values that a trial has for the settings that vary.

        Raises:
            RunError: its `run.json` cannot be read.
        """
        recipe = run.recipe
        return {name: getattr(recipe, name) for name in self.plan.vary}

    def report(self) -> dict[str, Any]:
        """What the trials say together, see `summarize`.

        Raises:
            RunError: none of them came to a result; or as `trials`.
        """
        return summarize(self.trials())


def find(name: Path) -> Sweep | None:
    """The sweep of this name, see `alexnet.series.find`."""
    return series.find(Sweep, name)


# ----------------------------------------------------------------------------------------------------- what is tried


def make_plan(
    recipe: Recipe, vary: Mapping[str, str], search: str = "grid", trials: int | None = None, pruning: bool = True
) -> Plan:
    """What a sweep is to try, checked.

    Args:
        recipe: the settings that it starts from.
        vary: setting -> its values, as a person writes them: a list such as `0.2,0.5`; a range such as `1e-4..1e-1` to
            draw from, where the search is not a grid; of whole numbers in a grid or a list, each of the range.
        search: `grid`, all combinations in order, the last setting changing first; `random`, different combinations
            drawn by the seed of `recipe`; `optuna`, such as have promise after the trials before.
        trials: how many to make; of a grid all. By default TRIALS, or as many as there are combinations.
        pruning: whether hopeless trials may end early, see `why_hopeless`.

    Raises:
        RecipeError: a setting does not exist or cannot vary, a value of it cannot work, alone or with others, or
            `search` or `trials` cannot be.
    """
    if search not in SEARCHES:
        raise RecipeError("search", f"{search!r} is not one of {', '.join(SEARCHES)}.")
    if search == "optuna" and not has_optuna():
        raise RecipeError("search", WITHOUT_OPTUNA)
    if not vary:
        raise RecipeError("vary", "name a setting and the values to try, such as dropout=0.2,0.5.")
    values = {name: read_values(name, text, search) for name, text in vary.items()}
    if search == "grid":
        if trials is not None:
            raise RecipeError("trials", "a grid tries every combination; leave this out or search at random.")
        trials = math.prod(len(listed) for listed in values.values() if isinstance(listed, tuple))
        if trials > MOST_TRIALS:
            raise RecipeError("vary", f"{TOO_MANY}; list fewer, or search at random.")
    if trials is not None and not 1 <= trials <= MOST_TRIALS:
        raise RecipeError("trials", f"{trials:,} is out of range; use from 1 to {MOST_TRIALS:,}.")
    wanted = Plan(values, search, trials or TRIALS, pruning)
    for _ in _recipes(recipe, wanted):  # each is checked as it is made
        pass
    found = sum(1 for _ in itertools.islice(_combinations(recipe, wanted), wanted.trials))
    if trials is not None and found < trials:
        raise RecipeError("trials", f"these values make {found:,} different combinations; use {found:,} at most.")
    return replace(wanted, trials=found)


def read_values(name: str, text: str, search: str) -> Values:
    """The values of a setting as a person writes them, see `make_plan`.

    Raises:
        RecipeError: the setting does not exist or cannot vary, or the text is no list or range of its values.
    """
    if name not in FIELDS or FIELDS[name].metadata["group"] == "about":
        raise RecipeError(name, "there is no such setting to vary; `python -m alexnet sweep --help` lists them all.")
    kind, items = str(FIELDS[name].type), [item.strip() for item in text.split(",")]
    is_range = kind in ("int", "float") and len(items) == 1 and ".." in text
    if is_range and search != "grid":
        return Span(*_ends(name, text))
    values: list[Any] = []
    for item in items:
        if kind == "int" and ".." in item:
            low, high = _ends(name, item)
            values += range(low, min(high, low + MOST_TRIALS) + 1)  # one more than there may be
        elif kind == "float" and ".." in item:
            raise RecipeError(name, f"{item!r} is a range to draw from; list single values, or search at random.")
        else:
            values.append(parse_setting(name, item))
    if len(values) == 1:
        raise RecipeError(name, "one value varies nothing; list several, such as 1,2, or set it for all trials.")
    if twice := [value for value in values if values.count(value) > 1][:1]:
        raise RecipeError(name, f"{twice[0]!r} is listed twice; list each value once.")
    return tuple(values)


def _ends(name: str, text: str) -> tuple[Any, Any]:
    low, high = (parse_setting(name, end.strip()) for end in text.split("..", 1))
    if not low < high:
        raise RecipeError(name, f"the range {text} is empty; write the smaller number first.")
    return low, high


def _combinations(recipe: Recipe, plan: Plan) -> Iterator[dict[str, Any]]:
    """The values that the trials try, in order; endless where numbers are drawn."""
    if plan.search == "grid":
        return _product(plan.vary)  # type: ignore[arg-type]  # a grid has no ranges
    return _draws(plan.vary, random.Random(recipe.seed))


def _product(vary: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values()))


def _draws(vary: Mapping[str, Values], generator: random.Random) -> Iterator[dict[str, Any]]:
    """Combinations, each of them once, until there seem to be no more."""
    seen: set[tuple[Any, ...]] = set()
    misses = 0
    while misses < 10 * MOST_TRIALS:
        values = {name: _draw(name, choices, generator) for name, choices in vary.items()}
        misses += 1
        if tuple(values.values()) not in seen:
            seen.add(tuple(values.values()))
            misses = 0
            yield values


def _draw(name: str, choices: Values, generator: random.Random) -> Any:
    if isinstance(choices, tuple):
        return generator.choice(choices)
    if choices.is_logarithmic:
        number = math.exp(generator.uniform(math.log(choices.low), math.log(choices.high)))
    elif FIELDS[name].type == "int":
        number = generator.randint(int(choices.low), int(choices.high))
    else:
        number = generator.uniform(choices.low, choices.high)
    return _readable(name, number, choices)


def _readable(name: str, number: Any, choices: Values) -> Any:
    """A number of a range as a whole one, or with four digits, which say all that matters and can be typed."""
    if isinstance(choices, tuple):
        return number
    rounded = round(number) if FIELDS[name].type == "int" else float(f"{number:.4g}")
    return min(max(rounded, choices.low), choices.high)


def _recipes(recipe: Recipe, plan: Plan) -> Iterator[Recipe]:
    """The recipes of all combinations, of ranges those of their ends; of too many combinations, those that are tried.

    Raises:
        RecipeError: one cannot work, or it cannot be told.
    """
    ends = {name: v if isinstance(v, tuple) else (v.low, v.high) for name, v in plan.vary.items()}
    every = _product(ends)
    if math.prod(map(len, ends.values())) > MOST_TRIALS:
        if plan.search == "optuna":
            raise RecipeError("vary", f"{TOO_MANY}; list fewer, or give ranges.")
        every = itertools.islice(_combinations(recipe, plan), plan.trials)
    return (recipe.replace(**values) for values in every)


# ------------------------------------------------------------------------------------------------------------- Optuna


def has_optuna() -> bool:
    """Whether Optuna is installed."""
    return importlib.util.find_spec("optuna") is not None


def _suggested(sweep: Sweep, number: int) -> dict[str, Any]:
    """The values that Optuna suggests for a trial, from those before it.

    The study is made anew each time, from the runs on the disk, and the sampler seeded by the number of the trial, so
    that a sweep that was resumed goes on as one that was not.
    """
    if not has_optuna():
        raise RecipeError("search", WITHOUT_OPTUNA)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    vary, seed = sweep.plan.vary, random.Random(f"{sweep.recipe.seed}/{number}")
    distributions = {name: _distribution(name, choices) for name, choices in vary.items()}
    # By default it draws the first ten at random, which may be all there are.
    at_random = min(10, max(1, sweep.count // 3))
    sampler = optuna.samplers.TPESampler(seed=seed.randrange(2**32), n_startup_trials=at_random)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    tried = []
    for run in map(sweep.run, range(1, number)):
        tried.append(sweep.values_of(run))
        if best := run.status().best:
            trial = optuna.trial.create_trial(params=tried[-1], distributions=distributions, value=best["accuracy"])
            study.add_trial(trial)
    asked = (study.ask(distributions).params for _ in range(MOST_ASKED))
    suggested = ({name: _readable(name, params[name], vary[name]) for name in vary} for params in asked)
    return next(values for values in itertools.chain(suggested, _draws(vary, seed)) if values not in tried)


def _distribution(name: str, choices: Values) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(choices, tuple):
        return CategoricalDistribution(choices)
    kind: Any = IntDistribution if FIELDS[name].type == "int" else FloatDistribution
    return kind(choices.low, choices.high, log=choices.is_logarithmic)


# --------------------------------------------------------------------------------------------------------- on the disk


def create(recipe: Recipe, plan: Plan, name: str, dataset: data.Dataset, path: Path | None = None) -> Sweep:
    """Make the folder of a sweep; nothing trains yet.

    Args:
        recipe: the settings that no trial changes.
        plan: what to try, made for `recipe`.
        name: that of the dataset, or its folder, as a person gave it.
        dataset: what it led to.
        path: the folder to make; by default a new one under `runs/`.

    Raises:
        DataError: the photos do not suffice for a trial.
        RunError: a trial does not fit the photos; or as `alexnet.runs.create`.
        RecipeError: as `make_plan`.
    """
    recipe = runs.fitted(recipe, dataset)
    vary = dict(plan.vary)
    if isinstance(parents := vary.get("start_from"), tuple):
        vary["start_from"] = tuple(runs.fitted(recipe.replace(start_from=run), dataset).start_from for run in parents)
    deciding = [name for name in vary if FIELDS[name].metadata["group"] in ("data", "model")]
    seen = set()
    for trial in _recipes(recipe, plan):
        settings = tuple(getattr(trial, name) for name in deciding)
        if settings not in seen:  # or the same photos would be divided a thousand times
            seen.add(settings)
            data.split(dataset, runs.fitted(trial, dataset))
    values = {name: _values_to_json(choices) for name, choices in vary.items()}
    facts = {"vary": values, "search": plan.search, "trials": plan.trials, "pruning": plan.pruning}
    return series.create(Sweep, path, f"{recipe.name}-sweep", recipe, name, dataset, **facts)


def _values_to_json(values: Values) -> Any:
    return list(values) if isinstance(values, tuple) else {"low": values.low, "high": values.high}


def _values_from_json(values: Any) -> Values:
    if isinstance(values, list) and values and all(isinstance(value, str | int | float) for value in values):
        return tuple(values)
    ends = [values[end] for end in ("low", "high")]
    if not all(type(end) in (int, float) for end in ends):
        raise TypeError
    return Span(*ends)


# ------------------------------------------------------------------------------------------------------------ outcomes


def in_words(value: Any) -> str:
    """The value of a setting, or all that a sweep tries for it, as people read and write them."""
    if isinstance(value, Span):
        return f"{in_words(value.low)}..{in_words(value.high)}"
    if isinstance(value, tuple):
        return ", ".join(map(in_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def ranked(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials with the best validation `accuracy` first, and those without one last."""
    return sorted(trials, key=lambda trial: -1 if trial["accuracy"] is None else trial["accuracy"], reverse=True)


def summarize(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What trials say together.

    Args:
        trials: as `Sweep.trials` has them.

    Returns:
        `best`, the name of the best trial; `trials`, best first; and where they differ in the seed alone `seeds`: the `mean`
        and the `deviation` (of a sample, n - 1) of `accuracy` and of `test_accuracy` over the trials that have finished.

    Raises:
        RunError: none of them has a validation accuracy.
    """
    ordered = ranked(trials)
    if not ordered or ordered[0]["accuracy"] is None:
        why = f"; the last one says: {trials[-1]['message']}" if trials else ""
        raise RunError(f"No trial came to a result{why}")
    summary = {"best": ordered[0]["run"], "trials": ordered}
    if all(trial["values"].keys() == {"seed"} for trial in trials):
        summary["seeds"] = {}
        for name in ("accuracy", "test_accuracy"):
            found = [t[name] for t in trials if t["state"] == "finished" and t[name] is not None]
            if len(found) > 1:
                summary["seeds"][name] = mean_and_deviation(found)
    return summary


def why_hopeless(run: Run, epoch: int, accuracy: float) -> str:
    """Why a trial is not worth going on with; empty where it is, and for runs of no sweep.

    A trial ends early when, after its second epoch or a later one, its best validation accuracy is below the median of
    the best ones that the trials before it had after as many epochs, of which there are three at least. This is the
    median stopping rule of Golovin et al. 2017 (Google Vizier, section 3.2), which compares with the mean over the others'
    epochs where this compares with their best. It rests where trials have different numbers of epochs, whose learning
    rates are at different places, and where they differ in the seed alone, of which a mean is wanted.

    Args:
        run: the trial.
        epoch: how many epochs it has finished.
        accuracy: the best validation accuracy of them, 0 to 1.
    """
    with contextlib.suppress(RunError):  # it cannot be read: the trial goes on
        sweep = find(run.path.parent)
        if sweep is None or not sweep.plan.pruning or epoch < 2:
            return ""
        if "epochs" in sweep.plan.vary or sweep.plan.vary.keys() == {"seed"}:
            return ""
        earlier = itertools.takewhile(
            lambda other: other.path.name != run.path.name, map(sweep.run, range(1, sweep.count + 1))
        )
        reached = [best for other in earlier if (best := _best_after(other, epoch)) is not None]
        if len(reached) >= FEWEST_EARLIER and accuracy < (median := statistics.median(reached)):
            return (
                f"after {epoch} epochs its best validation accuracy, {accuracy:.2%}, was below {median:.2%}, the median of "
                f"{len(reached)} earlier trials"
            )
    return ""


def _best_after(run: Run, epoch: int) -> float | None:
    """The best validation accuracy that a run had after so many epochs; None if it did not come that far."""
    found = {record["epoch"]: record["accuracy"] for record in run.metrics() if record["split"] == "val"}
    if max(found, default=0) < epoch:
        return None
    return max(accuracy for number, accuracy in found.items() if number <= epoch)
