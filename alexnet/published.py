"""The published systems as data: whose each is, what its author reports, every setting, and where this one differs.

Each is a set of settings for `alexnet.recipes.Recipe`. What an author leaves out is switched off here; what an author
leaves open is assumed in words, among the deviations.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

# What training practice has learnt since, in this project's own recipe, and none of the authors used.
PLAIN: Settings = {
    "ema": 0.0,
    "label_smoothing": 0.0,
    "warmup": 0.0,
    "mirror": False,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
}


def squashed(side: int) -> Settings:
    """Photos scaled straight to a square of `side` px, in training and evaluation alike, and no part cut out."""
    return {"image_size": side, "resize": side, "squash": True, "crop": "none", "flip": False}


BEST_EPOCH = "The epoch with the best validation accuracy is kept and tested; the source speaks of no such choice."
SPARED = "Weight decay spares biases and normalisation, where the source's optimizer pulls at them, too."
DEVIATIONS = (  # of all of them
    "Training photos are kept as 256 x 256 pixels and augmented from there, a batch at a time; decoding each anew in "
    "every epoch would take longer than the network.",
    "The rest of an epoch that fills no batch is left out; in another epoch's order it comes up.",
    "Sums are in bfloat16 where the device is faster with it; float32 is a setting away.",
)
OUR_SCALE = (
    "Red, green and blue are brought to mean 0 and deviation 1 with the field's customary constants; the source names "
    "none."
)


def each_a_line(*deviations: str) -> str:
    """The text of a recipe's `deviations`: its own, then those of all."""
    return "\n".join((*deviations, *DEVIATIONS))


OURS: tuple[Settings, ...] = (
    {
        "name": "cats-dogs",
        "title": "Cats and dogs",
        "source": "Ours: the 2012 layout with batch norm after each ReLU and what training practice has learnt since.",
        "epochs": 12,
    },
    {
        "name": "first-run",
        "title": "First run (about two minutes)",
        "source": "Ours: the same network on smaller pictures, for a first look on any laptop.",
        "image_size": 99,
        "resize": 104,
        "dropout": 0.2,
        "crop_scale": 0.7,
        "epochs": 10,
        "batch_size": 32,
        "lr": 0.01,
        "ema": 0.98,
    },
)

BATCHNORM_CATS_DOGS: Settings = {
    "name": "batchnorm-cats-dogs",
    "title": "AlexNet with batch norm on Cat and Dog (PyTorch)",
    "source": "“AlexNet for Cat and Dog Classification”, a PyTorch project on Kaggle's Cat and Dog (8,000 photos to "
    "train on, 2,000 to test), its training logged at wandb.ai/sccsmartcode-prometheus-/AlexNet.",
    "published": "After 30 epochs: validation accuracy 82.52 %, test accuracy 83.14 %, test loss 0.3608.",
    "deviations": each_a_line(
        "Pooling follows conv1, conv2 and conv5; the source names it after each convolution, which would leave no "
        "pixel.",
        "The base learning rate of 1e-5 has no effect in the source either: OneCycleLR overwrites it and starts at "
        "4e-5, a 25th of its peak. It rises over 30 % of the run, as by default there.",
        "The cycle ends at zero, where OneCycleLR ends at 4e-9.",
        "Beta 1 of Adam stays at 0.9; OneCycleLR would move it from 0.95 to 0.85 and back.",
        "Of blur and brightness the source gives no figures; assumed are up to 2 pixels, torchvision's default, and "
        "up to 20 %. Its “etc.” is left out.",
        "Photos are squashed to 227 x 227, since the source names that size and no crop.",
        "The source does not say how many of its 8,000 training photos validate; here it is a tenth. Where no folder "
        "is set aside as a test, a fifth of the photos is, as of its 10,000.",
        SPARED,
        OUR_SCALE,
        BEST_EPOCH,
        "Weights & Biases records the run if asked to (wandb), since it needs an account or leaves a folder.",
    ),
    **PLAIN,
    **squashed(227),
    "paddings": "2 2 1 1 1",
    "dropout": 0.5,
    "single_logit": True,
    "val_fraction": 0.1,
    "test_fraction": 0.2,
    "flip": True,
    "blur": 2.0,
    "brightness": 0.2,
    "epochs": 30,
    "batch_size": 128,
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.008,
    "schedule": "one-cycle",
    "warmup": 0.3,
}

PAPER_NETWORK: Settings = {"normalization": "local_response", "groups": 2, "dropout": 0.5}
PAPER_STEPS: Settings = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}

