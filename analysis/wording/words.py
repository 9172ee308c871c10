"""Words that are looked up by what they name: options and their values, columns and axes, states, layers.

    python -c "from analysis.wording.words import HEADINGS; print(*HEADINGS.values(), sep='\\n')"

Each is marked for the catalogue and translated where it is shown, by `text`. A theme has its own words with its code.
"""

from analysis.wording.catalogue import mark

HEADINGS = {
    # axes
    "loss": mark("Cross-entropy loss"),
    "acc": mark("Accuracy (%)"),
    "train/loss": mark("Training loss"),
    "train/acc": mark("Training accuracy"),
    "val/loss": mark("Validation loss"),
    "val/acc": mark("Validation accuracy"),
    "test/acc": mark("Test accuracy"),
    # settings and data
    "setting": mark("Setting"),
    "n": mark("Seeds"),
    "dataset": mark("Data set"),
    "model": mark("Network"),
    "images": mark("Images"),
    # the comparison
    "score": mark("Best val acc (%)"),
    "best_epoch": mark("at epoch"),
    "test_score": mark("Test acc (%)"),
    "test_macro_f1": mark("Test macro F1 (%)"),
    "test_balanced_acc": mark("Test balanced acc (%)"),
    "below": mark("Below the best (points)"),
    "below_images": mark("± images (points)"),
    "p_holm": mark("p (Holm)"),
    "p_test": mark("p test (Holm)"),
    "p_mcnemar": mark("p (McNemar)"),
    # the effect of options
    "option": mark("Option"),
    "value": mark("Value"),
    "settings": mark("Combinations"),
    "score_change": mark("Change (points)"),
    "gap_last_change": mark("Change of gap (points)"),
    # training
    "train_acc_best": mark("Train acc at best epoch (%)"),
    "gap_best": mark("Gap at best epoch (points)"),
    "gap_last": mark("Gap at end (points)"),
    "loss_gap_best": mark("Loss gap at best epoch"),
    "loss_gap_last": mark("Loss gap at end"),
    "val_loss_min": mark("Lowest val loss"),
    "val_loss_min_epoch": mark("at epoch"),
    "val_loss_last": mark("Val loss at end"),
    "epochs": mark("Epochs"),
    "acc_slope": mark("Val acc trend (points/epoch)"),
    "gain": mark("From twice the epochs (points)"),
    "loss_slope": mark("Val loss trend (per epoch)"),
    "verdict": mark("More epochs?"),
    # speed
    "iterations": mark("Iterations/epoch"),
    "iterations_all": mark("Iterations in all"),
    # costs
    "params": mark("Parameters"),
    "param_mb": mark("Weights (MB)"),
    "mflops": mark("MFLOPs/image"),
    "images_per_second": mark("Images/s"),
    "epoch_seconds": mark("s/epoch"),
    "extra_time": mark("Extra time (%)"),
    "p_time": mark("p time (Holm)"),
    "train_seconds": mark("Training (s)"),
    "peak_mb": mark("Peak memory (MB)"),
    "energy_wh": mark("Energy (Wh)"),
    "power_w": mark("Mean power (W)"),
    # classes and confusions
    "class": mark("Class"),
    "accuracy": mark("Accuracy (%)"),
    "precision": mark("Precision (%)"),
    "difference": mark("Difference (points)"),
    "predicted": mark("Predicted class"),
    "target": mark("True class"),
    "share": mark("Share of the true class (%)"),
    "back": mark("The other way round"),
    "back_share": mark("Share of that class (%)"),
    # transfer and layers
    "way": mark("Way"),
    "score_last": mark("Val acc at the last epoch (%)"),
    "layer": mark("Layer"),
    "numbers": mark("Features"),
    "knn": mark("k-NN accuracy (%)"),
    "probe": mark("Linear probe (%)"),
    "silhouette": mark("Silhouette"),
    "params_share": mark("Of the whole (%)"),
    # anatomy
    "place": mark("Layer"),
    "kind": mark("Kind"),
    "derivation": mark("How counted"),
    "output": mark("Output"),
    "weights": mark("Weights"),
    "biases": mark("Biases"),
    "param_bits": mark("Memory (bits)"),
    "activation_mb": mark("Activations (MB)"),
    "flops": mark("FLOPs"),
    "weight_layers": mark("Weight layers"),
    "params_millions": mark("Millions"),
    "dense_share": mark("Fully connected (%)"),
}
"""Names of columns of tables and of axes of figures, by the column or metric that they show."""

