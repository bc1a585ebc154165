"""`submit`: answers for Kaggle's photos without labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alexnet.commands import RUN_HELP, chosen_run, show_progress


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    submit = commands.add_parser(
        "submit",
        help="answer Kaggle's photos of dogs and cats without labels",
        description="Write a row id,label for each photo of a folder that has a number for a name, such as 1.jpg: label is "
        "1 for a dog and 0 for a cat. A photo that cannot be opened gets 0, or the probability 0.5, and is told of.",
    )
    submit.add_argument(
        "--data", required=True, type=Path, metavar="FOLDER", help="the folder of photos, such as test1"
    )
    submit.add_argument("--run", help=RUN_HELP)
    submit.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="the file to write, such as answers.csv"
    )
    submit.add_argument(
        "--probabilities", action="store_true", help="write how likely a dog is, as the second competition, Redux, asks"
    )
    submit.set_defaults(command=_submit)


def _submit(options: argparse.Namespace) -> int:
    from alexnet.predict import load_classifier
    from alexnet.submission import predict, replacing

    run = chosen_run(options.run)
    with replacing(options.out) as file:
        submission = predict(load_classifier(run), options.data, show_progress)
        file.write(submission.csv(options.probabilities))
    for problem in submission.problems:
        print(problem, file=sys.stderr)
    print(f"{options.out}: {len(submission.dogs):,} rows, {sum(p > 0.5 for p in submission.dogs.values()):,} of dogs")
    return int(bool(submission.problems))
