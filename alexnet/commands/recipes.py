"""`recipes`: the published systems that can be trained, and in what each differs from its source."""

from __future__ import annotations

import argparse
import json
from typing import Any

from alexnet.commands import UsageError
from alexnet.recipes import RECIPES, Recipe, changed_settings

ABOUT = ("name", "title", "source", "published")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("recipes", help="list the recipes, or all that one of them sets")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a recipe: what it sets, and where it differs from its source"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(command=_recipes)


def _recipes(options: argparse.Namespace) -> int:
    if options.name is None:
        answer: dict[str, Any] = {"recipes": [_about(recipe) for recipe in RECIPES.values()]}
    elif options.name in RECIPES:
        recipe = RECIPES[options.name]
        deviations = recipe.deviations.splitlines()
        answer = {**_about(recipe), "settings": changed_settings(recipe), "deviations": deviations}
    else:
        raise UsageError(f"There is no recipe {options.name!r}; there are {', '.join(RECIPES)}.")
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        for about in answer.get("recipes", [answer]):
            _print(about)
    return 0


def _about(recipe: Recipe) -> dict[str, str]:
    return {name: getattr(recipe, name) for name in ABOUT}


def _print(about: dict[str, Any]) -> None:
    print(f"{about['name']}: {about['title']}\n  {about['source']}")
    if about["published"]:
        print(f"  Published: {about['published']}")
    if "settings" in about:
        defaults = Recipe().to_dict()
        print("  Settings, and in brackets the defaults that they replace:")
        for name, value in about["settings"].items():
            print(f"    {name} = {value} ({defaults[name]})")
    if about.get("deviations"):
        print("  Where it differs from its source:")
        for deviation in about["deviations"]:
            print(f"    - {deviation}")
