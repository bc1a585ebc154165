"""A class of visitors at once while a run trains: the wait for an answer, whether it is right, memory, what training loses.

    python benchmarks/load.py --json
    python benchmarks/load.py --visitors 4 --rounds 125 --look 0 --actions 2000    # a day's use in a row

The app and a training run are started in a home of their own, on this machine's own address. In each round every
visitor uploads a photo of their own at the same instant, and then looks at what came of it for a while. `label` is the
wait until label and probabilities are on the page, its median: ours with all visitors at once, stock with one alone, the
run training in both. `training` is its speed: ours during the rounds, stock with nobody there. Each answer is compared
with that of the same network, asked for one photo after the other. At the end pages are opened, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from alexnet import data, images, runs
from alexnet.errors import LabError
from benchmarks import measure
from benchmarks.measure import Comparison, Result
from benchmarks.visitor import Visitor, visit

PAGES = ("", "train", "augment", "data", "runs", "architecture")
BATCH = 32  # photos a step of training: often enough that a minute tells its speed
ALONE = 3  # photos that one visitor uploads while nobody else does


class LoadError(LabError):
    """The app or the training run did not start, or there are too few photos."""


@dataclass(frozen=True)
class Upload:
    """A photo with a name that no other has, and what the page has to say of it."""

    name: str
    content: bytes
    answer: str


@dataclass(frozen=True)
class Wait:
    """How long an answer took, in seconds, and whether it was the right one."""

    seconds: float
    right: bool


def compare(options: argparse.Namespace) -> Result:
    """Visitors and a run, first apart and then together."""
    uploads = _uploads(options)
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        run = stack.enter_context(_training(Path(home), options.recipe))
        speed_alone = _speed(run, lambda: time.sleep(options.seconds))
        app = stack.enter_context(_app(Path(home)))
        visitors = [stack.enter_context(visit(app.address)) for _ in range(options.visitors)]
        _ask(visitors[0], next(uploads))  # loads the network
        alone = [_ask(visitors[0], next(uploads)) for _ in range(ALONE)]
        rounds: list[list[Wait]] = []
        memory = [app.memory()]

        def all_at_once() -> None:
            for _ in range(options.rounds):
                rounds.append(_ask_together(visitors, [next(uploads) for _ in visitors]))
                memory.append(app.memory())
                time.sleep(options.look)

        speed = _speed(run, all_at_once)
        slowest_action = max((_open(visitors[i % len(visitors)], i) for i in range(options.actions)), default=0.0)
        memory.append(app.memory())
    waits = [wait for together in rounds for wait in together]
    seconds = [wait.seconds for wait in waits]
    return Result(
        {
            "label": Comparison("ms", 1000 * median(seconds), 1000 * median(wait.seconds for wait in alone)),
            "training": Comparison("images/s", speed, speed_alone),
        },
        {
            "visitors": options.visitors,
            "uploads": len(waits),
            "wrong_answers": sum(not wait.right for wait in [*alone, *waits]),
            "slowest_round_s": max(median(wait.seconds for wait in together) for together in rounds),
            "slowest_answer_s": max(seconds),
            "memory_mb": {
                "first": memory[0],
                "half": memory[len(memory) // 2],
                "most": max(filter(None, memory), default=None),
                "last": memory[-1],
            },
            "actions": options.actions,
            "slowest_action_s": slowest_action,
            "machine": {"cores": measure.cores()},
        },
    )


def _uploads(options: argparse.Namespace) -> Iterator[Upload]:
    """As many photos as will be uploaded, spread over the dataset, with the answers to each."""
    from alexnet.familiarity import neither
    from alexnet.predict import load_classifier

    dataset = data.load(options.data, measure.show_progress)
    wanted = options.visitors * options.rounds + 1 + ALONE
    if wanted > len(dataset.photos):
        raise LoadError(
            f"{wanted:,} photos are uploaded, and {dataset.name} has {len(dataset.photos):,}; ask for fewer."
        )
    classifier = load_classifier(runs.Run(runs.weights_dir() / "cats-dogs"))
    uploads = []
    for number, photo in enumerate(dataset.photos[:: len(dataset.photos) // wanted][:wanted]):
        content = (dataset.root / photo.path).read_bytes()
        prediction = classifier([images.open_photo(content)])[0]
        label = prediction.label or neither(classifier.classes).capitalize()
        bars = (f"{name} {share:.1%}" for name, share in prediction.probabilities.items())
        uploads.append(Upload(f"photo-{number}.jpg", content, " ".join([label, *bars])))
        measure.show_progress("Answers to compare with", number + 1, wanted)
    return iter(uploads)


def _ask(visitor: Visitor, upload: Upload) -> Wait:
    """One upload, until its answer is there; the map may still be missing."""
    started = time.perf_counter()
    visitor.upload(upload.name, upload.content)
    visitor.wait_for(lambda text: upload.name in text and " ms" in text)
    wait = Wait(time.perf_counter() - started, f"{upload.name} {upload.answer} " in visitor.text())
    visitor.finish()
    return wait


def _ask_together(visitors: Sequence[Visitor], uploads: Sequence[Upload]) -> list[Wait]:
    """One upload of each visitor at the same instant."""
    gate = threading.Barrier(len(visitors))

    def ask(visitor: Visitor, upload: Upload) -> Wait:
        gate.wait()
        return _ask(visitor, upload)

    with ThreadPoolExecutor(len(visitors)) as pool:
        return list(pool.map(ask, visitors, uploads))


def _open(visitor: Visitor, number: int) -> float:
    """Open one page after the other, by `number`; how many seconds that took."""
    started = time.perf_counter()
    visitor.open(PAGES[number % len(PAGES)])
    return time.perf_counter() - started


# ------------------------------------------------------------------------------------------------- what is measured upon


@dataclass(frozen=True)
class App:
    """The app, in a process of its own."""

    address: str
    process: subprocess.Popen[bytes]

    def memory(self) -> int | None:
        """MB that it holds; None where the system has no /proc."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) // 1024
        return None


