"""The model card of a run (Mitchell et al. 2019, arXiv 1810.03993): Markdown made from the run's own files, never by hand.

What a file does not tell, as in older or unfinished runs, is left out.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from alexnet import calibration
from alexnet.calibration import Calibration
from alexnet.familiarity import neither
from alexnet.measures import MOST_SHOWN, frequent_confusions, interval
from alexnet.recipes import RECIPES, Recipe
from alexnet.runs import Run, fits

FILE = "card.md"
MAIN_SETTINGS = (  # always told; all others where they differ from the defaults
    *("image_size", "resize", "normalization", "dropout"),
    *("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "label_smoothing", "ema", "seed"),
)
TRANSFORM = ("image_size", "resize", "squash", "mirror", "five_crops")  # what is known of an imported network, too
MOST_EPOCHS = 20  # rows of the training curve
MOST_MISTAKES = 10
MOST_CONFUSIONS = 10  # rows, of more classes than are shown each by each
SPLITS = {"train": "training", "val": "validation", "test": "test"}
PETS = {"cat", "cats", "dog", "dogs"}


@dataclass(frozen=True)
class _Source:
    """What the files of a run hold."""

    run: Run
    config: dict[str, Any]
    recipe: Recipe
    records: list[dict[str, Any]]
    report: dict[str, Any]  # empty where there is none
    calibration: Calibration

    @property
    def classes(self) -> list[str]:
        return self.config["classes"]

    @property
    def classes_in_words(self) -> str:
        if len(self.classes) <= MOST_SHOWN:
            return f"the classes {_listed(self.classes, 'and')}"
        return f"{len(self.classes):,} classes, such as {_listed(self.classes[:3], 'and')}"

    @property
    def held_out(self) -> str:
        """The split that the report is of, in words."""
        return SPLITS.get(self.report.get("split", ""), "held-out")


def markdown(run: Run) -> str:
    """The card of `run`.

    Raises:
        RunError: its `run.json` or `calibration.json` cannot be read.
    """
    source = _Source(run, run.config, run.recipe, run.metrics(), run.report() or {}, calibration.read(run.path))
    sections: tuple[Callable[[_Source], str], ...]
    sections = (_about, _data, _recipe, _training, _accuracy, _calibration, _familiarity, _mistakes, _size, _limits)
    sections = (_imported, _recipe, _size) if "imported" in source.config else (*sections, _reproduction)
    return "\n\n".join(text for section in sections if (text := section(source))) + "\n"


def write(run: Run) -> None:
    """Replace the `card.md` of `run`; raises as `markdown`, or OSError where the file cannot be written."""
    text, temporary = markdown(run), run.path / f".{FILE}"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, run.path / FILE)


def _about(source: _Source) -> str:
    parent = source.config.get("parent")
    start = f"on top of the weights of {_code(Path(parent).name)}" if isinstance(parent, str) else "from scratch"
    network = "An AlexNet (Krizhevsky, Sutskever and Hinton 2012)"
    if source.recipe.network == "mlp":
        network = "A network of fully connected layers on the pixels, the baseline of AlexNet"
    return _paragraphs(
        f"# Model card: {_text(source.recipe.title)}",
        f"{network}, trained {start}, that sorts photos into {source.classes_in_words}, with a probability for each.",
        "It is meant for trying out, teaching and looking into such a network; not for decisions that matter to "
        "anybody. This card was made by code from the files of the run.",
    )


def _imported(source: _Source) -> str:
    return _paragraphs(
        f"# Model card: {_text(source.recipe.title)}",
        f"A network that sorts photos into {source.classes_in_words}. Its weights were imported from "
        f"{_code(str(source.config['imported']))}; on what and how they were trained, and how good they are, is not known "
        "here. What it is, and what it expects of photos, was told by whoever imported it.",
    )


def _data(source: _Source) -> str:
    dataset, counts = source.config["dataset"], source.report.get("splits")
    few = len(source.classes) <= MOST_SHOWN
    rows = [
        [
            SPLITS.get(split, split),
            *(f"{number:,}" for number in per_class.values() if few),
            f"{sum(per_class.values()):,}",
        ]
        for split, per_class in (counts or {}).items()
        if any(per_class.values())
    ]
    fingerprint = f" Their fingerprint is {_code(dataset['fingerprint'])}." if dataset["fingerprint"] else ""
    return _paragraphs(
        "## Data",
        f"{dataset['photos']:,} usable photos of {_code(dataset['name'])}.{fingerprint} {_split_in_words(source.recipe)}",
        _table(["split", *(map(_text, source.classes) if few else []), "all"], rows),
    )


def _split_in_words(recipe: Recipe) -> str:
    share = f"{recipe.val_fraction:.0%}".replace("%", " %")
    if recipe.val_pattern:
        validation = f"photos whose file names match {_code(recipe.val_pattern)} validate"
    else:
        validation = f"{share} of the photos validate, chosen by their content and the seed {recipe.seed}"
    if recipe.folds:
        test = f"fold {recipe.fold} of {recipe.folds} is the test"
    elif recipe.test_fraction:
        test = f"{recipe.test_fraction:.0%} are kept for one test at the end".replace("%", " %")
    else:
        test = "none are kept for a test"
    return f"Where their folders do not say otherwise, {validation}; {test}. Copies of a photo are used once."


def _recipe(source: _Source) -> str:
    defaults, imported = Recipe(), "imported" in source.config
    rows = []
    for f in fields(Recipe):
        value, default = getattr(source.recipe, f.name), getattr(defaults, f.name)
        is_told = f.name in MAIN_SETTINGS or value != default
        is_known = not imported or f.metadata["group"] == "model" or f.name in TRANSFORM
        if is_told and is_known and f.metadata["group"] not in ("about", "hardware") and f.name != "start_from":
            rows.append([_code(f.name), _value(value), "" if value == default else _value(default)])
    heading = f"## Recipe\n\n{_text(source.recipe.source)}" if source.recipe.source else "## Recipe"
    return _paragraphs(heading, _table(["setting", "value", "default, where it differs"], rows))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _code(value) if value else "none"
    return f"{value:g}"


def _training(source: _Source) -> str:
    status = source.run.status()
    best = status.best["epoch"] if status.best else source.report.get("best_epoch")
    trained = {r["epoch"]: r for r in source.records if r["split"] == "train" and not r.get("partial")}
    validated = {r["epoch"]: r for r in source.records if r["split"] == "val"}
    if not validated:
        return ""
    seconds = max((r["seconds"] for r in source.records if fits(r.get("seconds"), float)), default=0)
    duration = f" in {_duration(seconds)}" if seconds else ""
    device = f" on {_text(status.device)}" if status.device else ""
    rows = [
        [
            f"**{epoch}**" if epoch == best else f"{epoch}",
            _percent(trained[epoch]["accuracy"]) if epoch in trained else "",
            _percent(validated[epoch]["accuracy"]),
            f"{validated[epoch]['loss']:.3f}",
        ]
        for epoch in _some(sorted(validated), best)
    ]
    return _paragraphs(
        "## Training",
        f"{max(validated)} epochs, {source.records[-1]['step']:,} steps{duration}{device}. The weights are those of the "
        "best epoch by validation accuracy, in bold. Accuracy in training is of augmented photos, with dropout, and so "
        "lower.",
        _table(["epoch", "training accuracy", "validation accuracy", "validation loss"], rows),
    )


def _some(epochs: Sequence[int], best: int | None) -> list[int]:
    """Evenly chosen epochs, as many as a table may have, and in any case the first, the best and the last."""
    stride = -(-len(epochs) // MOST_EPOCHS)
    kept = {*epochs[::stride], epochs[-1], best}
    return [epoch for epoch in epochs if epoch in kept]


def _accuracy(source: _Source) -> str:
    report = source.report
    if not {"accuracy", "loss", "count", "confusion"} <= report.keys() or len(report["confusion"]) != len(
        source.classes
    ):
        return ""
    chosen = top = ""
    if report.get("split") == "val":
        chosen = " The best epoch was chosen on these very photos, so expect a little less on others."
    if "top5" in report:
        top = f" Of **{_percent(report['top5'])}** the class is among the five likeliest."
    accuracy, between = _rate_and_interval(round(report["accuracy"] * report["count"]), report["count"])
    return _paragraphs(
        "## Accuracy",
        f"**{accuracy}** of {report['count']:,} {source.held_out} photos are classified correctly (95 % interval "
        f"{between}), with a loss of {report['loss']:.3f}.{top}{chosen}",
        _confusion(source.classes, report["confusion"]),
    )


def _confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """The counts as a table; of many classes the most frequent mistakes."""
    if len(classes) > MOST_SHOWN:
        mistakes = frequent_confusions(confusion, classes, MOST_CONFUSIONS)
        return _table(
            ["photos of", "most often mistaken for", "photos"], [[_text(a), _text(b), f"{n:,}"] for a, b, n in mistakes]
        )
    rows = [
        [_text(name), *(f"{n:,}" for n in row), *_rate_and_interval(row[index], sum(row))]
        for index, (name, row) in enumerate(zip(classes, confusion, strict=True))
    ]
    return _table(["photos of", *(f"predicted {_text(n)}" for n in classes), "right", "95 % interval"], rows)


def _rate_and_interval(right: int, count: int) -> list[str]:
    """The share in percent, and its 95 % interval; empty of no photos."""
    if not count:
        return ["", ""]
    low, high = interval(right / count, count)
    return [_percent(right / count), f"{100 * low:.1f} to {_percent(high)}"]


def _calibration(source: _Source) -> str:
    report, temperature = source.report, source.calibration.temperature
    if "ece" not in report or "risk_at_90" not in report:
        return ""
    rows = [
        [_percent(found["confidence"]), _percent(found["accuracy"]), f"{found['count']:,}"]
        for found in report.get("reliability", [])
    ]
    fitted = f"Logits are divided by {temperature:.3f}, fitted on validation photos. " if temperature != 1 else ""
    return _paragraphs(
        "## Calibration",
        f"{fitted}The expected calibration error on the {source.held_out} photos is "
        f"**{_percent(report['ece'], 2)}** (15 bins): so far are probabilities from how often they are right, on "
        f"average. Of the 90 % of photos that the network is surest of, **{_percent(report['risk_at_90'], 2)}** are "
        "misclassified.",
        _table(["mean probability", "right", "photos"], rows),
    )


def _familiarity(source: _Source) -> str:
    found = source.calibration.familiarity
    if not found or not isinstance(found.get("method"), str):
        return ""
    threshold = found.get("threshold")
    at = f" of {threshold:.4g}" if fits(threshold, float) else ""
    auroc, photos = source.report.get("auroc_neither"), source.report.get("neither", {}).get("count")
    measured = ""
    if auroc is not None and photos:
        measured = f" {photos:,} photos of something else are told from these with an AUROC of **{auroc:.3f}**."
    return _paragraphs(
        "## Photos of something else",
        f"A photo is called {_text(neither(source.classes))} where its familiarity, by the method {_code(found['method'])}, "
        f"is below the threshold{at}, which keeps 95 % of the validation photos.{measured}",
    )


def _mistakes(source: _Source) -> str:
    wrong = _most_confident_mistakes(source.run.path / "predictions.csv")
    rows = [[_code(file), _text(label), _text(predicted), _percent(p)] for file, label, predicted, p in wrong]
    if not rows:
        return ""
    sentence = f"The {len(rows)} {source.held_out} photos of which the network is surest and wrong."
    return _paragraphs("## Worst mistakes", sentence, _table(["photo", "labelled", "predicted", "probability"], rows))


def _most_confident_mistakes(path: Path) -> list[tuple[str, str, str, float]]:
    """File, label, prediction and its probability of the photos that are misclassified with the highest probability."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        whole = (row for row in rows if len(row) == len(header))
        wrong = [(row[0], row[1], row[2], max(map(float, row[3:]))) for row in whole if row[1] != row[2]]
    except (OSError, ValueError, IndexError, csv.Error):
        return []
    return sorted(wrong, key=lambda mistake: (-mistake[3], mistake[0]))[:MOST_MISTAKES]