PAPER_2012: Settings = {
    "name": "paper-2012",
    "title": "The paper of 2012",
    "source": "Krizhevsky, Sutskever and Hinton 2012, “ImageNet Classification with Deep Convolutional Neural "
    "Networks”, sections 3 to 5: 1.2 million photos of 1,000 classes, on two GPUs for five to six days.",
    "published": "On ILSVRC-2010, errors of 37.5 % (top-1) and 17.0 % (top-5) averaged over ten crops, 39.0 % and "
    "18.3 % from one; on ILSVRC-2012 validation photos 40.7 % and 18.2 %.",
    "deviations": each_a_line(
        "Crops are of 227 pixels: the 224 that the paper prints do not give its maps of 55 x 55.",
        "The learning rate is divided by ten when the validation loss has not fallen for more than 5 epochs; the "
        "authors watched the validation error and did so by hand, three times.",
        "From each colour its mean is subtracted, then it is divided by its deviation; the paper subtracts the mean "
        "image from values of 0 to 255, so that its first layer met numbers about 60 times larger.",
        "The ten answers are averaged before the softmax, where the paper averages after it; they make the report, "
        "while after each epoch the centre and its mirror image are looked at.",
        "The principal colours are those published with fb.resnet.torch; the paper does not print its own.",
        "Training photos are kept squashed to 256 x 256, so that the central square of an oblong one, which the paper "
        "cuts out, has fewer pixels than there.",
        "The answers to the ten crops are averaged before the softmax, the paper's after it.",
        "Both towers are on one device unless towers_apart says otherwise, with the paper's connections between them.",
        BEST_EPOCH,
    ),
    **PLAIN,
    **PAPER_NETWORK,
    "initialization": "paper",
    "image_size": 227,
    "resize": 256,
    "mirror": True,
    "five_crops": True,
    "crop": "patch",
    "flip": True,
    "pca_colour": 0.1,
    "epochs": 90,
    "batch_size": 128,
    "schedule": "plateau",
    "plateau_patience": 5,
    **PAPER_STEPS,
}

TINY_100: Settings = {
    "name": "tiny-100",
    "title": "The paper's network on 100 photos",
    "source": "A project that trains the network of 2012 on about 100 photos of cats and dogs, split 80/10/10.",
    "published": "After 10 epochs: validation accuracy 69.12 %, test accuracy 71.88 %, which is 23 of 32 photos.",
    "deviations": each_a_line(
        "The 50 photos of each class are drawn by the seed, since those of the source are not known; other seeds draw "
        "others.",
        "With the photos set aside as a test, 2,000 that were not drawn are tested on: on ten alone the figure would "
        "be chance.",
        "The source does not say how it trains; assumed are SGD with the paper's settings at a constant learning "
        "rate, batches of 32, PyTorch's random start, no augmentation, and photos squashed to 227 x 227.",
        OUR_SCALE,
        BEST_EPOCH,
    ),
    **PLAIN,
    **PAPER_NETWORK,
    **squashed(227),
    "val_fraction": 0.1,
    "test_fraction": 0.1,
    "max_per_class": 50,
    "test_on_rest": 2000,
    "epochs": 10,
    "batch_size": 32,
    "schedule": "constant",
    **PAPER_STEPS,
}

KERAS_DOGS_VS_CATS: Settings = {
    "name": "keras-dogs-vs-cats",
    "title": "AlexNet on Dogs vs. Cats (Keras)",
    "source": "A Keras project on Kaggle's Dogs vs. Cats, 80/20 of the 25,000 labelled photos, with predictions for "
    "the 12,500 of test1.",
    "published": "Validation accuracy 89.95 % at the last of 20 epochs.",
    "deviations": each_a_line(
        "The source's sizes are assumed to be those of the AlexNet that is widespread in Keras: 224 pixels, 11 x 11 "
        "in conv2, too, pooling windows of 2 x 2.",
        "Batch norm follows the pooling, and in conv3 and conv4 the ReLU; behind the fully connected layers, where "
        "that network has it, too, there is none here.",
        "The optimizer is assumed to be Adam at Keras's learning rate of 0.001, constant, without weight decay.",
        "shear_range=0.1 means a tenth of a degree in Keras, and so it does here: it all but leaves photos upright.",
        "Random starts are PyTorch's, not Keras's (Glorot); batch norm forgets at PyTorch's pace (0.1, not 0.01) and "
        "Adam divides by at least 1e-8, not 1e-7.",
        "Photos are scaled with a filter, where Keras takes the nearest pixel.",
        "Keras divides by 255 only; here red, green and blue are also brought to mean 0 and deviation 1.",
        "The epoch with the best validation accuracy is kept; the source reports its last, which metrics.jsonl has as "
        "well.",
        "No photo is set aside as a test, as in the source; the report is of the validation photos.",
    ),
    **PLAIN,
    **squashed(224),
    "kernels": "11 11 3 3 3",
    "paddings": "0 0 0 0 0",
    "pool": 2,
    "avgpool": 1,
    "norm_place": "after_pool",
    "hidden": "4096 4096 1000",
    "dropout": 0.4,
    "val_fraction": 0.2,
    "test_fraction": 0.0,
    "rotation": 15.0,
    "shear": 0.1,
    "zoom": 0.2,
    "shift": 0.1,
    "flip": True,
    "epochs": 20,
    "batch_size": 15,
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
}

