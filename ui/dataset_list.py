"""The datasets that have a name: where each comes from, under which licence, whether it is here, and what to do with it."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import streamlit as st

from alexnet import data, downloads, imports, runs
from ui.datasets import forget_dataset, offer_download
from ui.page import plain, plain_errors


def open_dataset(name: str | None) -> None:
    """Have a dataset, by name or folder, shown in this tab and, by its address, after a reload; None for the list."""
    st.query_params.from_dict({} if name is None else {"data": name})


def list_datasets() -> None:
    """A row for each dataset."""
    for name, known in data.named().items():
        with st.container(border=True):
            left, right = st.columns([3, 1], vertical_alignment="center")
            with left, st.container(gap="xsmall"):
                with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                    st.markdown(f"**{plain(known.title)}**", width="content")
                    show_state(name)
                st.caption(about(name))
            with right.container(horizontal=True, horizontal_alignment="right"):
                _offer(name)


def about(name: str) -> str:
    """Size, source and licence of a named dataset, as Markdown."""
    known = data.named()[name]
    if name in imports.names():
        record = imports.record(name)
        when = time.strftime(" on %d %B %Y", time.localtime(record.imported)) if record.imported else ""
        return plain(f"Imported from {record.source}{when}")
    if not known.archive:
        return f"{known.description} Licence: {known.licence}"
    source = f"[{urlsplit(known.source).hostname}]({known.source})"
    return f"{downloads.ARCHIVES[name].bytes / 1e6:,.0f} MB from {source}. Licence: {plain(known.licence)}"


def show_state(name: str) -> None:
    """A badge: here, on its way, or not here."""
    if data.available(name):
        st.badge("Here", color="green", icon=":material/check:")
    elif share := downloads.received(name, runs.data_dir()):
        st.badge(f"{share:.0%} downloaded", color="orange")
    else:
        st.badge("Not downloaded", color="gray")


def _offer(name: str) -> None:
    if not data.available(name):
        offer_download(name)
        return
    st.button("Open", key=f"open-{name}", on_click=open_dataset, args=[name], icon=":material/folder_open:")
    if name in imports.names() and st.button("Remove", key=f"remove-{name}", icon=":material/delete:"):
        _confirm_removal(name)


@st.dialog("Remove these photos?")
def _confirm_removal(name: str) -> None:
    st.markdown(
        f"The copies in {plain(str(data.folder_of(name)))} are deleted for good. Where they came from, "
        f"{plain(imports.record(name).source)}, nothing changes. Runs that were trained on them stay, and so do corrections, should the same photos come again."
    )
    how = {"type": "primary", "icon": ":material/delete:", "on_click": _remove, "args": [name]}
    if st.button("Remove", key="confirm-removal", **how):
        st.rerun()  # closes the dialog


def _remove(name: str) -> None:
    with plain_errors():
        imports.remove(name)
        forget_dataset(name)