def _size(source: _Source) -> str:
    report, path = source.report, source.run.weights
    if not source.run.has_weights:
        return ""
    megabytes = path.stat().st_size / 1e6
    whole = report.get("uncompressed")
    if whole is None or not {"rank", "accuracy", "mean_probability_change"} <= report.keys():
        return _paragraphs("## Size", f"{_code(path.name)}: {megabytes:.1f} MB.")
    how = "The weights are kept in 16 bits."
    if rank := report.get("rank"):
        how = (
            f"The large matrices are kept as products of rank {rank} in 8 bits, chosen by the activations that they meet, "
            "and the other weights in 16 bits."
        )
    return _paragraphs(
        "## Size",
        f"{_code(path.name)}: {megabytes:.1f} MB, of {whole['bytes'] / 1e6:.0f} MB. {how} "
        f"Uncompressed the accuracy was {_percent(whole['accuracy'], 2)}, now it is "
        f"{_percent(report['accuracy'], 2)}; on average the probabilities moved by "
        f"{_percent(report['mean_probability_change'], 2)}.",
    )


def _limits(source: _Source) -> str:
    pets = {name.casefold() for name in source.classes} <= PETS
    kinds = "Breeds" if pets else "Kinds"
    lookalikes = " (foxes and wolves, lynxes and other big cats)" if pets else ""
    limits = (
        f"It knows {source.classes_in_words}, and nothing else. Things that look like them{lookalikes} "
        "may well be called one of them, and so may things that do not.",
        "It was trained on photos: drawings, paintings, toys and sculptures are not what it was measured on.",
        "One answer is given for the whole photo: with several classes in it, or a small one at the edge, which may be "
        "cut off, the answer says little.",
        f"{kinds}, poses, ages and light that the training photos hardly show are mistaken more often than the average "
        "tells.",
        "Writing in a photo, frames and collages are seen as shapes, and may mislead it.",
        "The figures hold for photos like those of its dataset. On photos taken otherwise expect less.",
    )
    return _paragraphs("## Known limits", "\n".join(f"- {limit}" for limit in limits))