OPTIONS = {
    "seed": mark("seed"),
    "filters": mark("filters"),
    "hidden": mark("hidden"),
    "activation": mark("activation"),
    "batch_norm": mark("batch norm"),
    "softmax_output": mark("softmax output"),
    "stem": mark("stem"),
    "aux_weight": mark("aux weight"),
    "dropout": mark("dropout"),
    "pretrained": mark("pretrained"),
    "weights": mark("weights"),
    "weights_digest": mark("weights digest"),
    "finetune": mark("finetune"),
    "body_lr_factor": mark("body lr factor"),
    "batch_statistics": mark("batch statistics"),
    "pairs": mark("settings"),
    "model": mark("network"),
    "dataset": mark("dataset"),
    "classes": mark("classes"),
    "train_images": mark("train images"),
    "image_size": mark("image size"),
    "split_seed": mark("split seed"),
    "labels": mark("labels"),
    "group_by": mark("group by"),
    "val_share": mark("val share"),
    "test_share": mark("test share"),
    "augment": mark("augment"),
    "alternating_flip": mark("alternating flip"),
    "crop_share": mark("crop share"),
    "rotate_degrees": mark("rotate degrees"),
    "perspective_tilt": mark("perspective tilt"),
    "randaugment_magnitude": mark("randaugment magnitude"),
    "color_strength": mark("color strength"),
    "noise_deviation": mark("noise deviation"),
    "cutout_share": mark("cutout share"),
    "mixup_alpha": mark("mixup alpha"),
    "cutmix_alpha": mark("cutmix alpha"),
    "epochs": mark("epochs"),
    "batch_size": mark("batch size"),
    "label_smoothing": mark("label smoothing"),
    "early_stopping": mark("early stopping"),
    "metric": mark("metric"),
    "early_stopping_metric": mark("early stopping metric"),
    "flip_test": mark("flip test"),
    "class_weights": mark("class weights"),
    "sampling": mark("sampling"),
    "optimizer": mark("optimizer"),
    "lr": mark("lr"),
    "momentum": mark("momentum"),
    "nesterov": mark("nesterov"),
    "weight_decay": mark("weight decay"),
    "decay_norm_bias": mark("decay norm bias"),
    "clip_norm": mark("clip norm"),
    "ema_decay": mark("ema decay"),
    "schedule": mark("schedule"),
    "warmup_epochs": mark("warmup epochs"),
    "step_epochs": mark("step epochs"),
    "step_factor": mark("step factor"),
    "poly_power": mark("poly power"),
    "cycles": mark("cycles"),
}
"""Names of options, as settings are named by them."""

NO_VALUE = {"all": mark("all"), "original": mark("original"), "none": mark("none")}
"""What stands for an option without a value."""

PHRASES = {
    ("augment", "none"): mark("augment none"),
    ("schedule", "none"): mark("schedule none"),
    ("schedule", "step"): mark("schedule step"),
    ("schedule", "cosine"): mark("schedule cosine"),
    ("schedule", "onecycle"): mark("schedule onecycle"),
    ("schedule", "timm:plateau"): mark("schedule timm:plateau"),
    ("schedule", "timm:poly"): mark("schedule timm:poly"),
    ("schedule", "timm:cosine"): mark("schedule timm:cosine"),
    ("schedule", "timm:tanh"): mark("schedule timm:tanh"),
    ("pretrained", "True"): mark("pretrained True"),
    ("pretrained", "False"): mark("pretrained False"),
    ("finetune", "all"): mark("finetune all"),
    ("finetune", "head"): mark("finetune head"),
    ("finetune", "svm"): mark("finetune svm"),
    ("image_size", "none"): mark("image size original"),
    ("class_weights", "none"): mark("class weights none"),
    ("class_weights", "balanced"): mark("class weights balanced"),
    ("sampling", "none"): mark("sampling none"),
    ("sampling", "balanced"): mark("sampling balanced"),
}
"""Options with a value, as text, that have words of their own in Spanish."""

AUGMENTATIONS = {
    "flip": mark("flip"),
    "crop": mark("crop"),
    "rotate": mark("rotate"),
    "perspective": mark("perspective"),
    "trivialaugment": mark("trivialaugment"),
    "randaugment": mark("randaugment"),
    "color": mark("color"),
    "noise": mark("noise"),
    "cutout": mark("cutout"),
    "mixup": mark("mixup"),
    "cutmix": mark("cutmix"),
}
"""Names of augmentations."""

STATES = {
    "finished": mark("finished"),
    "diverged": mark("diverged"),
    "stopped": mark("stopped"),
    "failed": mark("failed"),
    "interrupted": mark("interrupted"),
    "running": mark("running"),
    "crashed": mark("crashed"),
    "killed": mark("killed"),
    "queued": mark("queued"),
    "missing": mark("not started"),
}
"""States of several runs, and of points without a run."""

RUN_STATES = {
    "diverged": mark("diverged", context="of one run"),
    "failed": mark("failed", context="of one run"),
    "interrupted": mark("interrupted", context="of one run"),
    "running": mark("running", context="of one run"),
    "crashed": mark("crashed", context="of one run"),
    "killed": mark("killed", context="of one run"),
    "queued": mark("queued", context="of one run"),
}
"""States of one run, with their context in the catalogue: in Spanish they differ from those of several."""

LAYERS = {
    "intermediate": mark("last block of features"),
    "penultimate": mark("layer before the last"),
    "logits": mark("logits"),
    "whole": mark("the whole network"),
}
"""Layers whose features are looked at, and the whole network."""
