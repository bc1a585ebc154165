"""How good saliency maps are on many photos in which the animal is outlined, beside maps that know nothing of the network.

The sole importer of `captum.metrics`. Masks are trimaps as Oxford-IIIT Pet has them: 1 object, 2 background, 3 the border between, which counts as neither.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from captum import metrics
from PIL import Image
from scipy.ndimage import gaussian_filter, sobel
from torch import Tensor

from alexnet import data, evidence, saliency
from alexnet.data import DataError
from alexnet.evaluate import match_classes
from alexnet.images import PHOTO_SUFFIXES, PhotoError, open_photo
from alexnet.layout import Skip
from alexnet.predict import Classifier, averaged_logits

Explain = Callable[[Classifier, Image.Image, str], np.ndarray]  # the map (S, S) of a photo for a class

OBJECT, BACKGROUND, BORDER = 1, 2, 3
BASELINES = ("center", "uniform", "edges", "random-weights")
MEASURES = ("pointing", "energy", "deletion", "insertion", "infidelity", "sensitivity", "seconds")
PERTURBED = 5  # photos on which infidelity and sensitivity are measured, which take many maps and passes each
SQUARES = 50  # that are hidden to measure infidelity
SQUARE_SIDE = (0.1, 0.4)  # shares of the picture's side
NUDGES = 10  # noisy copies to measure sensitivity
SMOOTHING = 0.02  # deviation, as a share of the side, with which maps are smoothed before they point
RADIUS = 0.02  # of their noise, in the unit of normalised pixels; Captum's own choice

# Oxford-IIIT Pet names a photo by breed and number and writes cats large: Abyssinian_1.jpg, beagle_1.jpg. The breeds are
# listed, because others name their photos IMG_1.jpg.
CATS = "Abyssinian Bengal Birman Bombay British_Shorthair Egyptian_Mau Maine_Coon Persian Ragdoll Russian_Blue Siamese Sphynx"
DOGS = (
    "american_bulldog american_pit_bull_terrier basset_hound beagle boxer chihuahua english_cocker_spaniel english_setter "
    "german_shorthaired great_pyrenees havanese japanese_chin keeshond leonberger miniature_pinscher newfoundland "
    "pomeranian pug saint_bernard samoyed scottish_terrier shiba_inu staffordshire_bull_terrier wheaten_terrier "
    "yorkshire_terrier"
)
SPECIES = dict.fromkeys(CATS.split(), "cat") | dict.fromkeys(DOGS.split(), "dog")


@dataclass(frozen=True)
class Outlined:
    """A photo, its mask, and its true class as the network calls it, or None where that is not known."""

    photo: Path
    mask: Path
    label: str | None


@dataclass(frozen=True)
class Collection:
    """The photos that have masks, in a random order that is always the same, and what is left out of it."""

    photos: tuple[Outlined, ...]
    skipped: tuple[Skip, ...]

    @property
    def target(self) -> str:
        """Which class of each photo is explained, in words."""
        known = [photo.label is not None for photo in self.photos]
        if all(known):
            return "true class"
        return "true class where it is known, else the likeliest" if any(known) else "likeliest class"


def collect(name: str, masks: Path, classes: Sequence[str], progress: data.Progress | None = None) -> Collection:
    """Find a mask below `masks` for each photo of a dataset or folder: the PNG of the same name.

    Where several have that name, the one at the same place below its folder is taken. Labels are found as in any
    dataset, or else by the breeds in the names that Oxford-IIIT Pet gives its photos; a photo of no class of `classes`
    has none.

    Raises:
        DataError: a folder is missing, or no photo has a mask.
    """
    if not masks.is_dir():
        raise DataError(f"There is no folder {masks}; give the folder that holds the masks.")
    root = data.folder_of(name)
    labels, skipped = _labels(name, root, classes, progress)
    places: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(masks.rglob("*")):
        if path.suffix.lower() == ".png" and path.name[0] != ".":  # archives made on a Mac bring ._ files
            places[path.stem].append(path)
    inside = masks.resolve()
    found = []
    for file, label in labels.items():
        photo = root / file
        if photo.suffix.lower() == ".png" and photo.resolve().is_relative_to(inside):
            continue  # a mask
        candidates = places.get(photo.stem, [])
        if len(candidates) > 1:
            candidates = [c for c in candidates if c.relative_to(masks).with_suffix("") == Path(file).with_suffix("")]
        if candidates:
            found.append(Outlined(photo, candidates[0], label))
        else:
            skipped.append(Skip(str(photo), "There is no mask of its name."))
    if not found:
        raise DataError(
            f"None of the {len(labels)} photos in {root} has a mask in {masks}; a mask is a PNG with its photo's name."
        )
    Random(0).shuffle(found)
    return Collection(tuple(found), tuple(skipped))


def _labels(
    name: str, root: Path, classes: Sequence[str], progress: data.Progress | None
) -> tuple[Mapping[str, str | None], list[Skip]]:
    """The photos of a dataset by their path below `root`, each with its class if that is one of `classes`; and the others."""
    try:
        dataset = data.load(name, progress)
        meant = match_classes(dataset.classes, classes)
    except DataError:
        if not root.is_dir():
            raise
        return {file: _by_name(Path(file).stem, classes) for file in data.photo_files(root)}, []
    skipped = [
        Skip(str(root / skip.path), f"It is left out of the dataset: {skip.reason}.")
        for skip in dataset.report.skipped
        if Path(skip.path).suffix.lower() in PHOTO_SUFFIXES
    ]
    return {photo.path: classes[meant[photo.label]] for photo in dataset.photos}, skipped


def _by_name(stem: str, classes: Sequence[str]) -> str | None:
    """The class that a name such as `Abyssinian_1` or `dog_1` tells, if it is one of `classes`."""
    name = stem.rpartition("_")[0]
    try:
        return classes[match_classes([SPECIES.get(name, name)], classes)[0]]
    except DataError:
        return None


def open_outlined(outlined: Outlined, classifier: Classifier) -> tuple[Image.Image, np.ndarray]:
    """The photo, and the mask of what the network is given of it: uint8 (S, S).

    Raises:
        PhotoError: one of them cannot be read, or they do not belong together.
    """
    photo = open_photo(outlined.photo)
    try:
        with Image.open(outlined.mask, formats=("PNG",)) as image:
            values = np.asarray(image) if image.size == photo.size else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise PhotoError("The mask cannot be read.") from None
    if values is None:
        raise PhotoError("The mask has another size than its photo.")
    if values.ndim != 2 or not np.isin(values, (OBJECT, BACKGROUND, BORDER)).all():
        raise PhotoError("The mask holds something else than 1, 2 and 3.")
    if not (values == OBJECT).any():
        raise PhotoError("The mask has no object.")
    trimap = np.asarray(classifier.transform.view(Image.fromarray(values.astype(np.uint8)), Image.Resampling.NEAREST))
    if not (trimap == OBJECT).any():
        raise PhotoError("The object lies outside of what the network is given.")
    return photo, trimap


def pointing(attribution: np.ndarray, trimap: np.ndarray) -> float:
    """Whether the strongest pixel lies on the object: 1 or 0, or of several that are equal the share that does.

    The pointing game, Zhang et al. 2016 (arXiv 1608.00507), section 4.2. The border is looked at by neither side, which
    takes the place of the 15 px of tolerance that the paper grants. All maps are smoothed first, as Fong, Patrick and
    Vedaldi 2019 (arXiv 1910.08485) do in their benchmark with those of single pixels. A map that finds nothing misses.
    """
    # One that is the same everywhere would be left with the rounding of its smoothing.
    smooth = gaussian_filter(attribution, SMOOTHING * len(attribution)) if np.ptp(attribution) else attribution
    counts = trimap != BORDER
    highest = smooth[counts].max()
    if highest <= 0:
        return 0.0
    return float((trimap[counts & (smooth == highest)] == OBJECT).mean())


def energy(attribution: np.ndarray, trimap: np.ndarray) -> float:
    """The share of the positive evidence that lies on the object, 0 to 1; 0 for a map that finds nothing.

    The energy-based pointing game, Wang et al. 2020 (Score-CAM, arXiv 1910.01279), section 4.3.
    """
    positive = np.maximum(attribution, 0, dtype=np.float64)
    total = positive[trimap != BORDER].sum()
    return float(positive[trimap == OBJECT].sum() / total) if total else 0.0


def infidelity(classifier: Classifier, photo: Image.Image, attribution: np.ndarray, target: str) -> float:
    """How badly a map foretells by how many logits the class falls when a square turns grey: the mean squared error.

    Yeh et al. 2019 (arXiv 1901.09392), section 3, with squares removed as in section 3.2 and the scale of the map that suits it best,
    so that methods whose maps have other units can be compared.
    """
    generator = torch.Generator().manual_seed(0)
    with classifier.lock:
        x = classifier.prepare([photo])
        keep = torch.ones_like(x[:, :1])

        def hide(kept: Tensor) -> tuple[Tensor, Tensor]:
            squares = _squares(len(kept), x.shape[-1], generator).to(x.device)
            return squares, kept - squares

        found = metrics.infidelity(
            lambda kept: averaged_logits(classifier.model, [kept * x], classifier.mirror),  # zero is grey
            hide,
            keep,
            torch.from_numpy(attribution).to(x.device)[None, None],
            target=classifier.classes.index(target),
            n_perturb_samples=SQUARES,
            max_examples_per_batch=SQUARES // 5,
            normalize=True,
        )
    return max(0.0, found.item())  # a perfect map leaves the rounding of the sums


def _squares(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Pictures `(count, 1, size, size)` of zeros with a square of ones somewhere."""
    low, high = SQUARE_SIDE
    sides, tops, lefts = torch.rand(3, count, generator=generator)
    sides = (size * (low + (high - low) * sides)).round().clamp(min=1)
    at = torch.arange(size)

    def inside(place: Tensor) -> Tensor:
        start = (place * (size - sides + 1)).floor()[:, None]
        return (at >= start) & (at < start + sides[:, None])

    return (inside(tops)[:, None, :, None] & inside(lefts)[:, None, None, :]).float()


