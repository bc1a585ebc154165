"""Doodles: cats and dogs drawn by code, the built-in dataset that needs no download.

A cat and a dog go through the same drawing code and differ only in the numbers of their `Species`: outline of
the head, ears, eyes, muzzle, whiskers, legs and tail. Scene, pose, size, position, coat and clutter come from a
generator that does not know the class: `draw("cat", n)` and `draw("dog", n)` share them, so shape is all that
there is to learn.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, ...]  # RGB or RGBA, 0..255
Points = tuple[tuple[float, float], ...]  # x to the right, y down

CLASSES = ("cat", "dog")
SUPERSAMPLING = 2
BLACK, WHITE, PINK = (34, 28, 34), (255, 253, 248), (244, 150, 160)
GOLD, GREEN = (242, 202, 88), (104, 164, 92)
# fmt: off
FURS = ((232, 146, 68), (245, 205, 150), (158, 104, 66), (96, 66, 52), (120, 124, 134), (176, 182, 192),
        (58, 54, 62), (246, 240, 230), (214, 170, 116), (190, 112, 66), (138, 148, 172), (226, 188, 178))
IRISES = ((122, 178, 84), (226, 174, 58), (92, 160, 210), (160, 108, 62), (96, 176, 160))
NOSES = (BLACK, (84, 54, 48), (226, 124, 132))
PAPERS = ((250, 232, 206), (206, 230, 242), (216, 236, 206), (248, 212, 208), (226, 214, 242), (250, 226, 158),
          (158, 204, 204), (242, 186, 148), (142, 168, 208), (84, 100, 138), (106, 140, 122), (198, 148, 160))
TOYS = ((226, 88, 80), (240, 176, 66), (86, 150, 196), (98, 168, 128), (150, 112, 180), (236, 132, 150),
        (70, 92, 130))
# fmt: on


@dataclass(frozen=True)
class Species:
    """The shape of an animal. The unit is half the width of its head, the centre is (0, 0)."""

    head: Points  # right half, from the crown to the chin
    ears: tuple[Points, ...]  # the right one; an animal has one of these shapes
    ears_hang: bool
    eye: tuple[float, float]  # the right one
    iris: tuple[float, float]  # radii
    pupil: tuple[float, float]  # radii
    muzzle: tuple[float, float, float]  # y of the centre, radii
    nose: Points  # right half
    whiskers: float  # length; 0 for none
    leg: float  # width
    tail: Points  # from the root, which is (0, 0), to the tip
    tail_widths: tuple[float, float]


# fmt: off
SPECIES = {
    "cat": Species(
        head=((0, -0.8), (0.5, -0.74), (0.9, -0.34), (1.04, 0.2), (0.82, 0.6), (0.4, 0.84), (0, 0.88)),
        ears=(((0.14, -0.6), (0.38, -0.98), (0.74, -1.42), (0.8, -1.4), (0.94, -0.9), (0.97, -0.2)),
              ((0.2, -0.6), (0.5, -0.95), (1, -1.26), (1.05, -1.22), (1.06, -0.8), (0.98, -0.1))),
        ears_hang=False,
        eye=(0.44, -0.04), iris=(0.23, 0.21), pupil=(0.06, 0.185),
        muzzle=(0.5, 0.36, 0.24), nose=((0, 0.28), (0.1, 0.25), (0.12, 0.29), (0.03, 0.4), (0, 0.41)),
        whiskers=0.85,
        leg=0.4,
        tail=((0, 0), (0.6, 0.1), (1.15, -0.1), (1.4, -0.65), (1.25, -1.2), (1.5, -1.6)),
        tail_widths=(0.3, 0.22),
    ),
    "dog": Species(
        head=((0, -0.86), (0.5, -0.8), (0.84, -0.42), (0.86, 0.1), (0.7, 0.6), (0.42, 0.98), (0, 1.06)),
        ears=(((0.42, -0.82), (0.86, -0.8), (1.2, -0.3), (1.3, 0.3), (1.14, 0.68), (0.9, 0.6), (0.66, -0.4)),
              ((0.38, -0.86), (0.8, -0.98), (1.2, -0.72), (1.34, -0.2), (1.2, 0.06), (0.96, -0.1), (0.72, -0.5)),
              ((0.44, -0.8), (0.8, -0.78), (1.08, -0.2), (1.24, 0.6), (1.16, 1.1), (0.88, 1.12), (0.7, -0.3))),
        ears_hang=True,
        eye=(0.37, -0.16), iris=(0.17, 0.18), pupil=(0.12, 0.13),
        muzzle=(0.54, 0.5, 0.44), nose=((0, 0.14), (0.16, 0.15), (0.24, 0.26), (0.14, 0.38), (0, 0.42)),
        whiskers=0,
        leg=0.5,
        tail=((0, 0), (0.4, -0.02), (0.75, -0.3), (0.85, -0.75)),
        tail_widths=(0.42, 0.16),
    ),
}
# fmt: on


@dataclass(frozen=True)
class Stance:
    """How a body is held, facing right. The unit is half the width of the head; (0, 0) is in the torso."""

    unit: float  # share of the picture's width
    reach: float  # from the middle to either side
    ground: float  # y
    turn: float  # how far the face looks to the right, 0..1
    torso: Points
    head: tuple[float, float] = (0, 0)
    tail: tuple[float, float] | None = None
    far_legs: tuple[Points, ...] = ()  # drawn behind the torso, darker; each from its top to its foot
    back_legs: tuple[Points, ...] = ()  # drawn behind the torso
    front_legs: tuple[Points, ...] = ()  # drawn over the torso


# fmt: off
STANCES = (
    Stance(  # a portrait
        unit=0.29, reach=1.2, ground=1.6, turn=0,
        torso=((-0.7, 0.2), (0.7, 0.2), (1.25, 1.2), (1.6, 3), (-1.6, 3), (-1.25, 1.2)),
    ),
    Stance(  # sitting
        unit=0.185, reach=1.7, ground=1.9, turn=0,
        torso=((0, -0.9), (0.6, -0.5), (0.8, 0.4), (1.12, 1.2), (0.95, 1.8), (0, 1.9),
               (-0.95, 1.8), (-1.12, 1.2), (-0.8, 0.4), (-0.6, -0.5)),
        head=(0, -1.25), tail=(-0.9, 1.55),
        back_legs=(((-0.8, 1.5), (-0.98, 1.95)), ((0.8, 1.5), (0.9, 1.95))),
        front_legs=(((-0.33, 0.5), (-0.33, 1.9)), ((0.33, 0.5), (0.33, 1.9))),
    ),
    Stance(  # walking
        unit=0.16, reach=2.6, ground=1.75, turn=0.7,
        torso=((-1.8, -0.1), (-1.45, -0.74), (-0.4, -0.74), (0.6, -0.8), (1.3, -1.3), (1.9, -0.9),
               (1.8, 0), (1.3, 0.68), (0.4, 0.68), (-0.5, 0.58), (-1.3, 0.68)),
        head=(1.65, -1.25), tail=(-1.55, -0.35),
        far_legs=(((-1.05, 0.2), (-0.75, 1.6)), ((0.85, 0.2), (1.2, 1.6))),
        back_legs=(((-1.35, 0.2), (-1.5, 1.75)), ((1.25, 0.2), (1, 1.75))),
    ),
    Stance(  # lying
        unit=0.165, reach=2.5, ground=0.95, turn=0.5,
        torso=((-2, 0.3), (-1.75, -0.4), (-0.8, -0.75), (0.4, -0.65), (1.5, -0.7), (1.8, 0.2),
               (1.5, 0.85), (0, 0.95), (-1.6, 0.95)),
        head=(1.4, -0.75), tail=(-1.8, 0.65),
        front_legs=(((1.1, 0.7), (2.1, 0.86)), ((0.6, 0.8), (1.75, 0.98)), ((-1.3, 0.6), (-0.4, 0.98))),
    ),
)
# fmt: on


@dataclass(frozen=True)
class Coat:
    """Colours and markings; widths in the unit of a Species."""

    base: Colour
    marking: Colour
    light: Colour  # muzzle and bib
    line: Colour
    iris: Colour
    nose: Colour
    collar: Colour | None
    pattern: str  # plain, patches, tabby, spots, bib
    ears_marked: bool
    line_width: float

    @staticmethod
    def random(rng: Random) -> Coat:
        base, marking = rng.sample(FURS, 2)
        return Coat(
            base=base,
            marking=marking,
            light=mix(base, WHITE, rng.choice((0.55, 0.9))),
            line=mix(base, BLACK, 0.75),
            iris=rng.choice(IRISES),
            nose=rng.choice(NOSES),
            collar=tint(rng, TOYS) if rng.random() < 0.35 else None,
            pattern=rng.choice(("plain", "patches", "tabby", "spots", "bib")),
            ears_marked=rng.random() < 0.4,
            line_width=rng.choice((0.03, 0.05, 0.07)),
        )


@dataclass(frozen=True)
class Pose:
    """Where the animal is and how it holds itself; x, y and unit are shares of the picture's width."""

    stance: Stance
    x: float
    y: float
    unit: float
    tilt: float  # degrees, of the whole animal
    nod: float  # degrees, of the head
    mirror: bool
    yaw: float  # where the face looks, -1..1
    asleep: bool
    tongue: bool
    sway: float  # of tail and legs, -1..1

    @staticmethod
    def random(rng: Random) -> Pose:
        stance = rng.choice(STANCES)
        unit = stance.unit * rng.uniform(0.68, 1.05)
        room = max(0.04, 0.5 - 0.9 * stance.reach * unit)
        return Pose(
            stance=stance,
            x=0.5 + rng.uniform(-room, room),
            y=rng.uniform(0.84, 0.97) - stance.ground * unit,
            unit=unit,
            tilt=rng.uniform(-7, 7),
            nod=rng.uniform(-16, 16),
            mirror=rng.random() < 0.5,
            yaw=stance.turn + rng.uniform(-0.3, 0.3),
            asleep=rng.random() < 0.12,
            tongue=rng.random() < 0.3,
            sway=rng.uniform(-1, 1),
        )


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def tint(rng: Random, palette: Sequence[Colour]) -> Colour:
    a, b = rng.sample(palette, 2)
    return mix(a, b, rng.uniform(0, 0.35))


