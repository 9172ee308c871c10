"""Every label and sentence that a reader of tables, figures and the report sees.

python -c "from analysis.wording import label; print(label('val/acc'))"
"""

LABELS = {
    "epoch": "Epoch",
    "loss": "Cross-entropy loss",
    "acc": "Accuracy (%)",
    "train/loss": "Training loss",
    "train/acc": "Training accuracy",
    "val/loss": "Validation loss",
    "val/acc": "Validation accuracy",
    "setting": "Setting",
    "n": "Seeds",
    "val_acc": "Best val acc (%)",
    "best_epoch": "at epoch",
    "test_acc": "Test acc (%)",
    "gap_best": "Gap at best (points)",
    "gap_last": "Gap at end (points)",
    "val_loss_last": "Val loss at end",
    "params": "Parameters",
    "param_mb": "Memory (MB)",
    "epoch_seconds": "s/epoch",
    "images_per_second": "Images/s",
    "predicted": "Predicted class",
    "target": "True class",
    "share": "Share of the true class (%)",
}

SENTENCES = {
    "report_title": "Image classifiers compared",
    "source": "{finished} finished runs of {runs} in {source}; made on {date}.",
    "data": "{dataset}: {train:,} training, {val:,} validation and {test:,} test images of {height}×{width} pixels; "
    "channels: {channels}, classes: {classes}.",
    "curves_title": "Learning curves: {name}",
    "confusion_title": "Test images of {dataset}: {setting} (seed {seed})",
    "curves_caption": "Mean over seeds; bands are 95 % intervals of the mean (Student t). Training values are those "
    "met while training, with dropout and augmentation, so they can lie below validation.",
    "curves_caption_single": "One seed per setting, so no band. Training values are those met while training, with "
    "dropout and augmentation, so they can lie below validation.",
    "confusion_caption": "Counts of test images, coloured by their share of the true class. For each setting, the run "
    "with the best validation accuracy.",
    "table_interval": "mean ± half the 95 % interval over seeds (Student t). Settings are ranked by best validation "
    "accuracy. Bold: the interval of its difference from the best contains 0.",
    "table_single": "A single seed tells nothing of the spread between seeds, so no ± is given and nothing is bold; "
    "in brackets the 95 % sampling interval of the test set (Wilson).",
    "table_gap": "Gap: accuracy on training images minus accuracy on validation images, both without dropout or "
    "augmentation. Memory: that of the parameters, 1 MB = 10⁶ bytes.",
    "table_times": "Times leave out the first epoch.",
    "table_no_times": "Times are left empty where runs shared their device with others, or had a single epoch: "
    "train with --per-device 1 to measure them.",
    "mixed": "Runs of {setting} differ in {what}: {values}.",
    "missing": "Without a result: {points}.",
    "other_states": "Counted, but not averaged: {states}.",
    "other_version": "{count} runs were made by an older version of the code, whose results differ, and are left out.",
    "nothing": "None of its runs has finished yet.",
    "table": "Comparison",
    "curves": "Learning curves",
    "confusion": "What the networks confuse",
    "contents": "Contents",
    "files": "Files",
    "problems": "Runs left out",
    "made_with": "Made by {hosts} with {versions}.",
}


def label(key: str) -> str:
    """Return the label of a column, an axis or a parameter."""
    return LABELS.get(key, key.replace("_", " "))


def sentence(key: str, **values: object) -> str:
    """Return a sentence with its values filled in."""
    return SENTENCES[key].format(**values)