def sensitivity(explain: Explain, classifier: Classifier, photo: Image.Image, target: str) -> float:
    """How far a map changes, as a share of itself, when hardly visible noise is added to the photo: at worst of a few.

    Yeh et al. 2019 (arXiv 1901.09392), section 4.
    """
    generator = torch.Generator().manual_seed(0)

    def nudge(x: Tensor) -> Tensor:
        return x + RADIUS * (2 * torch.rand(x.shape, generator=generator) - 1).to(x.device)

    def explained(given: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        x = given[0] if isinstance(given, tuple) else given
        with torch.enable_grad():
            prepared: Any = _Prepared(x)
            attribution = explain(replace(classifier, transform=prepared), photo, target)
        return (torch.from_numpy(attribution)[None],)

    x = classifier.prepare([photo])
    return metrics.sensitivity_max(explained, x, nudge, n_perturb_samples=NUDGES, max_examples_per_batch=1).item()


@dataclass(frozen=True)
class _Prepared:
    """Stands for a transform whose result is given."""

    x: Tensor

    def batch(self, photos: Sequence[Image.Image]) -> Tensor:
        return self.x.detach().clone()

    def normalize(self, x: Tensor) -> Tensor:
        return x


def explanations(classifier: Classifier, names: Sequence[str]) -> dict[str, Explain]:
    """How the map of each of `names` is made: the methods of `saliency` and the baselines.

    `center` is a bell around the middle, `edges` the strength of the photo's edges (Sobel), `uniform` the same
    everywhere, `random-weights` the Grad-CAM of the same network with random weights, or its saliency where it has no
    convolution.
    """
    known: dict[str, Explain] = {method: partial(_by_network, method) for method in saliency.METHODS}
    known |= {"center": _center, "uniform": _uniform, "edges": _edges}
    if "random-weights" in names:
        method = "saliency" if saliency.unsupported(classifier.model, "gradcam") else "gradcam"
        *_, (_, network) = evidence.randomized(classifier.model)
        known["random-weights"] = lambda classifier, photo, target: _by_network(
            method, evidence.with_network(classifier, network), photo, target
        )
    return {name: known[name] for name in names}


def _by_network(method: str, classifier: Classifier, photo: Image.Image, target: str) -> np.ndarray:
    return saliency.attribute(classifier, photo, method, target)


def _center(classifier: Classifier, photo: Image.Image, target: str) -> np.ndarray:
    size = classifier.prepare([photo]).shape[-1]
    bell = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * (size / 4) ** 2))
    return np.outer(bell, bell).astype(np.float32)


