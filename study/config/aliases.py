"""What other projects call our options and their values: for suggestions in errors, and nothing else.

python -c "from study.config.aliases import option; print(option('learning_rate'))"
"""

import re

OPTIONS = {
    "model": "arch architecture encoder feature_backbone net network backbone model_name model_type name",
    "filters": "channels conv_channels num_filters n_filters",
    "hidden": "dense_neurons fc_layer_size fc_size hidden_dim hidden_dims hidden_layer_size hidden_layer_sizes "
    "hidden_size hidden_sizes hidden_units layer_sizes n_hidden num_hidden num_neurons units",
    "dropout": "drop drop_rate dropout_p dropout_prob dropout_p_value dropout_rate p_dropout",
    "activation": "act act_fn activation_fn activation_function nonlinearity",
    "batch_norm": "bn batchnorm use_batch_norm use_batchnorm use_bn",
    "pretrained": "use_pretrained",
    "finetune": "fine_tune freeze freeze_backbone",
    "body_lr_factor": "backbone_lr lr_backbone",
    "dataset": "data data_name dataset_name",
    "train_images": "n_train num_samples num_train subset train_size",
    "labels": "annotations csv csv_file label_csv label_file labels_csv labels_file",
    "group_by": "group group_col group_column groups patient patient_id subject subject_id",
    "val_share": "val_fraction val_pct val_ratio val_size val_split valid_pct validation_split",
    "test_share": "test_fraction test_ratio test_size test_split",
    "class_weights": "class_weight loss_weights weighted_loss",
    "sampling": "balanced_sampling oversample oversampling sampler weighted_sampler weighted_sampling",
    "image_size": "image_shape img_size imgsz input_size resize resolution size",
    "augment": "aug augmentation augmentations data_aug data_augmentation hflip horizontal_flip random_crop "
    "random_flip transforms use_augmentation",
    "crop_share": "crop_padding",
    "rotate_degrees": "degrees random_rotation rotation",
    "perspective_tilt": "random_perspective",
    "color_strength": "color_jitter jitter",
    "noise_deviation": "noise noise_std",
    "cutout_share": "cutout cutout_size random_erasing",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "epochs": "epoch max_epochs n_epochs nepochs num_epochs num_train_epochs",
    "batch_size": "batch batchsize bs mini_batch_size train_batch_size",
    "seed": "manual_seed random_seed random_state rng_seed",
    "early_stopping": "early_stop early_stopping_patience es_patience patience",
    "label_smoothing": "label_smooth ls ls_eps smoothing",
    "flip_test": "tta",
    "optimizer": "opt optim optimizer_name optimizer_type",
    "lr": "base_learning_rate base_lr eta init_learning_rate init_lr initial_learning_rate initial_lr learn_rate "
    "learning_rate learning_rate_init learningrate lr_init lrate max_learning_rate max_lr",
    "weight_decay": "l2 l2_coeff l2_lambda l2_penalty l2_reg reg wd weightdecay",
    "clip_norm": "clip clip_grad grad_clip gradient_clip gradient_clip_norm gradient_clip_val max_grad_norm max_norm",
    "ema_decay": "ema ema_alpha",
    "schedule": "lr_schedule lr_scheduler one_cycle sched scheduler scheduler_name",
    "step_epochs": "lr_step lr_step_size step_size",
    "step_factor": "gamma lr_gamma",
    "warmup_epochs": "warmup",
    "poly_power": "power",
    "cycles": "cycle_limit lr_cycle_limit num_cycles",
    "precision": "amp bf16 dtype fp16 half mixed_precision use_amp",
    "device": "device_id gpu gpu_id gpu_ids gpuid gpus",
    "runs_dir": "log_dir out_dir output_dir save_dir",
    "data_dir": "data_path data_root root",
    "entity": "wandb_entity",
    "project": "project_name wandb_project",
    "wandb": "wandb_mode",
}
"""Other names of each option."""

_WITH_PART = {"model": "model", "net": "model", "optimizer": "optimizer", "optim": "optimizer", "data": "dataset",
              "dataset": "dataset", "scheduler": "schedule"}  # fmt: skip
