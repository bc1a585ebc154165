"""Honest probabilities: the temperature that divides a network's logits, and the file of a run that carries it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet import runs

FILE = "calibration.json"
COLDEST, HOTTEST = 0.01, 100.0
HALVINGS = 60  # of that range, which leaves nothing of it in float64


@dataclass(frozen=True)
class Calibration:
    """What a run has learnt about itself on validation photos; the defaults are those of a run that has not."""

    temperature: float = 1.0
    familiarity: dict[str, Any] | None = None  # `method`, `threshold` and whatever else that method needs


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T with which softmax(logits / T) has the least cross-entropy (Guo et al. 2017, section 4.2).

    Of N photos each counts as 1 - 1 / (N + 2) of its own class and shares the rest among the others, as Platt (1999,
    section 2.2) has it: a network that is right on all of few photos does not become certain by it.

    Args:
        logits: `(N, classes)` float, of photos that were not trained on.
        labels: `(N,)` int64, indices of classes.

    Returns:
        T, from 0.01 to 100; 1 where all logits of each photo are alike, so that no temperature changes anything.
    """
    z = logits.double()
    if not len(z) or torch.equal(z.amax(1), z.amin(1)):
        return 1.0
    z = z - z.mean(1, keepdim=True)
    own, share = z.gather(1, labels[:, None]).squeeze(1), 1 / (len(z) + 2)
    wanted = ((1 - share) * own - share * own / (z.shape[1] - 1)).mean()  # the logits of a photo add up to 0

    def is_too_cold(log_temperature: float) -> bool:
        # The slope of the cross-entropy over 1 / T, in which it is convex.
        p = (z / math.exp(log_temperature)).softmax(1)
        return bool((p * z).sum(1).mean() > wanted)

    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_too_cold(middle) else (low, middle)
    return math.exp((low + high) / 2)


def write(folder: Path, temperature: float, familiarity: dict[str, Any] | None = None) -> None:
    """Replace the `calibration.json` of the run in `folder`; raises OSError where that cannot be written."""
    runs.write_json(folder / FILE, asdict(Calibration(temperature, familiarity)))


def read(folder: Path) -> Calibration:
    """The calibration of the run in `folder`; the defaults where it has none.

    Raises:
        RunError: its `calibration.json` cannot be read.
    """
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        temperature, familiarity = values["temperature"], values.get("familiarity")
        if not runs.fits(temperature, float) or temperature <= 0 or not isinstance(familiarity, dict | None):
            raise ValueError("no temperature, or no method")
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise runs.RunError(f"The {FILE} of {folder.name} cannot be read; restore the file or delete it.") from None
    return Calibration(float(temperature), familiarity)