def _uniform(classifier: Classifier, photo: Image.Image, target: str) -> np.ndarray:
    return np.ones(classifier.prepare([photo]).shape[2:], np.float32)


def _edges(classifier: Classifier, photo: Image.Image, target: str) -> np.ndarray:
    grey = classifier.prepare([photo])[0].mean(0).cpu().numpy()
    return np.hypot(sobel(grey, 0), sobel(grey, 1))


def score(
    classifier: Classifier,
    photos: Sequence[Outlined],
    names: Sequence[str],
    limit: int | None = None,
    perturbed: int = PERTURBED,
    progress: data.Progress | None = None,
) -> tuple[list[dict[str, Any]], list[Skip]]:
    """Measure the maps of each of `names` on the first `limit` usable `photos`.

    The class explained is a photo's true one, or where that is not known, the likeliest. Maps, masks and probabilities
    are those of a photo's centre, the probabilities while pixels are exchanged without its mirror image, which would take
    twice as long.

    Args:
        classifier: the network to explain.
        photos: as `collect` finds them.
        names: of `saliency.METHODS` and `BASELINES`.
        limit: how many photos; all by default.
        perturbed: on how many of them, the first, to measure infidelity and sensitivity.
        progress: told what is being done, how much of it, of how much; may raise to cancel.

    Returns:
        For each name a dictionary: `method`, `photos` (how many counted), the means of `MEASURES`, None where nothing
        was measured, `nothing_found` (photos whose map was zero) and `error`, why the method could not be used, or None.
        And the photos that were left out.

    Raises:
        DataError: no photo can be used.
    """
    explain = explanations(classifier, names)
    once = replace(classifier.looking_once(), familiarity=None)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    errors: dict[str, str] = {}
    skipped, used, total = [], 0, min(limit or len(photos), len(photos))
    tell = progress or (lambda what, done, total: None)
    for outlined in photos:
        if used == total:
            break
        try:
            photo, trimap = open_outlined(outlined, once)
        except PhotoError as error:
            skipped.append(Skip(str(outlined.photo), str(error)))
            continue
        target = outlined.label or once([photo])[0].best
        for number, name in enumerate(names):
            tell("Maps measured", used * len(names) + number, total * len(names))
            if name not in errors:
                try:
                    measured[name].append(
                        _measure(explain[name], once, photo, trimap, target, perturb=used < perturbed)
                    )
                except saliency.AttributionError as error:
                    errors[name] = str(error)
        used += 1
    if not used:
        raise DataError(
            f"None of the photos with a mask can be used; the first, {skipped[0].path}: {skipped[0].reason}"
        )
    tell("Maps measured", used * len(names), used * len(names))
    return [_row(name, measured[name], errors.get(name)) for name in names], skipped


