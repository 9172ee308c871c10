"""Every option of a run in one row: its type, default, group, what it affects, its help and its bounds.

    python -c "from study.config.options import Options; print(*Options.model_fields)"

The same rows make the command line, the parameter space of a sweep and W&B's config. Options that belong to the choice
of another option, such as a network or an augmentation, have their defaults in `choices`. Defaults are part of a run's
identity, so a released default must not change.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from study.config.checks import (
    Device,
    LabelSource,
    Names,
    NameSet,
    Subject,
    Tags,
    WandbName,
    Widths,
    list_of,
    one_of,
)
from study.config.choices import ACTIVATIONS, AUGMENTATIONS, DATASETS, EXTRAS, NETWORKS, OPTIMIZERS, SCHEDULES
from study.config.scores import CHOOSING

NOTHING: frozenset[str] = frozenset()
RESULT = frozenset({"result"})
START = RESULT | {"start"}
WORK = RESULT | {"work"}
EVERYTHING = START | WORK
"""What an option affects: the `result` of a run; its `start`, which is the initial weights and the order of the images;
and the `work` of a step, hence its time. An option that does not affect the result says where or how a run is computed
or recorded, and is not part of its identity."""


OWN_NETWORK = "; a network of your own needs a row in NETWORKS of study/config/choices.py"
OWN_AUGMENTATION = "; an augmentation of your own needs a row in AUGMENTATIONS of study/config/choices.py"
OWN_SCORE = "; a score of your own needs a row in SCORES of study/config/scores.py"


def _option(default: Any, group: str, affects: frozenset[str], text: str, **bounds: Any) -> Any:
    """Declare an option with its group in the help, what it affects, its help and its bounds."""
    return Field(default, description=text, json_schema_extra={"group": group, "affects": affects}, **bounds)


class Options(BaseModel):
    """The options of one run; `Config` checks them together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: Annotated[str, one_of("model", NETWORKS, "timm:", own=OWN_NETWORK)] = _option(
        "two-block",
        "network",
        EVERYTHING,
        f"{', '.join(name for name in NETWORKS if name != 'timm:')}, or timm:NAME for any "
        "other network of timm, such as timm:convnext_atto",
    )
    filters: Widths = _option(None, "network", EVERYTHING, "filters of each convolution block, such as 32,64,128")
    hidden: Widths = _option(None, "network", EVERYTHING, "units of each hidden fully connected layer, such as 100")
    dropout: float | None = _option(None, "network", RESULT, "probability of dropping a unit, 0 <= p < 1", ge=0, lt=1)
    activation: Annotated[Names | None, list_of("activation", ACTIVATIONS, in_order=True)] = _option(
        None, "network", RESULT, f"{', '.join(ACTIVATIONS)}; the layers cycle through a comma list"
    )
    batch_norm: bool | None = _option(None, "network", EVERYTHING, "batch norm after each convolution and hidden layer")
    softmax_output: bool | None = _option(
        None, "network", WORK, "a softmax at the end, although the cross-entropy loss already includes one"
    )
    stem: Literal["auto", "cifar", "imagenet"] | None = _option(
        None, "network", EVERYTHING, "cifar has no stride and pooling, for small images; auto is cifar up to 64 px"
    )
    aux_weight: float | None = _option(
        None,
        "network",
        EVERYTHING,
        "weight of the losses of GoogLeNet's two auxiliary heads; 0 trains without them",
        ge=0,
    )

    pretrained: bool | None = _option(
        None,
        "transfer",
        EVERYTHING,
        "start from pretrained weights: those of timm, downloaded (timm:NAME.TAG chooses which), "
        "or the file of --weights",
    )
    weights: str | None = _option(
        None, "transfer", NOTHING, "file of pretrained weights, .safetensors or saved by torch"
    )
    weights_digest: str | None = _option(
        None, "transfer", EVERYTHING, "digest of the content of that file; computed if not given"
    )
    finetune: Literal["all", "head", "svm"] | None = _option(
        None,
        "transfer",
        EVERYTHING,
        "all trains the whole pretrained network; head trains its last layer and freezes the rest; "
        "svm fits a linear SVM to the frozen network's features",
    )
    body_lr_factor: float | None = _option(
        None,
        "transfer",
        RESULT,
        "learning rate of the pretrained layers, as a share of that of the new last layer",
        gt=0,
        le=1,
    )
    batch_statistics: bool | None = _option(
        None,
        "transfer",
        WORK,
        "batch norm uses the statistics of the batches; otherwise the pretrained statistics are kept, which is "
        "better with few images",
    )

    dataset: Annotated[str, one_of("data set", DATASETS, "folder:")] = _option(
        "cifar10", "data", EVERYTHING, f"{', '.join(DATASETS)}, or folder:NAME for DATA_DIR/NAME/train/CLASS/*"
    )
    classes: Annotated[NameSet, list_of("class")] = _option(
        "", "data", EVERYTHING, "comma list of classes to keep, such as cat,dog; empty keeps all"
    )
    train_images: int | None = _option(
        None,
        "data",
        EVERYTHING,
        "training images to keep, in proportion to the classes, drawn by seed; none keeps all",
        ge=2,
    )
    image_size: int | None = _option(
        None,
        "data",
        EVERYTHING,
        "side in pixels to which images are resized (photographs are also centre-cropped); none keeps their own",
        ge=1,
        le=1024,
    )
    split_seed: int = _option(0, "data", START, "seed of the split into training, validation and test images", ge=0)
    labels: LabelSource = _option(
        None,
        "data",
        EVERYTHING,
        "for a folder without class folders: a CSV file in it, such as labels.csv, with the columns file and label "
        "(labels.csv:IMAGE,CLASS for other names), or a regular expression whose first group is the label in a file's "
        "name, such as '([a-z]+)_'",
    )
    group_by: Subject = _option(
        None,
        "data",
        START,
        "keep all images of a subject, a video or a patient on one side of the split of a folder: a regular expression "
        "whose first group is the subject in a file's name (with a /, in its path), or a column of the CSV file",
    )
    val_share: float | None = _option(
        None,
        "data",
        EVERYTHING,
        "share of the images to hold out for validation, if there are no validation images (default: a fifth of what "
        "is left without test images; 10,000 images of CIFAR and MNIST)",
        gt=0,
        lt=1,
    )
    test_share: float | None = _option(
        None,
        "data",
        EVERYTHING,
        "share of the images to hold out for test, if there are no test images (default: a fifth)",
        gt=0,
        lt=1,
    )

    augment: Annotated[NameSet, list_of("augmentation", AUGMENTATIONS, own=OWN_AUGMENTATION)] = _option(
        "",
        "augmentation",
        WORK,
        f"comma list of {', '.join(AUGMENTATIONS)}; empty is none. Of images mixed by the last two, train/acc counts "
        "the class with the larger share",
    )
    alternating_flip: bool | None = _option(
        None, "augmentation", RESULT, "flip mirrors each image in every second epoch instead of at random"
    )
    crop_share: float | None = _option(
        None, "augmentation", RESULT, "largest shift, as a share of the side", gt=0, le=1
    )
    rotate_degrees: float | None = _option(None, "augmentation", RESULT, "largest angle in degrees", gt=0, le=180)
    perspective_tilt: float | None = _option(None, "augmentation", RESULT, "largest tilt, 0 < t < 1", gt=0, lt=1)
    randaugment_magnitude: int | None = _option(
        None, "augmentation", RESULT, "strength of randaugment's two operations for each image", ge=0, le=30
    )
    color_strength: float | None = _option(
        None, "augmentation", RESULT, "largest change of brightness, contrast and saturation, as a share", gt=0, le=1
    )
    noise_deviation: float | None = _option(
        None, "augmentation", RESULT, "standard deviation of noise, as a share of the scale", gt=0, le=1
    )
    cutout_share: float | None = _option(
        None, "augmentation", RESULT, "side of the square cut out, as a share", gt=0, le=1
    )
    mixup_alpha: float | None = _option(
        None, "augmentation", RESULT, "mixup blends two images by a share drawn from Beta(alpha, alpha)", gt=0
    )
    cutmix_alpha: float | None = _option(
        None, "augmentation", RESULT, "cutmix keeps a share of each image, drawn from Beta(alpha, alpha)", gt=0
    )

    epochs: int = _option(30, "training", RESULT, "passes over the training images", ge=1)
    batch_size: int = _option(64, "training", EVERYTHING, "images per step", ge=1)
    seed: int = _option(
        0, "training", START, "seed of the initial weights, the data order, dropout and augmentation", ge=0
    )
    label_smoothing: float = _option(0.0, "training", RESULT, "share of the target spread over all classes", ge=0, lt=1)
    class_weights: Literal["balanced"] | None = _option(
        None,
        "training",
        RESULT,
        "balanced weighs the loss of an image by the inverse of the size of its class, so that rare classes count as "
        "much as frequent ones",
    )
    sampling: Literal["balanced"] | None = _option(
        None,
        "training",
        START,
        "balanced draws the images of an epoch with replacement, of each class equally often; otherwise each image "
        "comes once",
    )
    flip_test: bool = _option(
        False, "training", WORK, "average the predictions for an image and its mirror image (test-time augmentation)"
    )
    metric: Annotated[str, one_of("metric", CHOOSING, own=OWN_SCORE)] = _option(
        "val/acc", "training", RESULT, f"what decides which epoch is the best: {', '.join(CHOOSING)}"
    )
    early_stopping: int | None = _option(
        None,
        "training",
        RESULT,
        "end after this many epochs without a better value; none trains to the last epoch",
        ge=1,
    )
    early_stopping_metric: Annotated[str | None, one_of("early_stopping_metric", CHOOSING)] = _option(
        None, "training", RESULT, "what early stopping watches, one of those that metric takes"
    )

    optimizer: Annotated[str | None, one_of("optimizer", OPTIMIZERS, "timm:")] = _option(
        None,
        "optimization",
        WORK,
        "sgd, adam, adamw, or timm:NAME for any other optimizer of timm, such as timm:lion "
        "(default: sgd; adamw for pretrained networks)",
    )
    lr: float | None = _option(
        None, "optimization", RESULT, "learning rate (default: 0.01 for sgd, otherwise 0.001)", gt=0
    )
    momentum: float | None = _option(None, "optimization", RESULT, "momentum of sgd (default: 0.9)", ge=0, lt=1)
    nesterov: bool | None = _option(None, "optimization", RESULT, "Nesterov's momentum for sgd")
    weight_decay: float = _option(0.0, "optimization", RESULT, "weight decay", ge=0)
    decay_norm_bias: bool = _option(True, "optimization", RESULT, "weight decay on normalization layers and biases too")
    clip_norm: float | None = _option(
        None, "optimization", WORK, "largest norm of the gradient; none does not clip", gt=0
    )
    ema_decay: float | None = _option(
        None,
        "optimization",
        WORK,
        "validate and keep an exponential moving average of the weights, with this decay",
        gt=0,
        lt=1,
    )
    schedule: Annotated[str, one_of("schedule", SCHEDULES)] = _option(
        "none",
        "optimization",
        RESULT,
        f"schedule of the learning rate: {', '.join(SCHEDULES)} (those of timm; an exponential decay is step with "
        "--step-epochs 1)",
    )
    warmup_epochs: float | None = _option(
        None, "optimization", RESULT, "epochs of linear warm-up (not for onecycle)", ge=0
    )
    step_epochs: int | None = _option(
        None,
        "optimization",
        RESULT,
        "epochs between the steps of schedule step; timm:plateau makes one after more than this many epochs without a "
        "better val/loss",
        ge=1,
    )
    step_factor: float | None = _option(
        None, "optimization", RESULT, "factor of each step of schedules step and timm:plateau", gt=0, lt=1
    )
    poly_power: float | None = _option(
        None, "optimization", RESULT, "schedule timm:poly is (1 - t)^power, where t rises from 0 to 1", gt=0
    )
    cycles: int | None = _option(
        None, "optimization", RESULT, "number of times that schedules timm:cosine and timm:tanh start anew", ge=1
    )

    device: Device = _option("auto", "execution", NOTHING, "auto (cuda, else mps, else cpu), cpu, mps, cuda or cuda:N")
    precision: Literal["float32", "bfloat16", "auto"] = _option(
        "float32",
        "execution",
        NOTHING,
        "precision of convolutions and matrix products: float32 (TF32 for convolutions on NVIDIA GPUs, as torch's "
        "default), bfloat16, or auto, the faster of the two on this machine",
    )
    compile: bool = _option(
        False,
        "execution",
        NOTHING,
        "compile the network before training; takes half a minute and pays in long runs on CUDA",
    )
    cuda_graph: bool = _option(
        True, "execution", NOTHING, "on CUDA, launch all kernels of a batch at once, if the network supports it"
    )
    deterministic: bool = _option(
        False,
        "execution",
        NOTHING,
        "on CUDA, use only deterministic algorithms, so that the same command gives the same bits on the same kind of "
        "GPU; slower. A CPU does so anyway, at the same --threads and --precision",
    )
    threads: int = _option(0, "execution", NOTHING, "CPU threads; 0 is one per core", ge=0)
    data_dir: str = _option("data", "execution", NOTHING, "folder of the data sets, into which they are downloaded")

    runs_dir: str = _option("runs", "records", NOTHING, "folder with a directory for every run")
    keep_weights: bool = _option(True, "records", NOTHING, "keep the best weights in the run directory after training")
    wandb: Literal["auto", "online", "offline", "disabled"] = _option(
        "auto",
        "records",
        NOTHING,
        "W&B: online, offline, disabled; auto is online if there is an API key, else offline",
    )
    wandb_extras: Annotated[NameSet, list_of("extra", EXTRAS)] = _option(
        "",
        "records",
        NOTHING,
        "comma list of what W&B gets too: model (the best weights), checkpoint (of a run that returns to its sweep's "
        "queue, so that another machine resumes it), code, alerts (if the run fails or diverges), watch (histograms of "
        "parameters and gradients after each epoch)",
    )
    entity: WandbName = _option("", "records", NOTHING, "W&B entity; empty is your default")
    project: WandbName = _option("image-classifier-study", "records", NOTHING, "W&B project")
    tags: Tags = _option("", "records", NOTHING, "comma list of W&B tags")
    notes: str = _option("", "records", NOTHING, "W&B notes")
    setting: str = _option(
        "", "records", NOTHING, "key=value pairs that a sweep varies together; they override the other options"
    )
