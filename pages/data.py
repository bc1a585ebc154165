"""Data: the datasets that are known, photos of one's own brought in, and a close look at any of them."""

from __future__ import annotations

import os

import streamlit as st

import ui
from alexnet import data
from ui import dataset_import, dataset_list, dataset_photos, dataset_review, dataset_splits

PHOTOS = "Photos"


def choose_dataset() -> None:
    """All that there is, and the way to bring more."""
    st.title("Data")
    dataset_list.list_datasets()
    st.subheader("Your own photos")
    dataset_import.import_photos()


def show_dataset(name: str) -> None:
    """One dataset: what it is, and its parts, of which one is seen."""
    st.button(
        "All datasets", type="tertiary", icon=":material/arrow_back:", on_click=dataset_list.open_dataset, args=[None]
    )
    named = data.has_name(name)
    st.title(ui.plain(data.named()[name].title if named else data.folder_of(name).name))
    st.caption(dataset_list.about(name) if named else ui.plain(f"The folder {data.folder_of(name)}, where it is"))
    if not named and not os.path.isdir(data.folder_of(name)):
        ui.forget_dataset(name)
        st.error(f"There is no dataset or folder {ui.plain(name)} here; it may have been moved or removed.")
        return
    if not data.available(name):
        ui.forget_dataset(name)
        dataset_list.show_state(name)
        ui.offer_download(name)
        return
    with ui.plain_errors():
        files = ui.uncorrected(name, cancel=lambda: dataset_list.open_dataset(None))
        try:
            dataset = ui.dataset(name)
        except data.DataError:
            dataset_review.show_labels(name, files)  # where all that was left out can be put back
            raise
        report = dataset.report
        ui.numbers({
            "Photos": f"{report.used:,}",
            "Classes": f"{len(dataset.classes):,}",
            "Left out": f"{len(report.skipped):,}",
            "Relabelled": f"{report.relabelled:,}" if report.relabelled else None,
        })  # fmt: skip
        show_parts(name, files, dataset)


def show_parts(name: str, files: data.Dataset, dataset: data.Dataset) -> None:
    """The tabs; `files` is the dataset without its corrections."""
    parts = {
        PHOTOS: lambda: dataset_photos.show_photos(dataset),
        "Report": lambda: dataset_photos.show_report(name, dataset),
        "Splits": lambda: dataset_splits.show_splits(name, dataset),
        "Duplicates": lambda: dataset_review.show_duplicates(files, dataset_splits.divide(files), back),
        "Labels": lambda: dataset_review.show_labels(name, files),
    }
    for show, tab in zip(parts.values(), st.tabs(list(parts), key="part", bind="query-params"), strict=True):
        if tab.open:  # what nobody sees costs nothing
            with tab:
                show()


def back() -> None:
    """Show the photos, in place of what takes too long."""
    st.session_state["part"] = PHOTOS


ui.guard()
ui.close_to_public("Data", "datasets")
if name := st.query_params.get("data"):
    show_dataset(name)
else:
    choose_dataset()
