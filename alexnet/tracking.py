"""Weights & Biases as one more reader of the run folder, in a process of its own: `python -m alexnet.tracking RUN`.

Training neither waits for it nor notices when it fails. The sole importer of wandb.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from alexnet import public, runs
from alexnet.runs import Run

POLL_SECONDS = 1.0


def follow(run: Run) -> None:
    """Copy configuration, metrics and summary of `run` to Weights & Biases until its trainer ends."""
    public.refuse("recording with Weights & Biases")
    session = _begin(run)
    sent = 0
    while True:
        live = run.status().live  # asked before reading, so that the last records are not missed
        records = run.metrics()
        for index in range(sent, len(records)):
            session.log(_flat(records[index]), step=index)  # what a resumed run sends again is ignored by its step
        sent = len(records)
        if not live:
            break
        time.sleep(POLL_SECONDS)
    session.summary.update(_summary(run))
    session.finish()


def _begin(run: Run) -> Any:
    """The session that the recipe asks for; where Weights & Biases cannot be reached, an offline one, to be sent later."""
    import wandb  # slow to import, and needed only here

    os.environ.setdefault("WANDB_SILENT", "true")

    def begin(mode: str) -> Any:
        os.environ["WANDB_MODE"] = mode  # chosen before init, which otherwise asks for an account
        return wandb.init(
            project="alexnet-lab",
            name=run.id,
            id=run.id.replace("/", "-"),  # a slash is not allowed here
            resume="allow",
            mode=mode,  # type: ignore[arg-type]  # a Recipe's is among them
            dir=str(run.path),
            config={**run.recipe.to_dict(), "dataset": run.config["dataset"], "classes": run.config["classes"]},
        )

    try:
        return begin(run.recipe.wandb)
    except wandb.Error as error:
        why = str(error).partition("\n")[0]
        print(
            f"Weights & Biases cannot be reached ({why}); send the run later: wandb sync {run.path}/wandb/offline-run-*"
        )
        wandb.teardown()  # or the run would count as in use
        return begin("offline")


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """`loss` of the split `val` as `val/loss`, and so on; epoch and step as they are."""
    common = {name: record[name] for name in ("epoch", "step")}
    measured = ("loss", "accuracy", "lr", "images_per_s")
    return common | {f"{record['split']}/{name}": record[name] for name in measured if name in record}


def _summary(run: Run) -> dict[str, Any]:
    status, report = run.status(), run.report() or {}
    best = {f"best/{name}": value for name, value in (status.best or {}).items()}
    return {"state": status.state, **best, **{k: report[k] for k in ("split", "accuracy", "loss") if k in report}}


if __name__ == "__main__":
    follow(runs.find(Path(sys.argv[1])))
