"""What can be done with a run in the list: name it, note something about it, delete it, bring it back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from alexnet import notes, public, runs, trash
from alexnet.catalog import Entry
from alexnet.notes import Note
from alexnet.series import Series
from alexnet.trash import Trash
from ui.page import plain, plain_errors
from ui.runs_table import ids_in, keep_ids

MOST_FILES = 5  # of what goes, named with their sizes


@st.cache_resource(show_spinner=False)
def _trash(home: Path) -> Trash:
    return Trash()


def open_trash() -> Trash:
    """What was deleted in this app; the first call deletes for good what apps that have ended left behind."""
    return _trash(runs.home())


def name_button(entry: Entry) -> None:
    """A button that asks for a title and a note."""
    if entry.state != "shipped" and not public.is_on() and st.button("Title and note", icon=":material/edit:"):
        ask_name(entry)


@st.dialog("Title and note")
def ask_name(entry: Entry) -> None:
    """Ask for a title and a note."""
    st.caption(f"The id stays: {plain(entry.id)}")
    title = st.text_input("Title", entry.note.title, max_chars=notes.MOST_TITLE, placeholder=entry.id)
    note = st.text_area("Note", entry.note.note, max_chars=notes.MOST_NOTE)
    if st.button("Save", type="primary"):
        with plain_errors():
            notes.write(entry.job, Note(title, note))
            st.rerun()


def delete_button(chosen: Sequence[Entry], listed: Sequence[Entry]) -> None:
    """A button that asks before it deletes what is chosen; none where nothing of it may go."""
    deletable = [entry for entry in chosen if entry.job.path.parent == runs.runs_dir()]
    if deletable and not public.is_on() and st.button("Delete", icon=":material/delete:"):
        ask_delete(deletable, listed)


@st.dialog("Delete?")
def ask_delete(chosen: Sequence[Entry], listed: Sequence[Entry]) -> None:
    """Ask before deleting: what goes, how large it is, and which runs came of it."""
    total = 0
    for entry in chosen:
        found = trash.sizes(entry.job)
        total += found.total()
        largest = [f"{name} {in_bytes(size)}" for name, size in found.most_common(MOST_FILES)]
        more = [f"{len(found) - MOST_FILES} more"] if len(found) > MOST_FILES else []
        st.markdown(f"**{plain(entry.title)}**, {in_bytes(found.total())}")
        whole = [f"with all its {entry.job.member}s"] if isinstance(entry.job, Series) else []
        st.caption(plain(", ".join([*whole, *largest, *more])))
        if heirs := [other.title for other in listed if _starts_from(other, entry)]:
            st.caption(plain(f"Started from it, and stays: {', '.join(heirs)}."))
    st.markdown(f"{in_bytes(total)} in all. It can be undone until the app ends; then it is gone for good.")
    with st.container(horizontal=True):
        sure, not_sure = st.button("Delete", type="primary", icon=":material/delete:"), st.button("Cancel")
    if not_sure:
        st.rerun()
    if sure:
        with plain_errors():
            for entry in chosen:
                open_trash().put(entry.job)
            _forget([entry.id for entry in chosen])
            st.rerun()


def _starts_from(other: Entry, entry: Entry) -> bool:
    start = other.recipe.start_from if other.recipe else ""
    return start == entry.id or start.startswith(f"{entry.id}/")


def _forget(ids: Sequence[str]) -> None:
    """Have the address no longer speak of what is gone."""
    gone = tuple(f"{name}/" for name in ids)
    keep_ids("runs", [name for name in ids_in("runs") if not f"{name}/".startswith(gone)])
    st.query_params.pop("run", None)


def show_trash() -> None:
    """What was deleted, each with a way back; all but the last out of sight."""
    held = open_trash().held()
    if held:
        _show_deleted(held[0])
    if more := held[1:]:
        with st.expander(f"{len(more)} more deleted"):
            for folder in more:
                _show_deleted(folder)


def _show_deleted(folder: Path) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Deleted: {plain(folder.name)}", width="content")
        st.button("Undo", icon=":material/undo:", key=f"undo-{folder}", on_click=_restore, args=[folder])


def _restore(folder: Path) -> None:
    with plain_errors():
        open_trash().restore(folder)


def in_bytes(size: int) -> str:
    """A size such as 11.7 MB."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
