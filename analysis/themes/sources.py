"""What the sources of the experiments found, and why this study may find something else.

python -c "from analysis.themes import sources; print(*sources.FOUND, sep='\\n')"
"""

from dataclasses import dataclass

from analysis.wording.texts import mark


@dataclass(frozen=True)
class Found:
    """A result of a source: the sweep that repeats it, what the source found, and what explains a difference, if known.

    In the results, one with a `figure` has it, one that names the validation `loss` or accuracies of the `last` epoch
    has ours, and one that is asked of several networks is answered `by_network`.
    """

    sweep: str
    found: str
    why: str = ""
    figure: bool = False
    loss: bool = False
    last: bool = False
    by_network: bool = False


FOUND = (
    Found(
        "dropout",
        mark(
            "Best validation accuracy 70.02 % without dropout and 69.67 % with 0.5, one run each; at the end, twice "
            "the validation loss without it."
        ),
        mark("A difference of 0.35 points between two single runs is within the luck of a seed."),
        figure=True,
        loss=True,
    ),
    Found(
        "depth",
        mark(
            "One block is worst and three are best in accuracy; three end with a higher validation loss than two, "
            "though their lowest loss is the lowest of all."
        ),
        mark("Here three blocks end with the lowest loss too; the source shows one run of each."),
        figure=True,
        loss=True,
    ),
    Found(
        "mlp",
        mark("The perceptron is clearly worse, and slower: some 15,000 more iterations, from 20 more epochs."),
        mark(
            "Iterations of different networks take different times, so their number does not measure speed: here the "
            "perceptron takes the least time, although it trains for 20 more epochs."
        ),
        figure=True,
    ),
    Found(
        "augmentation",
        mark(
            "Validation loss 0.87 with and 1.04 without augmentation; about the same accuracy, the best one with it, "
            "after as many iterations."
        ),
        mark(
            "Here each seed gains several points. What the source's augmentation and number of epochs were is not "
            "known."
        ),
        figure=True,
        loss=True,
    ),
    Found(
        "all-conv",
        mark("73.09 %: about as good as with fully connected layers or better, and a lower validation loss."),
        mark(
            "The source counts the parameters of VGG instead of those of its networks, with one bit for each instead "
            "of 32 (0.8856 MB instead of 28.3 MB); `python -m analysis.anatomy cnn all-conv --compare` counts those "
            "that were trained."
        ),
        figure=True,
        loss=True,
    ),
    Found(
        "mlp-architectures",
        mark("The base network is best, net1 is near it, net2 is worst."),
        mark(
            "The source does not say the widths of net1, net2 and net3: ours are a choice. Its net1 ends with a "
            "softmax. Before the cross-entropy, which applies one itself, that flattens the gradients: here net1 did "
            "not learn with it in any run, and did without it in each."
        ),
    ),
    Found("mlp-sizes", mark("Layers and units were varied too; no numbers are given."), by_network=True),
    Found(
        "activations",
        mark("LeakyReLU is best, sigmoid is worst."),
        mark(
            "Sigmoid is worst here too. LeakyReLU is not shown to differ from ReLU in either network, and which "
            "activation is best depends on the network."
        ),
        by_network=True,
    ),
    Found(
        "optimizers",
        mark("Adam reaches about 10 %, far below SGD."),
        mark(
            "The source does not give Adam's learning rate. With that of SGD, Adam fails here too: 7 of 10 runs end at "
            "10 %, and none reaches 33 %. With 0.001 it is better than SGD on netconv and worse on net. SGD was tried "
            "with one learning rate only."
        ),
        by_network=True,
    ),
    Found(
        "regularization",
        mark(
            "Batch norm helps every network; augmentation and weight decay do not; on dropout the source contradicts "
            "itself."
        ),
        mark(
            "Here batch norm helps netconv and lowers the accuracy of net, though also its overfitting. Dropout of 0.2 "
            "lowers the accuracy of net and, not clearly, of netconv. Weight decay is for networks that are not "
            "answered yet."
        ),
        by_network=True,
    ),
    Found(
        "architectures",
        mark("ResNet is best: 86.27 % on validation at epoch 6 of 12, 85 % on the test images."),
        mark(
            "The source enlarged its images for VGG and does not say whether for other networks; here all have 32 "
            "pixels."
        ),
    ),
    Found(
        "resnet-grid",
        mark("Best is a learning rate of 0.005 with momentum 0.9: 80.4 % on validation after 5 epochs."),
        mark(
            "The losses of the source (0.0502 and 0.0568) are mean losses divided by the batch size once more. A "
            "higher momentum acts like a higher learning rate: in the five best settings of this grid, the learning "
            "rate divided by (1 − momentum) is 0.05 to 0.2; with 0.1 and 0.99 it is 10, and the network did not learn."
        ),
        figure=True,
    ),
    Found(
        "resnet-best",
        mark("The winner of the grid, momentum 0.9, does not beat 0.5 when it is trained for more epochs."),
        mark("Both compare one run of each: here 0.9 is ahead, and only more seeds can tell."),
    ),
    Found(
        "schedulers",
        mark("Without a schedule 85.8 %, cosine a little less, step 14 %."),
        mark("The only run here is 11 points below that of the source, which does not give its stem and image size."),
    ),
    Found(
        "simple-cnn",
        mark(
            "98.92 % on validation at epoch 10; the most frequent confusions are 9 with 4 and 7 with 2; more epochs "
            "would help a little."
        ),
        mark(
            "The source trained on all 60,000 training images and validated on the test images; here 10,000 are held "
            "out."
        ),
        figure=True,
        loss=True,
    ),
    Found(
        "alexnet",
        mark(
            "70.12 % on validation at epoch 15; overfits from epoch 10, more epochs would not help; the cat is "
            "recognised worst, often as a bird or a dog; confused are also car and truck, ship and plane, bird and "
            "plane."
        ),
        mark("Ours is a JPEG copy, and 10,000 of the 50,000 training images are held out for validation."),
        figure=True,
        loss=True,
    ),
    Found(
        "transfer",
        mark(
            "From scratch 72 %, frozen features with a linear SVM 90.5 %, fine-tuned 91.0 %, with augmentation 91.5 "
            "%, at the last epoch."
        ),
        mark(
            "The source used ResNet-50 and other images of two classes; here it is EfficientNet-Lite0 on the cats and "
            "dogs of CIFAR-10, enlarged to 224 pixels."
        ),
        last=True,
    ),
)
"""The results of the sources, in the order of the study."""

LAYERS = mark(
    "For MNIST, t-SNE shows the classes farther apart in the last layer than in the intermediate one, but both much "
    "alike, so the last layer could go: 1,290 of 813,802 parameters (0.16 %). For CIFAR-10 the groups overlap so much "
    "that a linear classifier would fail on the picture; it warns that the real one works in many more dimensions."
)
"""What the sources found in the layers of the networks for MNIST and CIFAR-10."""

COSTS = mark(
    "VGG is slowest and needs most energy, Inception most memory, and ResNet is the fastest of the deep networks."
)
"""What a source found of the costs of the networks."""

COSTS_DIFFER = mark(
    "The source trained on GPUs and enlarged the images for VGG to 224 pixels; here all networks have 32 pixels and "
    "two CPU cores, and GoogLeNet is the slowest. Energy and the memory of a GPU were not measured here."
)
"""Why the costs here are others."""
