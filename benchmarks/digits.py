"""Digits drawn by code in the form of the Street View House Numbers, to run the `svhn` recipe where those cannot be had.

    python benchmarks/digits.py DIGITS
    python -m alexnet train --data DIGITS --recipe svhn

Like theirs, a digit fills most of 32 x 32 pixels, its neighbours reach in from the sides, and colours, light, slant and
sharpness differ. They are easier than photos: what a network reaches on them says that the recipe works, not how well.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from alexnet import svhn
from benchmarks import measure

SIDE = 32
DRAWN = 4 * SIDE  # px, before it is made small


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all of them into matrices like the published ones, and write these to a folder as the app writes those."""
    from scipy import io

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to; a folder that is not there yet, or empty")
    parser.add_argument("--count", type=int, default=2000, help="to train on; half as many test (%(default)s)")
    options = parser.parse_args(arguments)
    if options.count < 2:
        parser.error("--count has to be 2 at least.")
    counts = {"train": options.count, "test": options.count // 2}
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty; name another folder.")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        files = [Path(kept) / f"{split}_32x32.mat" for split in counts]
        for file, (split, count) in zip(files, counts.items(), strict=True):
            digits = [number % 10 for number in range(count)]
            pixels = np.empty((SIDE, SIDE, 3, count), np.uint8)
            for number, digit in enumerate(digits):
                pixels[..., number] = draw(digit, Random(f"{split}/{number}"))
                measure.show_progress(f"Drawing digits to {split} with", number + 1, count)
            io.savemat(file, {"X": pixels, "y": np.array([digit or 10 for digit in digits], np.uint8)[:, None]})
        svhn.write(files, options.folder, measure.show_progress)
    return 0


def draw(digit: int, random: Random) -> np.ndarray:
    """A house number with `digit` in its middle: (32, 32, 3) uint8."""
    wall, paint = (tuple(random.randrange(256) for _ in range(3)) for _ in range(2))
    while abs(sum(wall) - sum(paint)) < 120:
        paint = tuple(random.randrange(256) for _ in range(3))
    font = ImageFont.load_default(random.uniform(0.85, 1.2) * DRAWN)
    before, after = (str(random.choice(["", random.randrange(10)])) for _ in range(2))
    picture = Image.new("RGB", (DRAWN, DRAWN), wall)
    pen = ImageDraw.Draw(picture)
    left = DRAWN / 2 - font.getlength(before) - font.getlength(str(digit)) / 2
    pen.text((left, DRAWN / 2), f"{before}{digit}{after}", fill=paint, font=font, anchor="lm")
    slant, turn = random.uniform(-0.15, 0.15), random.uniform(-8, 8)
    picture = picture.rotate(turn, Image.Resampling.BILINEAR, fillcolor=wall)
    shear = (1, slant, -slant * DRAWN / 2, 0, 1, 0)
    picture = picture.transform(picture.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR, fillcolor=wall)
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2)))
    grain = np.random.default_rng(random.getrandbits(64)).normal(0, random.uniform(0, 15), (SIDE, SIDE, 3))
    shade = np.linspace(random.uniform(-30, 30), random.uniform(-30, 30), SIDE)[:, None]
    return np.clip(np.asarray(small, np.float64) + grain + shade, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
