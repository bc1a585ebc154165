"""AlexNet Lab: train AlexNet on cats and dogs in the browser, and find out what it sees. `streamlit run app.py`"""

from __future__ import annotations

import streamlit as st

import ui

st.set_page_config(page_title="AlexNet Lab", page_icon="🐾", layout="wide")
# Streamlit leaves room for a taller header than this menu.
st.html("<style>[data-testid='stMainBlockContainer'] { padding-top: 4.5rem; }</style>")
ui.keep_uploads_in_memory()
ui.limit_uploads()
off = "hidden" if ui.is_public() else "visible"  # pages that say no more than that they are not for strangers
page = st.navigation(
    [  # each address is the file's name, so that a link finds its page before the first navigation, too
        st.Page("pages/classify.py", title="Classify", icon="🔍", url_path="", default=True),
        st.Page("pages/train.py", title="Train", icon="📈", url_path="train", visibility=off),
        st.Page("pages/data.py", title="Data", icon="🗂️", url_path="data", visibility=off),
        st.Page("pages/augment.py", title="Augment", icon="🎨", url_path="augment"),
        st.Page("pages/runs.py", title="Runs", icon="🏁", url_path="runs"),
        st.Page("pages/architecture.py", title="Architecture", icon="🧠", url_path="architecture"),
        # Streamlit serves the default page at / only; this is where people look for it.
        st.Page("pages/classify.py", title="Classify", icon="🔍", url_path="classify", visibility="hidden"),
    ],
    position="hidden" if ui.asks_for_login() else "top",
)
ui.require_login()
ui.open_trash()  # deletes for good what the app that ran before left in it
st.session_state[ui.ROUTED] = True  # for ui.guard
page.run()
ui.show_what_is_off()
