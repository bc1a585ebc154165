"""What the pages share: the way through app.py, cached loaders, and widgets. Streamlit is used here and by the pages only."""

from __future__ import annotations

from ui.answers import show_photo
from ui.augment import link_to_augment
from ui.bundle import import_bundle, show_bundle
from ui.card import about
from ui.charts import live_chart
from ui.datasets import FOLDER, choose_photos, dataset, forget_dataset, offer_download, uncorrected
from ui.eraser import show_eraser
from ui.evaluation import show_evaluation
from ui.evidence import show_trust
from ui.film import show_film
from ui.map_settings import MapSettings, choose_maps
from ui.maps import Case, Network, draw_maps, map_grid
from ui.networks import Edition, answer, classifier, edition
from ui.page import ROUTED, duration, guard, kept, label_of, numbers, plain, plain_errors
from ui.photos import Photo, upload_photos
from ui.progress import part_of, progress_on_demand, queue_on_demand, stop_button
from ui.run_actions import delete_button, name_button, open_trash, show_trash
from ui.run_compare import show_comparison
from ui.run_view import show_heading, show_overview
from ui.runs_table import choose_runs
from ui.settings import applies, entered, entered_settings, fill_form, setting
from ui.submit import show_submit
from ui.sweeps import choose_how, find_member, list_jobs, watch_series
from ui.visitors import (
    asks_for_login,
    close_to_public,
    is_public,
    keep_uploads_in_memory,
    limit_uploads,
    require_login,
    show_what_is_off,
)

__all__ = [
    "Case",
    "Edition",
    "FOLDER",
    "MapSettings",
    "Network",
    "Photo",
    "ROUTED",
    "about",
    "answer",
    "applies",
    "asks_for_login",
    "choose_how",
    "choose_maps",
    "choose_photos",
    "choose_runs",
    "classifier",
    "close_to_public",
    "dataset",
    "delete_button",
    "draw_maps",
    "duration",
    "edition",
    "entered",
    "entered_settings",
    "fill_form",
    "find_member",
    "forget_dataset",
    "guard",
    "import_bundle",
    "is_public",
    "keep_uploads_in_memory",
    "kept",
    "label_of",
    "limit_uploads",
    "link_to_augment",
    "list_jobs",
    "live_chart",
    "map_grid",
    "name_button",
    "numbers",
    "offer_download",
    "open_trash",
    "part_of",
    "plain",
    "plain_errors",
    "progress_on_demand",
    "queue_on_demand",
    "require_login",
    "setting",
    "show_bundle",
    "show_comparison",
    "show_eraser",
    "show_evaluation",
    "show_film",
    "show_heading",
    "show_overview",
    "show_photo",
    "show_submit",
    "show_trash",
    "show_trust",
    "show_what_is_off",
    "stop_button",
    "uncorrected",
    "upload_photos",
    "watch_series",
]