_T = np.linspace(0, 1, 5, endpoint=False)[:, None]
_SPLINE = 0.5 * np.hstack(
    [2 * _T**2 - _T - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]
)
_CIRCLE = np.array([(math.cos(math.tau * k / 28), math.sin(math.tau * k / 28)) for k in range(28)])


def smooth(points: Points, closed: bool = True) -> np.ndarray:
    """A Catmull-Rom curve through the points, (N, 2) float64."""
    p = np.asarray(points, dtype=float)
    p = np.vstack([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    windows = np.stack([p[k : len(p) - 3 + k] for k in range(4)])
    curve = np.einsum("tk,knc->ntc", _SPLINE, windows).reshape(-1, 2)
    return curve if closed else np.vstack([curve, p[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return _CIRCLE * (rx, ry) + (x, y)


def mirrored(right: Points) -> np.ndarray:
    """The smooth outline whose right half is given from top to bottom."""
    return smooth((*right, *((-x, y) for x, y in right[-2:0:-1])))


def blob(rng: Random, x: float, y: float, r: float) -> np.ndarray:
    spokes = [(r * rng.uniform(0.7, 1.25), math.tau * k / 7) for k in range(7)]
    return smooth(tuple((x + d * math.cos(turn), y + d * math.sin(turn)) for d, turn in spokes))


def ribbon(points: Points, start: float, end: float) -> np.ndarray:
    """The outline of a smooth stroke with round ends, whose width goes from start to end."""
    path = smooth(points, closed=False)
    along = np.gradient(path, axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]
    across = along[:, ::-1] * (1, -1)
    half = np.linspace(start, end, len(path))[:, None] / 2
    c, s = _CIRCLE[1:14, :1], _CIRCLE[1:14, 1:]
    tip = path[-1] + half[-1] * (c * across[-1] + s * along[-1])
    root = path[0] - half[0] * (c * across[0] + s * along[0])
    return np.vstack([path + half * across, tip, (path - half * across)[::-1], root])


class Pen:
    """Draws outlines that are given in an object's own coordinates on a canvas of RGB pixels."""

    def __init__(self, canvas: Image.Image, matrix: np.ndarray, origin: np.ndarray) -> None:
        self.canvas, self.matrix, self.origin = canvas, matrix, origin
        self.unit = math.hypot(*matrix[0])  # in pixels
        self.ink = ImageDraw.Draw(canvas, "RGBA")

    def at(self, x: float, y: float, scale: float = 1, degrees: float = 0, mirror: bool = False) -> Pen:
        """A pen whose coordinates start at (x, y), mirrored left to right first, then turned clockwise."""
        c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
        matrix = np.array([(-c, -s) if mirror else (c, s), (-s, c)])
        return Pen(self.canvas, matrix @ self.matrix, np.array((x, y)) @ self.matrix + self.origin)

    def pixels(self, outline: np.ndarray) -> list[float]:
        return np.rint(outline @ self.matrix + self.origin).ravel().tolist()

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        self.ink.polygon(self.pixels(outline), colour)

    def trace(self, outline: np.ndarray, colour: Colour, width: float) -> None:
        pixels = self.pixels(outline)
        self.ink.line(pixels + pixels[:4], colour, max(1, round(width * self.unit)))

    def stroke(self, points: Points, colour: Colour, width: float, end: float | None = None) -> None:
        self.fill(ribbon(points, width, width if end is None else end), colour)

    @contextmanager
    def inside(self, outline: np.ndarray) -> Iterator[None]:
        """What is drawn meanwhile stays inside the outline."""
        before = self.canvas.copy()
        yield
        outside = Image.new("L", self.canvas.size, 255)
        ImageDraw.Draw(outside).polygon(self.pixels(outline), 0)
        self.canvas.paste(before, mask=outside)


def _markings(pen: Pen, coat: Coat, outline: np.ndarray, rng: Random) -> None:
    (left, top), (right, bottom) = outline.min(0), outline.max(0)
    width, height = right - left, bottom - top
    if coat.pattern == "bib":
        pen.fill(ellipse((left + right) / 2, bottom, 0.3 * width, 0.6 * height), coat.light)
    for _ in range({"patches": 3, "spots": round(3 + 4 * width * height)}.get(coat.pattern, 0)):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        large = rng.uniform(0.2, 0.34) * min(width, height)
        pen.fill(blob(rng, x, y, large if coat.pattern == "patches" else rng.uniform(0.05, 0.13)), coat.marking)
    stripes = round(width / 0.42) if coat.pattern == "tabby" else 0
    for k in range(stripes):
        x = left + width * (k + 0.5 + rng.uniform(-0.12, 0.12)) / stripes
        path = ((x, top - 0.1), (x + 0.06, top + 0.15 * height), (x, top + rng.uniform(0.26, 0.4) * height))
        pen.stroke(path, coat.marking, 0.2, 0.05)


def _furry(pen: Pen, coat: Coat, outline: np.ndarray, rng: Random | None = None, shade: float = 0) -> None:
    """One part of the animal; where an rng is given, with markings and a shade along the lower right rim."""
    pen.fill(outline, mix(coat.base, BLACK, shade))
    if rng:
        with pen.inside(outline):
            _markings(pen, coat, outline, rng)
            lit = outline - (0.07, 0.13)
            pen.fill(np.vstack([outline, outline[:1], lit, lit[:1]]), (*BLACK, 30))
    pen.trace(outline, coat.line, coat.line_width)


def _ears(pen: Pen, species: Species, coat: Coat, pose: Pose, rng: Random) -> None:
    outline = smooth(rng.choice(species.ears)) * (1, rng.uniform(0.85, 1.12))
    middle = outline.mean(0) + (0, 0.05)
    colour, spread = coat.marking if coat.ears_marked else coat.base, rng.uniform(-8, 8)
    inner = mix(mix(colour, PINK, 0.4), BLACK, 0.08)
    for side in (-1, 1):
        ear = pen.at(-0.08 * pose.yaw, 0, 1, side * spread, mirror=side < 0)
        ear.fill(outline, colour)
        ear.fill((outline - middle) * 0.55 + middle, inner)
        ear.trace(outline, coat.line, coat.line_width)


def _eyes(pen: Pen, species: Species, coat: Coat, pose: Pose) -> None:
    (x, y), (rx, ry), pupil = species.eye, species.iris, species.pupil
    for side in (-1, 1):
        pen.fill(ellipse(0.55 * side, 0.34, 0.17, 0.11), (*PINK, 90))
        eye = pen.at(side * x, y)
        if pose.asleep:
            eye.stroke(((-rx, 0), (-rx / 2, 0.08), (rx / 2, 0.08), (rx, 0)), BLACK, 0.07)
        else:
            eye.fill(ellipse(0, 0, rx + 0.045, ry + 0.045), BLACK)
            eye.fill(ellipse(0, 0, rx, ry), coat.iris)
            eye.fill(ellipse(0.04 * pose.yaw, 0, *pupil), BLACK)
            eye.fill(ellipse(-0.07, -0.08, 0.06, 0.06), WHITE)


def _muzzle(pen: Pen, species: Species, coat: Coat, pose: Pose) -> None:
    y, chin = species.muzzle[0], species.nose[-1][1]
    mouth = chin + 0.14
    pen.fill(ellipse(0, *species.muzzle), coat.light)
    if pose.tongue:
        pen.fill(ellipse(0, mouth + 0.18, 0.12, 0.17), PINK)
        pen.trace(ellipse(0, mouth + 0.18, 0.12, 0.17), mix(PINK, BLACK, 0.4), 0.03)
    for side in (-1, 1):
        pen.stroke(((0, chin), (0, mouth), (0.1 * side, mouth + 0.06), (0.24 * side, mouth)), BLACK, 0.045)
        for k in (-1, 0, 1) if species.whiskers else ():
            root, tip = 0.28 * side, (0.28 + species.whiskers) * side
            pen.stroke(((root, y + 0.08 * k), (tip, y + 0.16 * k)), coat.line, 0.035)
    nose = mirrored(species.nose)
    pen.fill(nose, coat.nose)
    pen.fill(ellipse(-0.03, species.nose[0][1] + 0.05, 0.04, 0.02), (*WHITE, 150))


def _head(pen: Pen, species: Species, coat: Coat, pose: Pose, rng: Random) -> None:
    pen.fill(ellipse(0, 0.55, 0.85, 0.55), (*BLACK, 40))
    if coat.collar:
        pen.stroke(((-0.7, 0.6), (-0.3, 1.0), (0.3, 1.0), (0.7, 0.6)), coat.collar, 0.22)
        pen.fill(ellipse(0, 1.16, 0.14, 0.14), GOLD)
    skull = mirrored(species.head)
    if not species.ears_hang:
        _ears(pen, species, coat, pose, rng)
    _furry(pen, coat, skull, rng)
    if species.ears_hang:
        _ears(pen, species, coat, pose, rng)
    _eyes(pen.at(0.2 * pose.yaw, 0), species, coat, pose)
    _muzzle(pen.at(0.28 * pose.yaw, 0), species, coat, pose)


def _leg(pen: Pen, species: Species, coat: Coat, leg: Points, sway: float, shade: float = 0) -> None:
    (x0, y0), (x1, y1) = leg
    foot, heel = x1 + 0.15 * sway, y1 - 0.2
    knee = ((x0 + x1) / 2 + 0.1 * sway, (y0 + y1) / 2)
    _furry(pen, coat, ribbon(((x0, y0), knee, (foot, heel)), 1.15 * species.leg, species.leg), shade=shade)
    _furry(pen, coat, ellipse(foot + 0.06, heel + 0.02, 0.66 * species.leg, 0.2), shade=shade)


def _animal(pen: Pen, species: Species, coat: Coat, pose: Pose, rng: Random) -> None:
    stance, step = pose.stance, 0 if pose.stance.front_legs else pose.sway
    if stance.tail:
        pen.fill(ellipse(0, stance.ground, 0.8 * stance.reach, 0.2), (*BLACK, 50))
        tail = pen.at(*stance.tail, degrees=12 * pose.sway, mirror=True)
        _furry(tail, coat, ribbon(species.tail, *species.tail_widths))
    for leg in stance.far_legs:
        _leg(pen, species, coat, leg, -step, shade=0.2)
    for leg in stance.back_legs:
        _leg(pen, species, coat, leg, step)
    _furry(pen, coat, smooth(stance.torso), rng)
    for leg in stance.front_legs:
        _leg(pen, species, coat, leg, step)
    _head(pen.at(*stance.head, degrees=pose.nod), species, coat, pose, rng)


def _gradient(ink: ImageDraw.ImageDraw, size: int, a: Colour, b: Colour, rng: Random) -> None:
    for y in range(size):
        ink.line((0, y, size, y), mix(a, b, y / size))


def _stripes(ink: ImageDraw.ImageDraw, size: int, a: Colour, b: Colour, rng: Random) -> None:
    width, lean = rng.uniform(0.06, 0.16) * size, rng.uniform(-0.8, 0.8) * size
    for k in range(-14, 32, 2):
        left, right = k * width, (k + 1) * width
        ink.polygon(((left, 0), (right, 0), (right + lean, size), (left + lean, size)), b)


def _noise(ink: ImageDraw.ImageDraw, size: int, a: Colour, b: Colour, rng: Random) -> None:
    n = rng.randint(4, 9)
    clouds = Image.frombytes("L", (n, n), rng.randbytes(n * n)).resize((size, size), Image.Resampling.BICUBIC)
    ink.bitmap((0, 0), clouds, b)


def _room(ink: ImageDraw.ImageDraw, size: int, a: Colour, b: Colour, rng: Random) -> None:
    floor, width = rng.uniform(0.55, 0.75) * size, rng.uniform(0.2, 0.32) * size
    x, y = rng.uniform(0.05, 0.7) * size, rng.uniform(0.02, 0.15) * size
    ink.rectangle((0, floor, size, size), mix(b, BLACK, 0.15))
    ink.rectangle((0, floor - 0.03 * size, size, floor), WHITE)
    ink.rectangle((x, y, x + width, y + width), tint(rng, PAPERS), mix(a, BLACK, 0.4), max(1, size // 40))


def _grass(ink: ImageDraw.ImageDraw, size: int, a: Colour, b: Colour, rng: Random) -> None:
    _gradient(ink, size, a, mix(a, WHITE, 0.6), rng)
    green = mix(GREEN, b, rng.uniform(0, 0.5))
    for horizon, shade in ((0.5, 0.16), (0.62, 0)):
        x, y, r = rng.uniform(0, size), (horizon + rng.uniform(0, 0.1)) * size, rng.uniform(1, 2) * size
        ink.ellipse((x - r, y, x + r, y + 2 * r), mix(green, BLACK, shade))


BACKGROUNDS = (_gradient, _stripes, _noise, _room, _grass)


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)))


def _leaf(x: float, degrees: float, length: float, width: float) -> np.ndarray:
    dx, dy = length * math.sin(math.radians(degrees)), length * math.cos(math.radians(degrees))
    return ribbon(((x, 0), (x + 0.4 * dx, -0.7 * dy), (x + dx, -dy)), width, 0.03)


_PLANK = np.array(((-0.16, 0.3), (-0.16, -0.85), (0, -1.05), (0.16, -0.85), (0.16, 0.3)))
_POT = np.array(((-0.4, -0.55), (0.4, -0.55), (0.28, 0), (-0.28, 0)))
_BAND = ribbon(((-0.43, -0.6), (0, -0.35), (0.43, -0.6)), 0.16, 0.16)
# A thing stands on y = 0 and is made of parts: an outline, and what the thing's colour is mixed with there.
BALL = ((ellipse(0, -0.5, 0.5, 0.5), WHITE, 0), (_BAND, WHITE, 0.7))
PARCEL = (
    (_box(-0.55, -0.8, 0.55, 0), WHITE, 0),
    (_box(-0.6, -0.95, 0.6, -0.65), BLACK, 0.2),
    (_box(-0.1, -0.95, 0.1, 0), WHITE, 0.6),
)
PLANT = (
    *((_leaf(0, k, 1.6 - abs(k) / 150, 0.3), GREEN, 0.8 + k / 400) for k in (-60, -40, -20, 0, 20, 40, 60)),
    (_POT, WHITE, 0),
)
FENCE = (
    (_box(-9, -0.7, 9, -0.5), BLACK, 0.2),
    *((_PLANK + (0.56 * k, 0), WHITE, 0.5) for k in range(-16, 17)),
)
TUFT = tuple((_leaf(0.13 * k, 9 * k + 20 * (k % 2), 0.9 - k * k / 50, 0.13), GREEN, 0.8) for k in range(-4, 5))
CLUTTER = (BALL, PARCEL, PLANT, FENCE, TUFT)


def _clutter(page: Pen, rng: Random, counts: tuple[int, ...], low: float, high: float) -> None:
    for _ in range(rng.choice(counts)):
        thing, colour, squeeze = rng.choice(CLUTTER), tint(rng, TOYS), rng.uniform(0.8, 1.1)
        pen = page.at(rng.random(), rng.uniform(low, high), rng.uniform(0.14, 0.24))
        for outline, towards, share in thing:
            pen.fill(outline * (squeeze, 1), mix(colour, towards, share))


def _backdrop(rng: Random, size: int, coat: Coat) -> Image.Image:
    """A scene out of focus, of colours that the coat stands out from."""
    papers = [p for p in PAPERS if sum(abs(u - v) for u, v in zip(p, coat.base, strict=True)) > 110]
    a, b = tint(rng, papers), tint(rng, papers)
    backdrop = Image.new("RGB", (size, size), a)
    rng.choice(BACKGROUNDS)(ImageDraw.Draw(backdrop), size, a, b, rng)
    return backdrop.filter(ImageFilter.BoxBlur(rng.uniform(0, 0.01) * size))


def draw(label: str, seed: int, size: int = 200) -> Image.Image:
    """An RGB picture of size x size pixels; always the same one for the same label, seed and size.

    Raises ValueError if the label is not one of CLASSES.
    """
    if label not in SPECIES:
        raise ValueError(f"There is no doodle of a {label!r}: choose one of {', '.join(CLASSES)}.")
    scene, shape = Random(f"scene {seed}"), Random(f"shape {seed}")
    pose, coat = Pose.random(scene), Coat.random(scene)
    large = SUPERSAMPLING * size
    canvas = _backdrop(scene, size, coat).resize((large, large), Image.Resampling.BILINEAR)
    page = Pen(canvas, np.eye(2) * large, np.zeros(2))
    _clutter(page, scene, (0, 1, 1, 2), 0.6, 0.9)
    _animal(page.at(pose.x, pose.y, pose.unit, pose.tilt, pose.mirror), SPECIES[label], coat, pose, shape)
    _clutter(page, scene, (0, 0, 0, 1, 1, 2), 0.98, 1.06)
    light = Image.new("RGB", (size, size), tint(scene, PAPERS))
    grain = Image.frombytes("L", (size, size), scene.randbytes(size * size)).convert("RGB")
    picture = Image.blend(canvas.reduce(SUPERSAMPLING), light, scene.uniform(0, 0.15))
    return Image.blend(picture, grain, scene.uniform(0, 0.04))


def write(
    folder: Path, per_class: int = 600, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> None:
    """Fills folder/cat and folder/dog with JPEG pictures, or does nothing if the folder is there.

    The folder appears at once when all is drawn; a call that is cut short leaves none. No two pictures share a
    scene. progress gets (drawn, total) after each picture, and what it raises ends the call.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            return
        shutil.rmtree(partial, ignore_errors=True)  # what a killed call left
        try:
            _fill(partial, per_class, seed, progress or (lambda drawn, total: None))
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _fill(folder: Path, per_class: int, seed: int, progress: Callable[[int, int], None]) -> None:
    total, first = (
        len(CLASSES) * per_class,
        1_000_000 * (seed + 1),
    )  # seeds below stay free for unseen examples
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for k in range(total):
        number, which = divmod(k, len(CLASSES))
        label = CLASSES[which]
        draw(label, first + k).save(folder / label / f"{label}-{number:04}.jpg", quality=92)
        progress(k + 1, total)
