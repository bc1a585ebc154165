"""What strangers and people who have to log in meet: limits, what is off, and the login."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st
from starlette.formparsers import MultiPartParser
from streamlit import config
from streamlit.errors import StreamlitAuthError, StreamlitSecretNotFoundError

from alexnet import images, public
from alexnet.public import Allowance, PublicError
from ui.page import plain, plain_errors

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

IN_MEMORY = 64 * 2**20  # bytes of an upload; more than a photo may have


def keep_uploads_in_memory() -> None:
    """Have the server hold photos in memory alone: by default it puts what is larger than 1 MB into a temporary file."""
    MultiPartParser.spool_max_size = IN_MEMORY


def limit_uploads() -> None:
    """Have the server of a public app refuse files that are larger than photos, whatever it was configured for."""
    if public.is_on() and st.get_option("server.maxUploadSize") > public.MOST_UPLOAD_MB:
        # st.set_option lets a script set options of the browser only; the server reads this one at each upload.
        config.set_option("server.maxUploadSize", public.MOST_UPLOAD_MB)


def require_login() -> None:
    """End the script with a login in place of the page, where that is asked for."""
    if not asks_for_login():
        return
    st.title("AlexNet Lab")
    st.markdown("This app is for people who have an account with its owner.")
    st.button("Log in", type="primary", icon=":material/login:", on_click=_log_in)
    st.stop()


def _log_in() -> None:
    try:
        st.login()
    except StreamlitAuthError:
        st.error("Nobody can log in yet: install Authlib (`pip install Authlib`), and check `[auth]` in secrets.toml.")


def asks_for_login() -> bool:
    """Whether `secrets.toml` has an `[auth]` and nobody has logged in yet; ends the script where that file is damaged."""
    try:
        return "auth" in st.secrets and not st.user.get("is_logged_in", False)
    except StreamlitSecretNotFoundError:  # said of a file that cannot be read, too
        if any(map(os.path.exists, st.get_option("secrets.files"))):
            st.error("The file secrets.toml cannot be read, so nobody is let in; mend it or move it away.")
            st.stop()
        return False


def is_public() -> bool:
    """Whether strangers are served."""
    return public.is_on()


def close_to_public(title: str, what: str) -> None:
    """End the script of a page that is not for strangers, with what they may do instead."""
    if public.is_on():
        st.title(title)
        with plain_errors():
            public.refuse(what)
        st.page_link("pages/classify.py", label="Classify photos", icon="🔍")
        st.stop()


def show_what_is_off() -> None:
    """A line at the end of each page for strangers."""
    if public.is_on():
        st.caption(
            "Open to the public: photos stay in memory and are never written to a disk. Training, datasets, folders, and "
            "whatever would change a run are off."
        )


def admitted(files: Sequence[UploadedFile], key: str) -> list[UploadedFile]:
    """Those of the photos in an uploader that a visitor may have looked at now; the reason on the page where not all.

    A photo counts once as long as it stays. Without public mode all are.

    Args:
        files: what is in the uploader.
        key: names the uploader.
    """
    if not public.is_on():
        return list(files)
    state = st.session_state.setdefault("visitor", {"allowance": Allowance(), "admitted": {}})
    before, found = state["admitted"].get(key, frozenset()), []
    try:
        for file in files[: public.MOST_AT_ONCE]:
            if file.file_id not in before:
                state["allowance"].take(_pixels(file.getvalue()), time.monotonic())
            found.append(file)
        if len(files) > public.MOST_AT_ONCE:
            st.warning(
                f"Of {len(files)} photos the first {public.MOST_AT_ONCE} are looked at; remove some for the others."
            )
    except PublicError as error:
        st.warning(plain(str(error)))
        st.button("Go on", icon=":material/refresh:", key=f"go-on-{key}")
    state["admitted"][key] = frozenset(file.file_id for file in found)
    return found


def _pixels(content: bytes) -> int:
    """Those of a photo by its header; none where it cannot be used, which it is told where it would be."""
    try:
        width, height = images.measure(content)
    except images.PhotoError:
        return 0
    return width * height
