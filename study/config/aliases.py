"""What other projects call the options of a run: for suggestions in errors, and nothing else.

python -c "from study.config.aliases import option; print(option('learning_rate'))"
"""

OPTIONS = {
    "model": "arch architecture net network backbone model_name model_type",
    "filters": "channels conv_channels num_filters n_filters",
    "hidden": "hidden_dim hidden_dims hidden_layers hidden_size hidden_units fc_layer_size n_hidden num_hidden units",
    "dropout": "drop drop_rate dropout_prob dropout_rate p_dropout",
    "activation": "act act_fn activation_fn activation_function nonlinearity",
    "batch_norm": "bn batchnorm use_batch_norm use_batchnorm use_bn",
    "pretrained": "use_pretrained",
    "finetune": "fine_tune freeze freeze_backbone",
    "dataset": "data data_name dataset_name",
    "train_images": "n_train num_train train_size",
    "image_size": "img_size input_size resolution",
    "augment": "aug augmentation augmentations data_augmentation transforms",
    "epochs": "epoch max_epochs n_epochs nepochs num_epochs",
    "batch_size": "batch batchsize bs mini_batch_size train_batch_size",
    "seed": "manual_seed random_seed random_state rng_seed",
    "early_stopping": "early_stop patience",
    "optimizer": "opt optim optimizer_name optimizer_type",
    "lr": "base_lr eta init_lr initial_lr learn_rate learning_rate learningrate max_lr",
    "weight_decay": "l2 l2_reg wd weightdecay",
    "label_smoothing": "label_smooth smoothing",
    "clip_norm": "clip clip_grad grad_clip gradient_clip gradient_clip_val max_grad_norm",
    "ema_decay": "ema",
    "schedule": "lr_schedule lr_scheduler sched scheduler",
    "step_epochs": "lr_step_size step_size",
    "step_factor": "gamma lr_gamma",
    "warmup_epochs": "warmup",
    "precision": "amp fp16 half mixed_precision",
    "device": "device_id gpu gpus",
    "runs_dir": "log_dir output_dir save_dir",
    "data_dir": "data_path data_root root",
    "project": "project_name wandb_project",
    "wandb": "wandb_mode",
}
"""Other names of each option."""


def option(name: str) -> str | None:
    """Return the option that other projects call by a name, also the last part of a dotted one, or None."""
    last = name.lower().replace("-", "_").rpartition(".")[2]
    return next((known for known, others in OPTIONS.items() if last in (known, *others.split())), None)
