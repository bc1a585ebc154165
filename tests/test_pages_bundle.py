"""The bundle's part of a page: what it says before and after, and what it offers."""

from __future__ import annotations

import json
import os
import zipfile

from streamlit.testing.v1 import AppTest

from alexnet import bundle, runs
from tests.test_graph import NETWORKS, made
from ui.page import plain


def page(name: str) -> None:
    import ui
    from alexnet import runs

    ui.show_bundle(runs.find(name))
    if run := ui.import_bundle():
        ui.plain(run.id)


def shown(run) -> AppTest:
    return AppTest.from_function(page, args=(str(run.path),), default_timeout=60).run()


def test_without_weights_there_is_nothing_to_make(tmp_path):
    run = made(tmp_path / "young", NETWORKS["batch norm"])
    run.weights.unlink()
    app = shown(run)
    assert [info.value for info in app.info] == ["This run has no weights yet; let it finish an epoch first."]
    assert [button.label for button in app.button] == ["Import"]


def test_a_bundle_is_offered_with_its_proof_until_the_run_changes(tmp_path):
    run = made(tmp_path / "mine", NETWORKS["batch norm"])
    assert [button.label for button in shown(run).button] == ["Make the bundle", "Import"]
    check = {"same": 20, "of": 20, "largest_difference": 0.0}
    checks = dict.fromkeys(bundle.FORMS, check) | {"onnx": {**check, "largest_difference": 2e-6}}
    proof = {"checks": checks, "versions": {"torch": "2"}, "tolerance": 1e-4}
    bundle.kept(run).parent.mkdir(parents=True)
    with zipfile.ZipFile(bundle.kept(run), "w") as archive:
        archive.writestr("proof.json", json.dumps(proof))
    app = shown(run)
    assert [success.value for success in app.success] == ["20 of 20 identical"]
    assert app.table[0].value["largest difference"].tolist() == ["2.0e-06", "none", "none"]
    assert "Make it again" in [button.label for button in app.button]
    os.utime(run.weights, (2**31, 2**31))
    assert [button.label for button in shown(run).button] == ["Make the bundle", "Import"]


def test_what_is_no_bundle_is_told_in_a_sentence(tmp_path):
    run = made(tmp_path / "mine", NETWORKS["batch norm"])
    (tmp_path / "x.zip").write_bytes(b"text")
    app = shown(run)
    app.text_input[0].set_value(str(tmp_path / "x.zip")).run()
    app.button(key="bundle-import").click().run()
    assert [error.value for error in app.error] == [plain("x.zip is no bundle, or damaged: get it again.")]
    assert not app.exception and not list(runs.runs_dir().glob("[!.]*"))