def _reproduction(source: _Source) -> str:
    config, recipe, name = source.config, source.recipe, source.config["dataset"]["name"]
    versions = config["versions"] if isinstance(config.get("versions"), dict) else {}
    python = [f"Python {config['python']}"] if "python" in config else []
    used = ", ".join([*python, *(f"{package} {version}" for package, version in versions.items())])
    base = RECIPES.get(recipe.name, RECIPES["cats-dogs"])
    command = ["python -m alexnet train", f"--data {_quoted(name)}", f"--recipe {base.name}"]
    for f in fields(Recipe):
        value = getattr(recipe, f.name)
        if f.metadata["group"] not in ("about", "hardware") and value != getattr(base, f.name):
            text = Path(value).name if f.name == "start_from" else _setting(value)
            command.append(f"--{f.name.replace('_', '-')} {_quoted(text)}")
    command += [f"--folds {recipe.folds}"] if recipe.folds else []
    split = source.report.get("split", "val")
    evaluate = f"python -m alexnet evaluate --data {_quoted(name)} --split {split} --run RUN"
    with_versions = f" with {_text(used)}" if used else ""
    return _paragraphs(
        "## Reproduce",
        f"Trained{with_versions}. {_code(name)} stands for the folder of its photos, RUN for that of the run.",
        f"```sh\n{' '.join([*command, '--run RUN'])}\n{evaluate}\n```",
    )


def _setting(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str) -> str:
    """For a shell of any system: in double quotes where it is not a plain word."""
    return text if re.fullmatch(r"[\w./+-]+", text) else f'"{text}"'


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _listed(names: Sequence[str], word: str) -> str:
    texts = [_text(name) for name in names]
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines]) if lines else ""


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _text(words: str) -> str:
    """`words` that Markdown shows as they are, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", " ".join(words.split()))


def _code(words: str) -> str:
    """`words` as code, on one line, also within a table."""
    return "`" + " ".join(words.replace("`", "'").split()).replace("|", r"\|") + "`"
