"""The confusion matrix: a table whose cells are buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from alexnet import figures
from alexnet.measures import MOST_SHOWN

Cell = tuple[int, int]  # indices of the true class and of the predicted one


def choose_cell(
    confusion: np.ndarray, classes: Sequence[str], chosen: Cell | None, choose: Callable[[Cell], None]
) -> None:
    """Draw the matrix and call `choose` with the cell that is clicked; of many classes some are shown.

    Args:
        confusion: (classes, classes) counts; rows are true classes.
        classes: their names.
        chosen: the cell to mark.
        choose: called before the page is drawn anew.
    """
    shown = range(len(classes)) if len(classes) <= MOST_SHOWN else _choose_classes(confusion, classes)
    if not shown:
        return
    totals = np.maximum(confusion.sum(axis=1), 1)
    rows = [
        {"name": classes[true], "cells": [_cell(confusion, totals, true, predicted, chosen) for predicted in shown]}
        for true in shown
    ]
    columns = [{"name": classes[i], "color": figures.class_color(classes[i], i)} for i in shown]
    key = "confusion"
    _matrix(
        data={"rows": rows, "columns": columns},
        key=key,
        on_cell_change=lambda: choose(tuple(st.session_state[key]["cell"])),
    )


def _choose_classes(confusion: np.ndarray, classes: Sequence[str]) -> list[int]:
    """Some of the classes: at first those with most mistakes."""
    wrong = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    worst = np.argsort(-wrong, kind="stable")[:MOST_SHOWN].tolist()
    return st.multiselect(
        f"Classes, of {len(classes):,}; at first those with most mistakes",
        range(len(classes)),
        default=sorted(worst),
        format_func=lambda index: classes[index],
        max_selections=MOST_SHOWN,
        key="confused",
    )


def _cell(confusion: np.ndarray, totals: np.ndarray, true: int, predicted: int, chosen: Cell | None) -> dict[str, Any]:
    return {
        "cell": [true, predicted],
        "count": int(confusion[true, predicted]),
        "share": float(confusion[true, predicted] / totals[true]),
        "chosen": (true, predicted) == chosen,
    }


_matrix = st.components.v2.component(
    "confusion",
    html="<div class='confusion'></div>",
    css="""
    .confusion { overflow-x: auto; font-family: var(--st-font); color: var(--st-text-color); font-size: .875rem; }
    table { border-collapse: separate; border-spacing: 3px; }
    caption { text-align: left; opacity: .7; padding-bottom: .4rem; }
    th { font-weight: 600; padding: .2rem .5rem; max-width: 9rem; overflow: hidden; text-overflow: ellipsis; }
    thead th { border-bottom: 3px solid var(--class); }
    tbody th { text-align: right; }
    td { padding: 0; }
    button { font: inherit; font-variant-numeric: tabular-nums; color: inherit; width: 100%; min-width: 3.2rem;
      padding: .55rem .6rem; cursor: pointer; border: 2px solid transparent; border-radius: .4rem; line-height: 1.25;
      background: color-mix(in srgb, var(--class) var(--depth), var(--st-secondary-background-color)); }
    .few button { min-width: 6.5rem; padding: 1rem .8rem; }
    button b { display: block; font-size: 1.05rem; }
    button:disabled { cursor: default; opacity: .6; }
    button:hover:enabled { border-color: var(--st-text-color); }
    button[aria-pressed=true] { border-color: var(--st-text-color); }
    button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
    """,
    js="""
    const made = (name, text, attributes = {}) => {
      const element = document.createElement(name);
      element.textContent = text;
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    };
    const counted = new Intl.NumberFormat("en");

    function button(row, column, { cell, count, share, chosen }, choose) {
      const percent = (100 * share).toFixed(1) + "%";
      const says = `${counted.format(count)} of class ${row.name} taken for ${column.name}, ${percent}`;
      const result = made("button", "", { type: "button", "aria-pressed": chosen, "aria-label": says, title: says });
      result.append(made("b", counted.format(count)), percent);
      result.style.setProperty("--class", column.color);
      result.style.setProperty("--depth", (count ? 8 + 47 * share : 0) + "%");
      result.disabled = !count;
      result.addEventListener("click", () => choose(cell));
      return result;
    }

    export default function ({ data, parentElement, setTriggerValue }) {
      const root = parentElement.querySelector(".confusion");
      const focused = [...root.querySelectorAll("button")].indexOf(root.getRootNode().activeElement);
      const table = made("table", ""), head = table.createTHead().insertRow(), body = table.createTBody();
      table.createCaption().textContent = "Rows: the label. Columns: the answer. Share of the row.";
      table.classList.toggle("few", data.columns.length < 5);
      head.append(made("td", ""));
      for (const { name, color } of data.columns) {
        head.append(made("th", name, { scope: "col", title: name }));
        head.lastChild.style.setProperty("--class", color);
      }
      for (const row of data.rows) {
        const line = body.insertRow();
        line.append(made("th", row.name, { scope: "row", title: row.name }));
        row.cells.forEach((cell, index) =>
          line.insertCell().append(button(row, data.columns[index], cell, value => setTriggerValue("cell", value))));
      }
      root.replaceChildren(table);
      root.querySelectorAll("button")[focused]?.focus();
    }
    """,
)