THREE_CLASS: Settings = {
    "name": "three-class",
    "title": "Dogs, food and vehicles",
    "source": "A PyTorch project: AlexNet for photos of dogs, food and vehicles, split 70/20/10.",
    "published": "After 10 epochs: test accuracy 90.18 %, test loss 0.3100.",
    "deviations": each_a_line(
        "The source names batches of 32, 10 epochs and 227 pixels; assumed are the layers of 2012 in one tower "
        "without normalisation, dropout 0.5, and Adam at 1e-4, which the same project takes for its fully connected "
        "network.",
        "No augmentation is named for these photos, and none is done; they are squashed to 227 x 227.",
        "Of 70/20/10 the 20 are taken to validate and the 10 to test.",
        "Any number of classes will do here.",
        OUR_SCALE,
        BEST_EPOCH,
    ),
    **PLAIN,
    **squashed(227),
    "normalization": "none",
    "dropout": 0.5,
    "val_fraction": 0.2,
    "test_fraction": 0.1,
    "epochs": 10,
    "batch_size": 32,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
}

SVHN: Settings = {
    "name": "svhn",
    "title": "Street View House Numbers",
    "source": "The project of three-class: a narrower AlexNet on Street View House Numbers (Netzer et al. 2011) "
    "through torchvision.",
    "published": "After at most 15 epochs: test accuracy 93.14 %.",
    "deviations": each_a_line(
        "Two pixels of padding in conv1 are assumed, with which 224 pixels give the maps of 2012, and batch norm "
        "before the ReLU, dropout 0.5 and one tower.",
        "Training ends early after 2 epochs without a better validation accuracy, and the learning rate is divided by "
        "ten after more than one without a lower validation loss; the source does not say what its own watch, nor how "
        "long the second waits.",
        "A tenth of the digits to train on validate; the source does not say how many.",
        SPARED,
        OUR_SCALE,
        BEST_EPOCH,
    ),
    **PLAIN,
    **squashed(224),
    "paddings": "2 2 1 1 1",
    "norm_place": "before_relu",
    "hidden": "128 64",
    "dropout": 0.5,
    "val_fraction": 0.1,
    "test_fraction": 0.1,
    "rotation": 15.0,
    "epochs": 15,
    "batch_size": 64,
    "patience": 2,
    "schedule": "plateau",
    "plateau_patience": 1,
    "optimizer": "sgd",
    "lr": 0.005,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.005,
}

MLP_BASELINE: Settings = {
    "name": "mlp-baseline",
    "title": "Fully connected baseline",
    "source": "The project of three-class: a fully connected network of 128-128-128 units with sigmoid or ReLU, Adam "
    "at 1e-4 and dropout, compared over dropout, activation and optimizer and by K-fold cross-validation.",
    "published": "None for photos: the source trains it on other data.",
    "deviations": each_a_line(
        "It sees the pixels of the same photos as AlexNet, squashed to 67 x 67, so that what convolution buys shows.",
        "Dropout 0.2, batches of 64 and 20 epochs are assumed; dropout, activation, optimizer and folds are settings.",
        "No augmentation is named, and none is done.",
        OUR_SCALE,
        BEST_EPOCH,
    ),
    **PLAIN,
    **squashed(67),
    "network": "mlp",
    "normalization": "none",
    "hidden": "128 128 128",
    "activation": "relu",
    "dropout": 0.2,
    "epochs": 20,
    "batch_size": 64,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
}

IMAGENET: Settings = {
    "name": "imagenet",
    "title": "ImageNet",
    "source": "A PyTorch project that trains AlexNet on ImageNet, or a part of it, in its own layout: SGD, step "
    "decay, weight decay, crops and flips, 1,000 classes, 227 pixels.",
    "published": "None with these settings. torchvision's AlexNet, trained by such a schedule, has 56.522 % top-1 and "
    "79.066 % top-5 on the 50,000 validation photos of 2012.",
    "deviations": each_a_line(
        "Of the network only its input is given; assumed is that of 2012 in one tower, with local response "
        "normalisation, dropout 0.5 and PyTorch's random start.",
        "Assumed are 90 epochs, a learning rate of 0.01 that is divided by ten after 30 and 60 of them, momentum 0.9, "
        "weight decay 5e-4 and batches of 128.",
        "Crops are torchvision's: 8 to 100 % of the photo's area, three to four up to four to three. For evaluation "
        "the shorter side becomes 256 pixels and the centre of 227 is cut out.",
        "The photos in val/ choose the best epoch and make the report, as those of test/ have no labels.",
        SPARED,
        OUR_SCALE,
    ),
    **PLAIN,
    "normalization": "local_response",
    "dropout": 0.5,
    "image_size": 227,
    "resize": 256,
    "given_splits": True,
    "test_fraction": 0.0,
    "crop": "resized",
    "crop_scale": 0.08,
    "flip": True,
    "epochs": 90,
    "batch_size": 128,
    "schedule": "step",
    **PAPER_STEPS,
}

SYSTEMS = (
    *OURS,
    BATCHNORM_CATS_DOGS,
    PAPER_2012,
    TINY_100,
    KERAS_DOGS_VS_CATS,
    THREE_CLASS,
    SVHN,
    MLP_BASELINE,
    IMAGENET,
)