def _measure(
    explain: Explain, classifier: Classifier, photo: Image.Image, trimap: np.ndarray, target: str, perturb: bool
) -> dict[str, float]:
    """`MEASURES` of the map of one photo, and whether nothing was found."""
    started = time.perf_counter()
    attribution = explain(classifier, photo, target)
    seconds = time.perf_counter() - started
    once = replace(classifier, mirror=False)
    (curves,) = evidence.measure_curves(once, photo, target, [evidence.ranking(attribution)])
    values = {
        "pointing": pointing(attribution, trimap),
        "energy": energy(attribution, trimap),
        "deletion": curves.deletion_area,
        "insertion": curves.insertion_area,
        "seconds": seconds,
        "nothing_found": not attribution.any(),
    }
    if perturb:
        values["infidelity"] = infidelity(classifier, photo, attribution, target)
        values["sensitivity"] = sensitivity(explain, classifier, photo, target)
    return values


def _row(name: str, measured: Sequence[Mapping[str, float]], error: str | None) -> dict[str, Any]:
    """The means over the photos, of each measure where it was taken."""

    def mean(measure: str) -> float | None:
        values = [m[measure] for m in measured if measure in m]
        return float(np.mean(values)) if values and error is None else None

    nothing = sum(bool(m["nothing_found"]) for m in measured)
    means = {measure: mean(measure) for measure in MEASURES}
    return {"method": name, "photos": len(measured), **means, "nothing_found": nothing, "error": error}
