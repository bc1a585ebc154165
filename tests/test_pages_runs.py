"""The Runs page without a browser: the table, what is chosen in it, the comparison, one run, and its bad folders."""

from __future__ import annotations

import json
import shutil

import pytest
from streamlit.testing.v1 import AppTest

from alexnet import data, doodles, notes, runs, series, sweep
from alexnet.notes import Note
from alexnet.recipes import RECIPES
from alexnet.runs import Run, Status

BASE = RECIPES["first-run"]


def make(name: str, wrong: str = "", created: float = 1.0, **settings) -> Run:
    """A run that has finished; of its test photos a to h it got the `wrong` ones wrong."""
    folder = runs.runs_dir() / name
    folder.mkdir(parents=True)
    config = runs.configuration(
        BASE.replace(epochs=3, **settings), ["cat", "dog"], "pets", {"name": "pets", "fingerprint": "x", "photos": 80}
    )
    runs.write_json(folder / "run.json", {**config, "created": created})
    lines = [
        {"epoch": e, "step": e, "split": split, "accuracy": 0.5 + e / 10, "loss": 1 / e, "seconds": 60.0 * e}
        for e in (1, 2, 3)
        for split in ("train", "val")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = {"epoch": 3, "accuracy": 0.8, "loss": 1 / 3}
    runs.write_status(folder, Status(state="finished", epoch=3, epochs=3, step=3, steps=3, best=best))
    rows = "".join(f"{p}.jpg,cat,{'dog' if p in wrong else 'cat'},0.5,0.5\n" for p in "abcdefgh")
    (folder / "predictions.csv").write_text("file,label,predicted,cat,dog\n" + rows)
    report = {"split": "test", "accuracy": 1 - len(wrong) / 8, "count": 8, "loss": 0.5, "ece": 0.1, "risk_at_90": 0.2}
    runs.write_json(folder / "report.json", report)
    return Run(folder)


def page(**query: str) -> AppTest:
    app = AppTest.from_file("../app.py", default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.switch_page("pages/runs.py").run()
    assert not app.exception
    return app


def texts(elements) -> list[str]:
    return [element.value.replace("\\", "") for element in elements]


def button(app: AppTest, label: str):
    return next((b for b in app.button if b.label == label), None)


def tables(app: AppTest) -> dict[str, object]:
    """The tables on the page by their first column's name."""
    return {frame.value.columns[0]: frame.value for frame in app.dataframe}


def listed(app: AppTest) -> list[str]:
    return [name.strip() for name in app.dataframe[0].value["Run"]]


def charts(app: AppTest) -> list[dict]:
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]


def test_only_shipped_weights_are_there_at_first():
    app = page()
    assert listed(app) == ["cats-dogs"] and list(app.dataframe[0].value["State"]) == ["shipped"]
    assert "Choose a run to open, name or delete it; choose several to compare them." in texts(app.caption)


def test_the_table_says_what_is_known_of_each_run():
    make("a", wrong="ab")
    row = dict(page().dataframe[0].value.iloc[0])
    assert {name: row[name] for name in ("Run", "State", "Best validation", "Test", "Recipe", "Dataset", "Epochs")} == {
        "Run": "a", "State": "finished", "Best validation": 80, "Test": 75, "Recipe": BASE.title, "Dataset": "pets",
        "Epochs": 3,
    }  # fmt: skip
    assert row["Minutes"] == 3.0 and list(row["Curve"]) == [0.6, 0.7, 0.8]


def test_an_epoch_that_was_only_begun_does_not_count():
    run = make("a")
    runs.write_status(run.path, Status(state="stopped", epoch=4, epochs=9))
    assert page().dataframe[0].value["Epochs"][0] == 3
    assert next(m.value for m in page(run="a").metric if m.label == "Epochs") == "3 of 9"


def test_the_filter_wants_every_word_somewhere_and_is_kept_in_the_address():
    notes.write(make("a", created=2.0), Note("Low rate", "an idea of Tuesday"))
    make("other")
    app = page()
    expected = {"pets": ["Low rate", "other"], "TUESDAY rate": ["Low rate"], "Shipped": ["cats-dogs"], "other low": []}
    for words, found in expected.items():
        app.text_input(key="filter").set_value(words).run()
        assert (listed(app) if app.dataframe else []) == found
    assert listed(page(filter="low")) == ["Low rate"]


def test_a_link_restores_what_is_chosen_and_tells_what_is_not_there():
    make("a")
    make("b", created=2.0)
    app = page(runs="b,gone,a")
    assert app.session_state["runs-table"]["selection"]["rows"] == [0, 1]
    assert texts(app.warning) == ["There is no run called gone here."]
    assert [trace["name"] for trace in charts(app)[0]["data"]] == ["b", "a"]


def test_ids_may_hold_whatever_separates_them():
    make("a,b")
    make("50%2C", created=2.0)
    app = page(runs="a%2Cb,50%252C")
    assert not app.warning and [trace["name"] for trace in charts(app)[0]["data"]] == ["a,b", "50%2C"]


def test_what_the_filter_hides_stays_chosen_and_compared():
    notes.write(make("a", created=2.0), Note("Low rate"))
    make("b")
    app = page(runs="a,b", filter="low")
    assert listed(app) == ["Low rate"] and app.session_state["runs-table"]["selection"]["rows"] == [0]
    assert len(charts(app)[0]["data"]) == 2


def test_curves_keep_their_colour_whatever_else_is_chosen():
    for created, name in enumerate("abc"):
        make(name, created=created)
    colors = [
        {trace["name"]: trace["line"]["color"] for trace in charts(page(runs=chosen))[0]["data"]}
        for chosen in ("a,b,c", "c,b", "b,a")
    ]
    assert len(set(colors[0].values())) == 3
    assert all(colors[0][name] == color for found in colors for name, color in found.items())


def test_smoothing_leaves_the_points_and_the_axes_can_be_changed():
    make("a")
    make("b", created=2.0)
    app = page(runs="a,b", smoothing="0.5", over="Minutes", scale="Log", curve="Validation loss")
    figure = charts(app)[0]
    raw = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    smooth = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert [trace["y"] for trace in raw] == [[1.0, 0.5, 0.33333]] * 2 and len(smooth) == 2
    assert raw[0]["x"] == [1.0, 2.0, 3.0] and smooth[0]["y"] == [1.0, 0.66667, 0.47619]
    assert (
        figure["layout"]["yaxis"]["type"] == "log" and figure["layout"]["yaxis"]["title"]["text"] == "Validation loss"
    )


def test_results_have_deltas_to_the_baseline_and_intervals():
    make("a", wrong="abcd")
    make("b", wrong="a", created=2.0)
    app = page(runs="a,b")
    results = next(f.value for f in app.dataframe if "95 % interval" in f.value.columns).set_index("Run")
    assert results.loc["b", "Δ measured"] == pytest.approx(37.5) and results.loc["b", "Measured"] == 87.5
    assert results.loc["a", "95 % interval"] == "21.5% to 78.5%"  # Wilson, by hand: 4 of 8
    results = next(
        f.value for f in page(runs="a,b", baseline="b").dataframe if "95 % interval" in f.value.columns
    ).set_index("Run")
    assert results.loc["a", "Δ measured"] == pytest.approx(-37.5)


def test_a_baseline_that_is_no_longer_chosen_gives_way_to_the_first():
    for created, name in enumerate("abc"):
        make(name, created=created)
    app = page(runs="a,b", baseline="gone")
    assert app.selectbox(key="baseline").value == "a"
    app.selectbox(key="baseline").set_value("b").run()
    app.query_params["runs"] = "a,c"
    assert app.run().selectbox(key="baseline").value == "a" and not app.exception


def test_mcnemar_counts_the_photos_that_one_run_alone_got_right():
    make("a", wrong="abcdefg")
    make("b", wrong="h", created=2.0)
    app = page(runs="a,b")
    row = dict(next(f.value for f in app.dataframe if "p" in f.value.columns).iloc[0])
    assert row == {
        "Run": "b", "Photos of both": 8, "Only this one right": 7, "Only the baseline right": 1, "Both right": 0,
        "Neither right": 0, "p": "0.07", "Verdict": "no difference beyond chance",
    }  # fmt: skip


def test_runs_on_other_photos_are_not_tested_against_each_other_and_the_page_says_why():
    make("a")
    app = page(runs="a,cats-dogs")
    assert (
        "a and cats-dogs were made for different photos; choose runs on the same dataset. How each does on other photos, its Evaluation tells."
        in texts(app.caption)
    )
    assert not any("p" in frame.value.columns for frame in app.dataframe)


def test_only_settings_that_differ_are_shown():
    make("a")
    make("b", created=2.0, lr=0.5, optimizer="adam")
    settings = tables(page(runs="a,b"))["Setting"].set_index("Setting")
    assert list(settings.index) == ["Optimizer", "Learning rate"]
    assert list(settings["a"]) == ["sgd", "0.01"] and list(settings["b"]) == ["adam", "0.5"]


def test_one_run_by_itself_and_back():
    notes.write(make("a", wrong="a"), Note("My *best*", "Because."))
    app = page(run="a")
    assert texts(app.subheader) == ["My *best*"] and "Because." in texts(app.markdown)
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["Accuracy on 8 test photos"] == "87.5% (52.9% to 97.8%)" and metrics["Time"] == "3 min 0 s"
    assert [tab.label for tab in app.tabs] == ["Overview", "Evaluation", "Submit", "Export"] and len(charts(app)) == 1
    button(app, "All runs").click().run()
    assert "run" not in app.query_params and listed(app)[0] == "My *best*"


def dialog(ask: str, run: Run) -> AppTest:
    """A dialog of the page, always open: AppTest has no fragments of a page to click in."""

    def script(ask: str, name: str) -> None:
        from alexnet import catalog
        from ui import run_actions

        listed = catalog.entries()
        entry = catalog.find(name, listed)
        if entry and ask == "name":
            run_actions.ask_name(entry)
        elif entry:
            run_actions.ask_delete([entry], listed)

    app = AppTest.from_function(script, default_timeout=60, kwargs={"ask": ask, "name": run.id})
    app.query_params["runs"] = f"{run.id},heir"
    return app.run()


def test_a_title_and_a_note_are_given_and_taken_back():
    run = make("a")
    for note in (Note("Mine", "Because."), Note()):
        app = dialog("name", run)
        next(t for t in app.text_input if t.label == "Title").set_value(note.title)
        app.text_area[0].set_value(note.note)
        button(app, "Save").click().run()
        assert notes.read(run) == note
    assert not (run.path / "note.json").exists()


def test_deleting_asks_says_what_goes_and_can_be_undone():
    run = make("a")
    make("heir", created=2.0, start_from="a")
    app = dialog("delete", run)
    assert any("predictions.csv" in text for text in texts(app.caption)) and run.path.exists()
    assert "Started from it, and stays: heir." in texts(app.caption)
    button(dialog("delete", run), "Cancel").click().run()
    assert run.path.exists()
    button(app, "Delete").click().run()
    assert not run.path.exists() and app.query_params["runs"] == "heir"
    app = page()
    assert listed(app) == ["heir", "cats-dogs"]
    button(app, "Undo").click().run()
    assert run.path.exists() and listed(app) == ["heir", "a", "cats-dogs"] and button(app, "Undo") is None


def test_a_live_run_and_shipped_weights_stay():
    run = make("a")
    runs.write_status(run.path, Status(state="running", epochs=3))
    with runs.FileLock(run.path / "lock"):
        app = button(dialog("delete", run), "Delete").click().run()
        assert texts(app.error) == ["a is training; stop it first."] and run.path.exists()
    app = page(run="cats-dogs")
    assert button(app, "Delete") is None and button(app, "Title and note") is None


def test_a_run_that_goes_while_it_is_shown_is_told():
    run = make("a")
    app = page(run="a")
    shutil.rmtree(run.path)
    app.run()
    assert not app.exception and texts(app.warning) == ["There is no run called a here."]
    assert listed(app) == ["cats-dogs"]


@pytest.mark.parametrize("file", ["run.json", "status.json", "metrics.jsonl", "report.json", "predictions.csv"])
@pytest.mark.parametrize("content", [b"{", b"\xff", None])
def test_half_deleted_and_damaged_folders_do_no_harm(file, content):
    run = make("hurt")
    make("a", created=2.0)
    make("b", created=3.0)
    (run.path / file).unlink()
    if content is not None:
        (run.path / file).write_bytes(content)
    app = page(runs="hurt,a,b")
    assert not app.error and set(listed(app)) == {"hurt", "a", "b", "cats-dogs"}
    app = page(run="hurt")
    assert not app.error and button(app, "Delete")


def test_submit_answers_the_photos_of_a_folder(untrained_run, tmp_path):
    shutil.copytree(untrained_run[0].path, runs.runs_dir() / "small")
    folder = tmp_path / "test1"
    folder.mkdir()
    for number in (2, 1):
        doodles.draw("cat", number).save(folder / f"{number}.png")
    (folder / "3.jpg").write_text("no photo")
    app = page(run="small", tab="Submit")
    assert button(app, "Answer").disabled
    app.text_input(key="submit-folder").set_value(str(folder)).run()
    button(app, "Answer").click().run()
    assert not app.exception and texts(app.success)[0].startswith("3 rows, ")
    assert texts(app.warning)[0].startswith("3.jpg is answered by a guess")
    app.text_input(key="submit-folder").set_value(str(tmp_path / "nowhere")).run()
    assert not app.success  # those answers are for another folder
    button(app, "Answer").click().run()
    assert len(app.error) == 1 and "nowhere" in texts(app.error)[0]


def test_a_sweep_unfolds_to_its_trials_and_opens_as_on_the_train_page(photo_folder):
    pets = str(
        photo_folder({f"{name}/{n}.png": 100 * i + n for i, name in enumerate(("cat", "dog")) for n in range(12)})
    )
    made = sweep.create(
        BASE, sweep.make_plan(BASE, {"dropout": "0.2,0.4"}), pets, data.load(pets), runs.runs_dir() / "s"
    )

    def finish(run: Run) -> int:
        reporter = runs.Reporter(run, Status(state="running", epochs=1))
        reporter.record(epoch=1, step=1, split="val", accuracy=run.recipe.dropout, loss=1.0, seconds=60.0)
        reporter.say(state="finished", message="", best={"epoch": 1, "accuracy": run.recipe.dropout, "loss": 1.0})
        return 0

    series.train(made, finish)
    app = page()
    assert listed(app) == ["s", "cats-dogs"] and app.dataframe[0].value["Best validation"][0] == 40
    app = page(open="s", runs="s/trial-2,s/trial-1")
    assert listed(app) == ["s", "s/trial-1", "s/trial-2", "cats-dogs"]
    assert [trace["name"] for trace in charts(app)[0]["data"]] == ["s/trial-2", "s/trial-1"]
    app = page(run="s")
    app.selectbox(key="open-s").set_value("trial-2").run()
    assert app.query_params["run"] == "s/trial-2" and [tab.label for tab in app.tabs] == [
        "Overview",
        "Evaluation",
        "Submit",
        "Export",
    ]
    assert button(app, "Delete") is None  # it goes with the whole
