"""A run's bundle: made on demand, with the proof that it answers as the app does; and a run made of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from alexnet import bundle
from alexnet.runs import Run
from ui.page import plain, plain_errors
from ui.progress import progress_bar


def show_bundle(run: Run) -> None:
    """Have the bundle of `run` made, see its proof, and download it."""
    st.markdown(
        "One ZIP with the weights as safetensors, `.pth` and ONNX (any photo in, probabilities out), the model card, the "
        "recipe, and a script that classifies photos without this app. It is offered only after it has been opened in a "
        "process of its own and has given this app's answers on 20 fixed photos."
    )
    if not run.has_weights:
        st.info("This run has no weights yet; let it finish an epoch first.")
        return
    proof = bundle.current_proof(run)
    if proof:
        _show_proof(proof)
    with st.container(horizontal=True):
        if proof:
            _offer_download(bundle.kept(run))
        label, kind = ("Make it again", "secondary") if proof else ("Make the bundle", "primary")
        wanted = st.button(label, type=kind, icon=":material/package_2:", key=f"bundle-{run.id}")
    if wanted:
        with plain_errors():
            with progress_bar(key="cancel-bundle") as show:
                bundle.write_aside(run, show)
            st.rerun()


def _offer_download(file: Path) -> None:
    st.download_button(
        f"Download ({file.stat().st_size / 1e6:,.0f} MB)",
        file.read_bytes,  # called when it is clicked
        file_name=file.name,
        mime="application/zip",
        type="primary",
        icon=":material/download:",
    )
    st.caption(
        "Unpack it into a folder of its own; there `pip install onnxruntime pillow`, then `python classify.py PHOTO`."
    )


def _show_proof(proof: dict[str, Any]) -> None:
    """How many answers are the app's, for each form of the weights."""
    checks = proof["checks"]
    if all(check["same"] == check["of"] for check in checks.values()):
        st.success(f"{checks['onnx']['same']} of {checks['onnx']['of']} identical", icon=":material/verified:")
    apart = (check["largest_difference"] for check in checks.values())
    rows = {
        "form": [bundle.FORMS.get(form, form) for form in checks],
        "answers like the app's": [f"{check['same']} of {check['of']}" for check in checks.values()],
        "largest difference": [f"{value:.1e}" if value else "none" for value in apart],
    }
    st.table(rows)
    versions = ", ".join(f"{name} {version}" for name, version in proof["versions"].items())
    st.caption(plain(f"Labels are the same, probabilities within {proof['tolerance']:g}; with {versions}."))


def import_bundle() -> Run | None:
    """The run that a bundle was just made into, uploaded or on this machine; nothing in it is executed."""
    upload = st.file_uploader("A bundle (.zip)", type="zip", key="bundle-upload")
    st.caption("A large one need not be uploaded where the app runs on this machine:")
    place = st.text_input("Path of a bundle on this machine", placeholder="/home/me/cats-dogs.zip")
    if not st.button("Import", icon=":material/unarchive:", disabled=not (upload or place), key="bundle-import"):
        return None
    with plain_errors(), st.spinner("Importing"):
        if not upload:
            return bundle.load(Path(place).expanduser())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "upload.zip"
            file.write_bytes(upload.getbuffer())
            return bundle.load(file, name=upload.name)
    return None
