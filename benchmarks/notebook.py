"""The stock way to look at one photo, as in a notebook: Pillow, torchvision's transform, the model, Captum."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion, Saliency
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from alexnet import saliency
from alexnet.predict import Classifier
from benchmarks import stock


class Notebook:
    """The stock side: the network of a classifier and torchvision's evaluation transform at the classifier's sizes."""

    def __init__(self, classifier: Classifier) -> None:
        self.network, self.device, self.mirror = classifier.model, classifier.device, classifier.mirror
        sizes = [transforms.Resize(classifier.transform.resize), transforms.CenterCrop(classifier.transform.crop)]
        self.transform = transforms.Compose([*sizes, *stock.to_tensor()])

    def prepare(self, content: bytes) -> Tensor:
        """The photo in a file as the network's input, (1, 3, S, S) float32."""
        return self.transform(Image.open(io.BytesIO(content)).convert("RGB"))[None].to(self.device)

    @torch.inference_mode()
    def classify(self, content: bytes) -> list[float]:
        """The probabilities; over the photo and its mirror image where the classifier averages these."""
        x = self.prepare(content)
        logits = (self.network(x) + self.network(x.flip(3))) / 2 if self.mirror else self.network(x)
        return logits.softmax(dim=1)[0].tolist()

    def attribute(self, content: bytes, method: str, target: int) -> Tensor:
        """What Captum returns for the class with the index `target`, on the CPU, `(views, C, S, S)`.

        Of the photo, and of its mirror image, turned back, where `saliency.attribute` explains that too.
        """
        x = self.prepare(content)
        found = [METHODS[method](self.network, x, target).detach()]
        if self.mirror and not saliency.METHODS[method].one_view:
            found.append(METHODS[method](self.network, x.detach().flip(3), target).detach().flip(3))
        return torch.cat(found).cpu()


def _saliency(network: nn.Module, x: Tensor, target: int) -> Tensor:
    return Saliency(network).attribute(x.requires_grad_(), target=target)


def _integrated_gradients(network: nn.Module, x: Tensor, target: int) -> Tensor:
    return IntegratedGradients(network).attribute(
        x, target=target, n_steps=saliency.STEPS, internal_batch_size=saliency.STEPS_AT_ONCE
    )


def _gradcam(network: nn.Module, x: Tensor, target: int) -> Tensor:
    maps = LayerGradCam(network, network.features.relu5).attribute(x, target=target, relu_attributions=True)
    return LayerAttribution.interpolate(maps, x.shape[-2:], interpolate_mode="bilinear")


def _occlusion(network: nn.Module, x: Tensor, target: int) -> Tensor:
    side = x.shape[-1] // 7
    return Occlusion(network).attribute(
        x,
        target=target,
        sliding_window_shapes=(3, side, side),
        strides=(3, side // 2, side // 2),
        perturbations_per_eval=saliency.WINDOWS_AT_ONCE,
    )


METHODS: dict[str, Callable[[nn.Module, Tensor, int], Tensor]] = {
    "saliency": _saliency,
    "integrated-gradients": _integrated_gradients,
    "gradcam": _gradcam,
    "occlusion": _occlusion,
}
