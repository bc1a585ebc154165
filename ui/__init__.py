"""What the pages share: the way through app.py, cached loaders, and widgets. Streamlit is used here and by the pages only."""

from __future__ import annotations

from ui.answers import show_photo
from ui.card import about
from ui.charts import live_chart
from ui.datasets import FOLDER, choose_photos, dataset, forget_dataset
from ui.maps import MapSettings, attribution, choose_map, choose_no_map, show_map
from ui.networks import Edition, answer, classifier, edition
from ui.page import ROUTED, duration, guard, kept, numbers, plain, plain_errors
from ui.photos import Photo, upload_photos
from ui.progress import part_of, progress_on_demand
from ui.settings import entered, fill_form, setting

__all__ = [
    "FOLDER",
    "ROUTED",
    "Edition",
    "MapSettings",
    "Photo",
    "about",
    "answer",
    "attribution",
    "choose_map",
    "choose_no_map",
    "choose_photos",
    "classifier",
    "dataset",
    "duration",
    "edition",
    "entered",
    "fill_form",
    "forget_dataset",
    "guard",
    "kept",
    "live_chart",
    "numbers",
    "part_of",
    "plain",
    "plain_errors",
    "progress_on_demand",
    "setting",
    "show_map",
    "show_photo",
    "upload_photos",
]
