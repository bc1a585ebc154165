"""What people call a run, and what they note about it: a file in its folder that only pages write."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from alexnet import public, runs
from alexnet.runs import Job, RunError

FILE = "note.json"
MOST_TITLE, MOST_NOTE = 80, 2_000  # characters


@dataclass(frozen=True)
class Note:
    """A title beside the id, which stays, and a note; both may be empty."""

    title: str = ""
    note: str = ""


def read(job: Job) -> Note:
    """The note of a run or a series; an empty one where there is none that can be read."""
    found = runs.read_json(job.path / FILE) or {}
    texts = {name: found.get(name) for name in ("title", "note")}
    return Note(**{name: text for name, text in texts.items() if isinstance(text, str)})


def title(job: Job) -> str:
    """What people call a job: the title that they gave it, or its id."""
    return read(job).title or job.id


def write(job: Job, note: Note) -> None:
    """Replace the note; spaces around are cut off, and where nothing is left the file goes.

    Raises:
        RunError: the job came with the project, or its folder is gone or cannot be written.
    """
    public.refuse("notes on runs")
    if job.path.is_relative_to(runs.weights_dir()):
        raise RunError(f"{job.id} came with the project and keeps its name; export it to have one of your own.")
    note = Note(" ".join(note.title.split())[:MOST_TITLE], note.note.strip()[:MOST_NOTE])
    try:
        if note == Note():
            os.stat(job.path)
            (job.path / FILE).unlink(missing_ok=True)
        else:
            runs.write_json(job.path / FILE, asdict(note))
    except OSError as error:
        raise RunError(f"The note on {job.id} cannot be written ({error.strerror}); look after its folder.") from None