@contextlib.contextmanager
def _app(home: Path) -> Iterator[App]:
    """The app with `home` as its home, on a free port of this machine's own address.

    Raises:
        LoadError: it did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"]
    with _process(command, home, home / "app.log") as process:
        while not _listens(port):
            if process.poll() is not None:
                raise LoadError(f"The app did not start: {(home / 'app.log').read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.1)
        yield App(f"http://127.0.0.1:{port}", process)


@contextlib.contextmanager
def _training(home: Path, recipe: str) -> Iterator[runs.Run]:
    """A run on drawings that trains as long as the block lasts.

    Raises:
        LoadError: it did not start.
    """
    run = runs.Run(home / "runs" / "load")
    command = [sys.executable, "-m", "alexnet", "train", "--data", "doodles", "--recipe", recipe, "--epochs", "10000"]
    command += ["--batch-size", str(BATCH), "--compile", "off", "--run", str(run.path)]
    with _process(command, home, home / "training.log") as process:
        while run.status().step < 2:  # the first one takes longer
            if process.poll() is not None:
                raise LoadError(f"Training did not start: {(home / 'training.log').read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.1)
        yield run


def _speed(run: runs.Run, work: Callable[[], object]) -> float:
    """Images a second that `run` trains while `work` is done, and on to the end of a step.

    Raises:
        LoadError: it trains no more.
    """
    before, started = run.status().step, time.perf_counter()
    work()
    while (after := run.status()).step == before:
        if not after.live:
            raise LoadError(f"Training ended: {after.message or after.state}")
        time.sleep(0.1)
    return (after.step - before) * BATCH / (time.perf_counter() - started)


@contextlib.contextmanager
def _process(command: Sequence[str], home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`command` while the block lasts, in a session of its own, as the app starts its trainers."""
    environment = {**os.environ, "ALEXNET_HOME": str(home)}
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=runs.PROJECT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = measure.parser(__doc__)
    options.add_argument(
        "--seconds",
        type=float,
        default=120.0,
        help="for which training is watched with nobody there (default: %(default)g)",
    )
    options.add_argument("--visitors", type=int, default=30, help="at once (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="photos that each uploads (default: %(default)s)")
    options.add_argument("--look", type=float, default=20.0, help="seconds between two rounds (default: %(default)g)")
    options.add_argument("--actions", type=int, default=200, help="pages opened afterwards (default: %(default)s)")
    options.add_argument("--recipe", default="cats-dogs", help="what is trained (default: %(default)s)")
    return measure.main(options, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
