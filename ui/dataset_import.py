"""Bringing photos in: from a ZIP, a path on this computer or folders that are dropped; the classes are confirmed first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from alexnet import imports
from ui.dataset_list import open_dataset
from ui.page import plain, plain_errors
from ui.photos import MAX_MB
from ui.progress import progress_bar

ZIP, FOLDER, DROP = "A ZIP file", "A path on this computer", "Folders, dropped"
MAX_ZIP_MB = 1000  # the server's limit, in .streamlit/config.toml
MOST_RENAMED = 30  # classes that get a field of their own
LAYOUTS = "A folder per class, or names like cat.0.jpg, or train, val and test folders of either."

Found = tuple[object, Callable[[], imports.Source]]  # what tells one source from another, and the source


def import_photos() -> None:
    """The form: where the photos are, what they and their classes will be called, and Import."""
    st.caption(LAYOUTS)
    choice = {"default": ZIP, "required": True, "key": "import-from", "label_visibility": "collapsed"}
    how = st.segmented_control("Import from", [ZIP, FOLDER, DROP], **choice)
    found = {ZIP: _zip, FOLDER: _path, DROP: _dropped}[how]()
    if found is None:
        return
    with plain_errors():
        plan = _planned(*found)
        st.markdown(
            f"**{len(plan.labels):,} photos** in {len(plan.classes):,} classes, {max(plan.bytes / 1e6, 0.1):,.1f} MB."
        )
        _show_skipped(plan)
        name = st.text_input(
            "Name", value=imports.free_name(plan.source.title), key=f"name-{plan.source.title}"
        ).strip()
        classes = _confirm_classes(plan)
        if st.button("Import", type="primary", icon=":material/download:"):
            with progress_bar() as progress:
                imports.bring_in(plan, name, classes, progress)
            st.session_state.pop("plan", None)
            open_dataset(name)
            st.rerun()


def _zip() -> Found | None:
    file = st.file_uploader(
        "ZIP file", type="zip", max_upload_size=MAX_ZIP_MB, key="import-zip", label_visibility="collapsed"
    )
    st.caption(
        f"Held in memory until it is imported, so {MAX_ZIP_MB:,} MB at most; for more, unpacked or not, give its path."
    )
    return file and (file.file_id, lambda: imports.from_zip(file.name, file))


def _path() -> Found | None:
    path = st.text_input("Folder or ZIP file", key="import-path", placeholder="/home/me/Pictures/pets").strip()
    st.caption("The photos are copied; a folder can also be looked at and trained on where it is.")
    place = Path(os.path.expanduser(path)).resolve()
    if path and os.path.isdir(place):
        with st.container(horizontal=True):
            st.button("Open it where it is", on_click=open_dataset, args=[str(place)], icon=":material/folder_open:")
            st.button("Look again", type="tertiary", icon=":material/refresh:", on_click=_forget_plan)
    return (path, lambda: imports.at_path(place)) if path else None


def _dropped() -> Found | None:
    files = st.file_uploader(
        "Folders of photos", accept_multiple_files="directory", max_upload_size=MAX_MB, key="import-drop",
        label_visibility="collapsed",
    )  # fmt: skip
    st.caption("Held in memory until they are imported; for more than a few thousand photos a ZIP or a path is faster.")
    title = files[0].name.replace("\\", "/").split("/")[0] if files else ""
    named = [(file.name, file) for file in files]
    return (tuple(file.file_id for file in files), lambda: imports.from_files(title, named)) if files else None


def _planned(key: object, source: Callable[[], imports.Source]) -> imports.Plan:
    """The plan of a source, read once."""
    if st.session_state.get("plan", (None,))[0] != key:
        with st.spinner("Reading names and sizes"):
            st.session_state["plan"] = (key, imports.plan(source()))
    return st.session_state["plan"][1]


def _forget_plan() -> None:
    st.session_state.pop("plan", None)


def _show_skipped(plan: imports.Plan) -> None:
    if plan.skipped:
        with st.expander(f"Files not taken: {len(plan.skipped):,}"):
            rows = [{"File": skip.path, "Reason": skip.reason} for skip in plan.skipped[:1000]]
            st.dataframe(rows, hide_index=True, height=200)


def _confirm_classes(plan: imports.Plan) -> dict[str, str | None]:
    """What the classes found will be called."""
    called = _merged(plan)
    if len(called) > MOST_RENAMED:
        st.caption(
            f"{len(called):,} classes keep the names of their folders; up to {MOST_RENAMED} could be renamed here."
        )
        return called
    st.markdown("**Classes**, to confirm or rename. The same name twice merges two; an empty one leaves a class out.")
    grid = st.grid("auto", min_column_width=220)
    for found, count in plan.classes.items():
        with grid.container():
            key = f"class-{plan.source.title}-{found}"
            entered = st.text_input(f"{plain(found)}, {count:,} photos", value=called[found], key=key).strip()
            called[found] = entered or None
    return called


def _merged(plan: imports.Plan) -> dict[str, str | None]:
    """Names to propose: of classes that differ in case alone, the one with the most photos."""
    called = plan.names
    for group in imports.same_but_for_case(list(called)):
        main = max(group, key=plan.classes.get)
        called |= dict.fromkeys(group, called[main])
        st.warning(
            f"The classes {plain(' and '.join(group))} differ in case only and become one, {plain(called[main])}, "
            "unless you give them other names."
        )
    return called
