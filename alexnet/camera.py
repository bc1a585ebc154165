"""The frames of a film, taken of a network that is still being trained. `film` keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet import anatomy, film, model, saliency
from alexnet.augment import EvalTransform
from alexnet.data import Photo
from alexnet.film import Frame, Subject
from alexnet.inputs import Kept, Streamed
from alexnet.predict import Classifier
from alexnet.runs import Run


def add_frame(
    run: Run,
    epoch: int,
    photos: Sequence[Photo],
    images: Kept | Streamed,
    logits: Tensor,
    weights: Mapping[str, Tensor],
) -> None:
    """Add the frame of an epoch to the film of `run`; the first one also keeps the photos.

    Args:
        run: the run folder.
        epoch: from 1; a frame of it that is there already is replaced.
        photos: those of the validation split.
        images: what the network is shown of them, `(N, 3, S, S)` uint8.
        logits: what it answered, `(N, classes)`, on the CPU.
        weights: those that answered, as a state dict.

    Raises:
        OSError: a file cannot be written.
        DataError: a photo can no longer be read.
        AttributionError: a map holds numbers that are not finite.
    """
    chosen = film.choose(photos, run.recipe.seed)
    shown, labels = images[np.array(chosen)], [photos[index].label for index in chosen]
    if not film.has_subjects(run.path):
        names = run.config["classes"]
        pictures = map(Image.fromarray, shown.transpose(0, 2, 3, 1))
        about = zip(chosen, pictures, strict=True)
        film.write_subjects(run.path, [Subject(photos[i].path, names[photos[i].label], shows) for i, shows in about])
    probabilities = logits[chosen].softmax(dim=1).numpy()
    film.write_frame(run.path, epoch, Frame(probabilities, *_look(run, weights, torch.from_numpy(shown), labels)))


def _look(
    run: Run, weights: Mapping[str, Tensor], images: Tensor, labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """The maps of photos `(N, 3, S, S)` uint8 and the filters; nothing of a network without convolutions.

    The weights go, in float32 and where they are, into a network of its own, which shares their memory: hooks on the
    one that trains would have it compiled anew.
    """
    recipe, classes = run.recipe, tuple(run.config["classes"])
    with torch.device("meta"):
        network = model.from_recipe(recipe, len(classes))
    if saliency.unsupported(network, "gradcam"):
        return ()
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(False)
    transform, device = EvalTransform.from_recipe(recipe), next(network.parameters()).device
    classifier = Classifier(run, classes, transform, recipe.mirror, network, device)
    maps = saliency.signed_gradcam(classifier, transform.normalize(images.to(device)), labels)
    filters = anatomy.filters(network)
    assert filters is not None  # there is Grad-CAM, hence a convolution
    return maps, filters.astype(np.float16)
