"""AlexNet Lab: train AlexNet, watch it learn, and see what it sees.

Names load when they are first used, so that importing `alexnet.runs` or `alexnet.recipes` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AlexNet": "model",
    "Classifier": "predict",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "load_classifier": "predict",
    "open_photo": "images",
    "run_inference": "interchange",
}
__all__ = ["RECIPES", "AlexNet", "Classifier", "Recipe", "load_classifier", "open_photo", "run_inference"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alexnet.{_HOMES[name]}"), name)
