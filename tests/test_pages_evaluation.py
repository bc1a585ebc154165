"""The evaluation of a run, without a browser: from its table alone, on other photos, and on a person's own."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, doodles, measures, predictions, runs
from alexnet.recipes import Recipe
from alexnet.runs import Run

ROWS = [  # label, prediction, probability of cat
    ("cat", "cat", 0.95),
    ("cat", "cat", 0.8),
    ("cat", "dog", 0.3),
    ("cat", "dog", 0.1),
    ("dog", "cat", 0.99),
    ("dog", "dog", 0.2),
    ("dog", "dog", 0.1),
    ("dog", "dog", 0.05),
]


@pytest.fixture(autouse=True)
def fresh():
    """No test sees what another one has cached."""
    st.cache_data.clear()
    st.cache_resource.clear()


def make_run(folder: Path | str = "nothing", rows=ROWS, split: str = "test", classes=("cat", "dog")) -> Run:
    """A finished run without weights whose table of predictions has these rows; its photos are in `folder`."""
    run = Run(runs.runs_dir() / "pets")
    run.path.mkdir(parents=True)
    about = {"name": "pets", "fingerprint": "", "photos": len(rows)}
    recipe = Recipe(name="small", image_size=67, resize=70, hidden="64 64")
    config = {"recipe": recipe.to_dict(), "classes": list(classes), "mean": runs.MEAN, "std": runs.STD}
    runs.write_json(run.path / "run.json", {**config, "data": str(folder), "dataset": about})
    runs.write_json(run.path / "report.json", {"split": split})
    with (run.path / predictions.FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*predictions.ABOUT, *classes])
        for number, (label, predicted, p) in enumerate(rows):
            writer.writerow([f"{label}/{number}.png", label, predicted, f"{p:.6f}", f"{1 - p:.6f}"])
    return run


@pytest.fixture
def pets(photo_folder) -> Path:
    return photo_folder({f"{label}/{number}.png": number for number, (label, *_) in enumerate(ROWS)})


def page(**query: str) -> AppTest:
    def script():
        import ui
        from alexnet import runs

        ui.show_evaluation(runs.find("pets"))

    app = AppTest.from_function(script, default_timeout=120)
    for name, value in query.items():
        app.query_params[name] = value
    return rerun(app)


def rerun(changed) -> AppTest:
    """Run the page, or the page of an element that was changed."""
    app = changed.run()
    assert not app.exception
    return app


def component(app: AppTest, name: str) -> list[dict]:
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == name]


def texts(elements) -> str:
    return "\n".join(element.value.replace("\\", "") for element in elements)


def pictures(app: AppTest) -> list[str]:
    """The alternative texts of the pictures."""
    return [picture.alt for element in app.get("image") for picture in element.proto.imgs]


def test_the_figures_and_the_matrix_come_from_the_table_without_torch(pets, monkeypatch):
    make_run(pets)
    monkeypatch.setitem(sys.modules, "torch", None)  # its import would fail
    app = page()
    low, high = measures.interval(5 / 8, 8)
    assert {m.label: m.value for m in app.metric} == {
        "Accuracy": "62.5%", "95% interval": f"{low:.1%} to {high:.1%}", "Right": "5 of 8",
        # Of bins with 3, 2, 2 and 1 photos, sure by 0.963, 0.9, 0.8 and 0.7, right are 2/3, 1/2, all and none.
        "Calibration error": f"{(3 * 0.29667 + 2 * 0.4 + 2 * 0.2 + 0.7) / 8:.1%}",
        "Wrong of the surest 90%": f"{2 / 7:.1%}",
    }  # fmt: skip
    (matrix,) = component(app, "confusion")
    assert [[cell["count"] for cell in row["cells"]] for row in matrix["rows"]] == [[2, 2], [1, 3]]
    assert [column["name"] for column in matrix["columns"]] == ["cat", "dog"]
    assert "neither learned from these photos" in texts(app.caption) and not app.error


def test_a_cell_shows_its_photos_most_confident_first(pets):
    make_run(pets)
    app = page(cell="0-1")
    assert pictures(app) == ["Photo cat/3.png", "Photo cat/2.png"]
    assert "Of class **cat**, taken for **dog**: **2**" in texts(app.markdown)
    assert "cat, taken for **dog** 90.0%" in texts(app.caption)
    (matrix,) = component(app, "confusion")
    assert [[cell["chosen"] for cell in row["cells"]] for row in matrix["rows"]] == [[False, True], [False, False]]


@pytest.mark.parametrize("cell", ["", "9-0", "-1-0", "a-b", "0"])
def test_a_cell_that_is_none_is_not_shown(pets, cell):
    make_run(pets)
    assert pictures(page(cell=cell)) == []


def test_both_classes_may_be_the_positive_one(pets):
    make_run(pets)
    labels, p = np.array([row[0] == "cat" for row in ROWS]), np.array([row[2] for row in ROWS])
    for name, scores, positive in (("cat", p, labels), ("dog", 1 - p, ~labels)):
        app = page(part="Curves", positive=name)
        roc, steps = component(app, "chart")
        assert (
            [trace["name"] for trace in roc["data"]] == [trace["name"] for trace in steps["data"]] == ["Chance", name]
        )
        assert f"area **{measures.roc(scores, positive).area:.4f}**" in texts(app.caption)
        assert f"average precision **{measures.precision_recall(scores, positive).area:.4f}**" in texts(app.caption)


def test_reliability_and_risk_against_coverage(pets):
    make_run(pets)
    reliability, risk = component(page(part="Confidence"), "chart")
    assert sum(reliability["data"][1]["customdata"]) == 8
    assert risk["data"][1]["x"][-1] == 1 and risk["data"][1]["y"][-1] == pytest.approx(3 / 8)


def test_accuracy_by_class_and_by_size(photo_folder):
    files = {f"{label}/{number}.png": number for number, (label, *_) in enumerate(ROWS)}
    large = io.BytesIO()
    doodles.draw("cat", 1, 100).save(large, "PNG")
    make_run(photo_folder(files | {"cat/0.png": large.getvalue()}))
    by_class, by_size = component(page(part="Classes and sizes"), "chart")
    assert [(t["name"], t["x"]) for t in by_class["data"]] == [("cat (4)", [0.5]), ("dog (4)", [0.75])]
    assert [(t["name"], t["x"]) for t in by_size["data"]] == [
        ("up to 63 (7)", [round(4 / 7, 5)]),
        ("96 to 127 (1)", [1.0]),
    ]


def test_the_worst_mistakes_come_first_and_names_are_searched(pets):
    make_run(pets)
    app = page(part="Photos")
    assert pictures(app) == ["Photo dog/4.png", "Photo cat/3.png", "Photo cat/2.png"]
    rerun(app.text_input(key="file").set_value("CAT/"))
    assert pictures(app) == ["Photo cat/3.png", "Photo cat/2.png"]
    rerun(app.button_group(key="which").set_value("All"))
    assert pictures(app) == [f"Photo cat/{n}.png" for n in (3, 2, 1, 0)]
    rerun(app.text_input(key="file").set_value("horse"))
    assert "No photo here has such a name." in texts(app.info)


def test_photos_come_a_page_at_a_time(photo_folder):
    rows = [("cat", "dog", n / 200) for n in range(30)]
    make_run(photo_folder([f"cat/{n}.png" for n in range(30)]), rows)
    app = page(part="Photos")
    assert pictures(app) == [f"Photo cat/{n}.png" for n in range(24)]
    assert pictures(page(part="Photos", page="2")) == [f"Photo cat/{n}.png" for n in range(24, 30)]
    assert len(pictures(page(part="Photos", page="3"))) == 24  # a link to a page that is none
    app = page(part="Photos", page="2")
    rerun(app.text_input(key="file").set_value("cat"))
    assert pictures(app)[0] == "Photo cat/0.png"  # what was searched for begins on its first page


def test_photos_that_are_gone_are_named(pets):
    make_run(pets)
    (pets / "dog/4.png").unlink()
    app = page(part="Photos")
    assert pictures(app) == ["Photo cat/3.png", "Photo cat/2.png"]
    assert "dog/4.png: can no longer be read" in texts(app.caption) and "1 of these photos" in texts(app.caption)
    for name in ("cat", "dog"):
        for file in (pets / name).iterdir():
            file.unlink()
        (pets / name).rmdir()
    pets.rmdir()
    app = page(part="Photos")
    assert not pictures(app) and "are not on this computer" in texts(app.info)
    assert list(app.dataframe[0].value["Photo"]) == ["dog/4.png", "cat/3.png", "cat/2.png"]
    assert "The size of 8 photos is not known" in texts(page(part="Classes and sizes").caption)


def test_a_table_leads_to_no_file_outside_its_dataset(pets, tmp_path):
    (tmp_path / "secret.png").write_bytes((pets / "cat/0.png").read_bytes())
    run = make_run(pets)
    table = (run.path / predictions.FILE).read_text()
    (run.path / predictions.FILE).write_text(
        table.replace("cat/3.png", "../secret.png").replace("cat/2.png", str(tmp_path / "secret.png"))
    )
    assert pictures(page(part="Photos")) == ["Photo dog/4.png"]


def test_a_run_without_test_photos_says_so(pets):
    make_run(pets, split="val")
    app = page()
    assert "The run kept no test photos" in texts(app.caption)
    assert app.selectbox(key="evaluation-chosen").options == ["Validation photos, at the end of training"]


def test_a_damaged_table_is_a_sentence_and_an_unfinished_run_has_nothing_yet(pets):
    run = make_run(pets)
    (run.path / predictions.FILE).write_text("file,label\n")
    assert "cannot be read" in texts(page().error)
    (run.path / predictions.FILE).unlink()
    assert "Nothing to evaluate yet" in texts(page().info)


def test_many_classes_show_those_with_most_mistakes_and_no_curves(pets):
    classes = tuple(f"class {n:03d}" for n in range(120))
    run = make_run(pets, rows=[], classes=classes)
    lines = ["file,label,predicted,probability"]
    lines += [f"{n}.png,{classes[n]},{classes[n + 1 if n % 10 == 5 else n]},0.7" for n in range(119)]
    (run.path / predictions.FILE).write_text("\n".join(lines) + "\n")
    (matrix,) = component(page(), "confusion")
    assert [row["name"] for row in matrix["rows"]] == [f"class {n:03d}" for n in range(5, 65, 10) for n in (n, n + 1)]
    assert "only the probability of the answer is kept" in texts(page(part="Curves").info)
    assert len(component(page(part="Classes and sizes"), "chart")[0]["data"]) == 40


def test_a_large_table_is_shown_before_any_photo_is_opened(photo_folder):
    random = np.random.default_rng(0)
    rows = [(("cat", "dog")[n % 2], ("dog", "cat")[int(p > 0.5)], p) for n, p in enumerate(random.random(2500))]
    make_run(photo_folder(["cat/0.png"]), rows)
    app = page()
    assert app.metric[2].value.endswith("of 2,500") and not pictures(app)


# ---------------------------------------------------------------------------------------------------- other photos


@pytest.fixture
def trained(pets, untrained_run) -> Run:
    """The run with a network of random weights."""
    run = make_run(pets)
    run.weights.symlink_to(untrained_run[0].weights)
    return run


def evaluate(app: AppTest) -> AppTest:
    return rerun(next(button for button in app.button if button.label == "Evaluate").click())


def test_another_split_is_evaluated_once_and_kept_in_the_run(trained, pets):
    app = page(evaluation="others")
    rerun(app.button_group(key="evaluation-split").set_value("val"))
    evaluate(app)
    (folder,) = (trained.path / "evaluations").iterdir()
    assert app.query_params["evaluation"] == folder.name and folder.name.startswith("val-")
    photos = data.split_of(data.load(str(pets)), trained.recipe, "val")
    assert predictions.read(folder, ("cat", "dog")).files == tuple(photo.path for photo in photos)
    assert app.metric[2].value.endswith(f"of {len(photos)}")
    assert "photos: validation photos" in app.selectbox(key="evaluation-chosen").options
    written = (folder / predictions.FILE).stat().st_mtime_ns
    app = page(evaluation="others")
    app.button_group(key="evaluation-split").set_value("val")
    assert evaluate(app).query_params["evaluation"] == folder.name
    assert (folder / predictions.FILE).stat().st_mtime_ns == written


def test_a_folder_with_a_class_that_the_run_does_not_know_is_a_sentence(trained, photo_folder):
    horses = photo_folder(["horse/1.png", "cat/2.png"], "horses")
    app = page(evaluation="others")
    rerun(app.selectbox(key=f"evaluation-data-{trained.config['data']}").set_value(ui.FOLDER))
    rerun(app.text_input(key="evaluation-folder").set_value(str(horses)))
    assert "The photos have a class horse" in texts(evaluate(app).error)
    assert not list((trained.path / "evaluations").iterdir())


def test_what_an_older_network_answered_is_no_longer_offered(trained, pets):
    folder = trained.path / "evaluations" / "val-1"
    folder.mkdir(parents=True)
    (folder / predictions.FILE).write_bytes((trained.path / predictions.FILE).read_bytes())
    runs.write_json(folder / "report.json", {"split": "val", "data": str(pets), "network": "another"})
    app = page(evaluation="val-1")
    assert "not here" in texts(app.warning) and "5 of 8" in [m.value for m in app.metric]


def test_grad_cam_is_drawn_beside_each_photo_of_a_page(trained):
    assert pictures(page(part="Photos", gradcam="true")) == [
        "Photo dog/4.png", "Grad-CAM for cat in dog/4.png", "Photo cat/3.png", "Grad-CAM for dog in cat/3.png",
        "Photo cat/2.png", "Grad-CAM for dog in cat/2.png",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ own photos


def drawing(label: str, number: int) -> tuple[str, bytes, str]:
    file = io.BytesIO()
    doodles.draw(label, number, 80).save(file, "PNG")
    return f"{label}-{number}.png", file.getvalue(), "image/png"


def label_of(app: AppTest, upload: tuple[str, bytes, str]):
    digest = data.digest(upload[1])
    return next(group for group in app.button_group if group.key.endswith(f"-{digest}"))


def test_uploads_are_labelled_by_clicking_and_counted_with_their_interval(trained):
    one, two, copy = drawing("cat", 1), drawing("dog", 2), ("copy.png", *drawing("cat", 1)[1:])
    before = sorted(runs.home().rglob("*"))
    app = page(evaluation="own")
    rerun(app.file_uploader[0].set_value([one, two, copy, ("no.png", b"text", "image/png")]))
    assert "no.png: The file is not a picture" in texts(app.error)
    assert pictures(app) == ["cat-1.png", "dog-2.png"] and not app.metric  # the copy counts once; no answer yet
    from alexnet.images import open_photo
    from alexnet.predict import load_classifier

    said = load_classifier(trained)([open_photo(one[1])])[0]
    rerun(label_of(app, one).set_value("cat"))
    right = int(said.best == "cat")
    assert [m.value for m in app.metric][2] == f"{right} of 1"
    assert app.metric[1].value == "{:.1%} to {:.1%}".format(*measures.interval(right, 1))
    assert f"{said.best} {said.probabilities[said.best]:.1%}" in texts(app.markdown)
    rerun(label_of(app, two).set_value("dog"))
    (matrix,) = component(app, "confusion")
    assert sum(cell["count"] for row in matrix["rows"] for cell in row["cells"]) == 2
    rerun(app.button_group(key="part").set_value("Classes and sizes"))
    assert [t["name"] for t in component(app, "chart")[1]["data"]] == ["64 to 95 (2)"]
    assert sorted(runs.home().rglob("*")) == before  # nothing reached the disk


def test_curves_of_photos_of_one_class_only_say_what_they_need(trained):
    app = page(evaluation="own", part="Curves")
    one = drawing("cat", 1)
    rerun(app.file_uploader[0].set_value([one]))
    rerun(label_of(app, one).set_value("cat"))
    assert "need photos of cat and of something else" in texts(app.info)
