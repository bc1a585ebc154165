"""The choice of photos to classify: dropped, pasted, browsed for, taken, or one of the drawings. None reaches the disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping

import streamlit as st
from PIL import Image, ImageOps

from alexnet import doodles
from alexnet.images import MAX_BYTES
from ui.visitors import admitted

MAX_MB = MAX_BYTES // 10**6

Photo = tuple[str, bytes]  # name and content of a file

EXAMPLES = {f"{label}-{n}": (label, n) for n, label in ((5, "cat"), (12, "dog"), (7, "cat"), (13, "dog"), (12, "cat"))}


def upload_photos(camera: bool) -> list[Photo]:
    """The photos that were dropped, pasted, browsed for or taken; without any, the example that was clicked."""
    with st.container(gap=None):
        uploads = st.file_uploader(
            "Photos: drop, paste or browse",
            type="image",
            accept_multiple_files=True,
            max_upload_size=MAX_MB,
            key="photos",
        )
        _paste(data=".st-key-photos input[type=file]", key="photos-paste", height=1)
    taken = st.camera_input("Camera", width=480) if camera else None
    files = admitted([*uploads, taken] if taken else uploads, "photos")
    photos = [("Camera" if file is taken else file.name, file.getvalue()) for file in files]
    place = st.empty()  # emptied by name, or the drawings would linger until the slowest map is done
    if photos:
        place.empty()
        return photos
    with place.container():
        return _choose_example()


def _choose_example() -> list[Photo]:
    """The clicked one of a row of drawings, kept in the address."""
    st.caption("No photo at hand? Click a drawing.")
    chosen = st.query_params.get("example")
    pictures = {name: (f"Drawing of a {label}", drawing(name, 160)) for name, (label, _) in EXAMPLES.items()}
    thumbnails(pictures, chosen, "examples", lambda name: st.query_params.update(example=name))
    return [(f"Drawing of a {EXAMPLES[chosen][0]}", drawing(chosen, 400))] if chosen in EXAMPLES else []


def thumbnails(
    pictures: Mapping[str, tuple[str, bytes]],
    chosen: str | None,
    key: str,
    on_choice: Callable[[str], object],
    side: float = 5.0,
) -> None:
    """A row of pictures to click, which wraps on a phone.

    Args:
        pictures: by the name that `on_choice` is told: what each shows, and its file, square.
        chosen: the name of the one that is marked.
        key: names the row.
        on_choice: called with the name of the one that was clicked.
        side: of a picture, in rem.
    """
    st.html(
        f"<style>.st-key-{key} button {{ padding: 2px; min-height: 0; }} .st-key-{key} button img "
        f"{{ width: {side}rem; height: {side}rem; max-height: none; border-radius: .45rem; display: block; }}</style>"
    )
    with st.container(horizontal=True, gap="xsmall", key=key):
        for name, (shows, file) in pictures.items():
            picture = base64.b64encode(file).decode()
            st.button(
                f"![{shows}](data:image/png;base64,{picture})",
                key=name,
                type="primary" if name == chosen else "secondary",
                on_click=on_choice,
                args=[name],
            )


@st.cache_data(show_spinner=False)
def drawing(name: str, size: int) -> bytes:
    """The PNG of an example, `size` px wide."""
    return encoded(doodles.draw(*EXAMPLES[name], size=400), size, "PNG")


def encoded(picture: Image.Image, size: int, form: str) -> bytes:
    """A file in the format `form` of `picture`, scaled to `size` px on its longer side."""
    file = io.BytesIO()
    ImageOps.contain(picture, (size, size)).save(file, form)
    return file.getvalue()


# Lets pictures pasted anywhere on the page arrive in the file uploader that `data` selects.
_paste = st.components.v2.component(
    "paste",
    js="""
    export default function ({ data }) {
      const paste = event => {
        const pictures = [...(event.clipboardData?.files ?? [])].filter(file => file.type.startsWith("image/"));
        const input = document.querySelector(data);
        if (!pictures.length || !input || event.defaultPrevented) return;
        event.preventDefault();
        const files = new DataTransfer();
        pictures.forEach(picture => files.items.add(picture));
        input.files = files.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
      };
      document.addEventListener("paste", paste);
      return () => document.removeEventListener("paste", paste);
    }
    """,
)