"""The options that the name of a part means, as in `optimizer.name`."""

NOTHING = "no option here does that"

WITHOUT = {
    "it follows from the data": "clf_n_classes n_classes nb_classes nclass nclasses num_class num_classes num_labels",
    "hidden and filters are lists with a width for each layer, such as 64,64": "depth hidden_layers layers n_layers "
    "num_blocks num_hidden_layers num_layers",
    "--dry-run reads the data, prints what was found, and trains nothing": "check check_data test_run validate "
    "validate_data",
    "images lie on the device, so there are no workers": "n_workers num_workers workers",
    "weight_decay, schedule and ema_decay have names of their own": "decay lr_decay",
    NOTHING: "beta1 beta2 betas crop_size encoder_dim "
    "fold k kernel kernel_size keep_prob mode output_activation p patch_size task train_dir validation wandb_run "
    "weight_init weights_init",
}
"""Why there is no option of some names, which resemble those of options."""

_TIMM_OPTIMIZERS = (
    "adabelief adadelta adafactor adagrad adamax adamp adan adopt lamb lars lion madgrad muon nadam nadamw novograd "
    "radam rmsprop sgdp"
)

VALUES = {
    "optimizer": {
        "sgd": "momentum nag nesterov sgd_momentum", "adamw": "adam_w",
        **{f"timm:{name}": name for name in _TIMM_OPTIMIZERS.split()},
    },
    "schedule": {
        "cosine": "cos cosine_annealing cosineannealing cosineannealinglr warmup_cosine",
        "step": "multistep multisteplr steplr exponential exponentiallr exp timm:step timm:multistep",
        "onecycle": "one_cycle onecyclelr",
        "none": "constant fixed timm:constant timm:none",
        "timm:plateau": "plateau reducelronplateau reduce_lr_on_plateau reduce_on_plateau",
        "timm:poly": "poly polynomial polynomiallr linear linearlr",
        "timm:cosine": "cosineannealingwarmrestarts cosine_restarts sgdr cyclic cycliclr",
        "timm:tanh": "tanh",
    },
    "augmentation": {
        "trivialaugment": "ta ta_wide trivial trivial_augment trivialaugmentwide",
        "randaugment": "ra rand randaug rand_augment",
    },
    "method": {
        "bayes": "bayesian bayes_opt bayesian_optimization gp hyperopt optuna smac tpe",
        "grid": "full_factorial gridsearch grid_search",
        "random": "randomsearch random_search",
    },
    "activation": {"silu": "swish", "leaky_relu": "leakyrelu lrelu"},
    "data set": {
        "cifar10": "cifar cifar_10", "cifar100": "cifar_100", "pets": "oxford_pets oxfordiiitpet",
        "fashion-mnist": "fashion fashionmnist fmnist",
    },
}  # fmt: skip
"""Other names of values, by what the values are."""

OTHERS = ("asgd", "lenet", "emnist", "kmnist", "idigits")
"""Values that resemble one of ours but mean something else."""


def option(name: str) -> str | None:
    """Return the option that other projects call by a name, or None; of an unknown dotted name, the last part."""
    *outer, last = re.split(r"[./]", _plain(name))
    if last in ("name", "type") and outer:
        return _WITH_PART.get(outer[-1])
    known = next((known for known, others in OPTIONS.items() if last in (known, *others.split())), None)
    return known or (last if outer else None)


def without_option(name: str) -> str | None:
    """Return why there is no option of a name, or None if none is known."""
    last = re.split(r"[./]", _plain(name))[-1]
    return next((reason for reason, names in WITHOUT.items() if last in names.split()), None)


def value(kind: str, name: str) -> str | None:
    """Return the value that other projects call by a name, or None."""
    return next((known for known, others in VALUES.get(kind, {}).items() if _plain(name) in others.split()), None)


def is_name(text: str) -> bool:
    """Return whether a text may be the name of something in a library."""
    return bool(re.fullmatch(r"\w[\w.-]*", text))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
