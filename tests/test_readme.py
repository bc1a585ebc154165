"""The README does what it says: its commands parse, those that are cheap run on doodles, and so does its Python."""

from __future__ import annotations

import ast
import json
import re
import shlex
from importlib import import_module

import pytest

from alexnet import doodles, runs
from alexnet.__main__ import _parser, main
from alexnet.commands.train import given_settings
from alexnet.recipes import RECIPES

README = (runs.PROJECT / "README.md").read_text(encoding="utf-8")
VARIABLES = {"HELD_OUT": "--val-pattern *3.jpg --test-fraction 0", "NAME": "cats-dogs", "PHOTO...": "cat.jpg dog.jpg"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command of the README that runs Python, in its order: from the blocks, the tables and the text."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    shell = [part.strip() for line in lines for part in re.split(r"&&|;", line.partition(" #")[0])]
    shown = [*shell, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))]
    found = [command for command in shown if re.match(r"(python|torchrun)\b.*\b(alexnet|benchmarks)\b", command)]
    return list(dict.fromkeys(found))


def words(command: str) -> list[str]:
    """The arguments after the program's name, with what stands for something else replaced."""
    for name, value in VARIABLES.items():
        command = re.sub(rf"\$?(?<!\w){re.escape(name)}(?!\w)", lambda _, value=value: value, command)
    return shlex.split(command)


def test_the_readme_has_commands():
    assert len(commands()) > 25 and {command.split()[0] for command in commands()} == {"python", "torchrun"}


@pytest.mark.parametrize("command", [c for c in commands() if "-m alexnet" in c and "--help" not in c])
def test_each_command_has_these_options_and_takes_these_values(command):
    arguments = words(command)
    options = _parser().parse_args(arguments[arguments.index("alexnet") + 1 :])
    if hasattr(options, "set_lr"):
        settings = given_settings(options)
        assert RECIPES[options.recipe].replace(**settings, fold=int("folds" in settings))


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("torchrun")])
def test_torchrun_has_these_options(command):
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words(command)[1:])
    assert options.module and options.training_script == "alexnet"


@pytest.mark.parametrize("command", [c for c in commands() if "benchmarks/" in c])
def test_each_benchmark_has_these_options(command, capsys):
    _, script, *arguments = words(command)
    assert (runs.PROJECT / script).exists()
    benchmark = import_module(script.removesuffix(".py").replace("/", "."))
    with pytest.raises(SystemExit) as stop:
        benchmark.main([*arguments, "--help"])
    known = capsys.readouterr().out
    assert stop.value.code == 0 and all(word in known for word in arguments if word.startswith("--"))


TINY = "--epochs 1 --image-size 67 --batch-size 8"
CHEAP = [  # beginnings of commands, in an order that makes what the next ones need
    "data report DATA",
    "recipes NAME",
    "train --data doodles --recipe first-run --run RUN",
    "classify PHOTO... --json",
    "classify PHOTO... --saliency gradcam --out maps",
    "evaluate --data DATA --run RUN --json",
    "submit --data test1 --run RUN --out answers.csv",
    "export --run RUN --out FOLDER",
    "export --run RUN --out FOLDER --format pth",
]


def test_the_cheap_commands_and_the_python_run_on_doodles(tmp_path, monkeypatch, capsys):
    """In the README's own names, which are files of the folder that they run in."""
    monkeypatch.chdir(tmp_path)
    doodles.write(tmp_path / "DATA", per_class=12)
    (tmp_path / "test1").mkdir()
    for number in range(2):
        doodles.draw("dog", number).save(tmp_path / f"test1/{number}.jpg")
    for label in ("cat", "dog"):
        doodles.draw(label, 3).save(tmp_path / f"{label}.jpg")
    printed = {}
    for beginning in CHEAP:
        command = next(c for c in commands() if c.partition("-m alexnet ")[2].startswith(beginning))
        arguments = ["DATA" if word == "doodles" else word for word in words(command)[3:]]
        more = {"train": TINY, "classify": "--run RUN"}.get(arguments[0], "")
        assert main([*arguments, *more.split()]) == 0, command
        printed[beginning] = capsys.readouterr().out
    expected = json.loads(printed["classify PHOTO... --json"])["photos"][0]["probabilities"]
    for ending in ("pth", "json"):
        (tmp_path / f"FOLDER/RUN.{ending}").rename(tmp_path / f"FOLDER/cats-dogs.{ending}")
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, names)
    assert ast.literal_eval(capsys.readouterr().out) == pytest.approx(expected, abs=1e-4)
    assert (tmp_path / "maps").is_dir() and (tmp_path / "answers.csv").is_file()
