"""Trains one network: epochs, the best weights on validation, checkpoints, and the evaluation at the end.

    trainer = Trainer(config, data, device)
    trainer.fit(on_epoch=tracker.log)
    summary, arrays = trainer.evaluate()

Nothing inside an epoch waits for the device: losses are summed there and read once, at its end.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study import models
from study.config import Config
from study.data.augment import alternating_flips, augment
from study.data.dataset import Data, memory_format
from study.models import pretrained
from study.models.pretrained import Pretrained
from study.system import devices
from study.system import files as cache
from study.system.errors import is_out_of_memory
from study.training import evaluation, optim, step
from study.training.evaluation import Evaluator

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHECKPOINT_SECONDS = 30.0


@dataclass
class Progress:
    """Where a training stands: epochs done, and what has been summed up of the one that runs."""

    epoch: int = 0
    batch: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(2))
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0
    energy_joules: float = 0.0
    iterations: int = 0
    improved_epoch: int = 0
    improved_value: float = -math.inf
    lr: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One network, its optimizer, its data, and where its training stands.

    A last batch of a single image, which batch norm cannot take, is left out of its epoch.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        device: torch.device,
        precision: str | None = None,
        say: Callable[[str], None] = lambda text: None,
        given: Pretrained | None = None,
    ):
        """Build all that a training needs; `precision` is that of an earlier start, which stays."""
        self.config, self.data, self.device = config, data, device
        torch.manual_seed(_stream(config.seed, "weights"))
        self.model = models.create(config, data.image_shape, len(data.classes))
        heads = pretrained.begin(self.model, given, config) if given else ()
        self.model.to(device, memory_format=memory_format(device))
        self.sizes = evaluation.measure(self.model, data, config.model, say)  # what cannot be measured is known now
        self.augment_generator = torch.Generator(device)
        self.mirrored = torch.zeros_like(data.train.labels, dtype=torch.bool) if config.alternating_flip else None
        leftover = len(data.train) % config.batch_size == 1 and len(data.train) > 1
        self.images = len(data.train) - leftover
        self.batches = math.ceil(self.images / config.batch_size)
        self.optimizer = optim.create(config, self.model, heads)
        self.schedule = optim.schedule(config, self.batches)
        self.average = optim.MovingAverage(self.model, config.ema_decay) if config.ema_decay is not None else None
        self.precision = PRECISIONS.get(precision or config.precision) or self._faster_precision()
        evaluated = self.model if self.average is None else self.average.module
        self.evaluator = Evaluator(evaluated, data, device, self.precision, config.batch_size, config.flip_test)
        self.step = step.create(
            self.model, self.optimizer, self.average, config.label_smoothing, config.clip_norm,
            config.aux_weight or 0.0, self.precision, config.batch_size if config.compile else None,
        )  # fmt: skip
        self.train_batch = self._captured(say) if device.type == "cuda" and config.cuda_graph else self._train_batch
        self.progress = Progress(sums=torch.zeros(2, device=device))
        self.energy_read = devices.energy_joules(device)
        devices.forget_peak(device)  # of what was tried, and after each epoch that of the validation
        self.best_weights: dict[str, Tensor] = {}

    def _faster_precision(self) -> torch.dtype:
        """Try on one batch, without augmentation, in which precision training is faster here."""
        batch = self.data.train.take(slice(self.config.batch_size))
        return step.faster_precision(self.model, self.data.prepared(batch), batch.labels)

    def _captured(self, say: Callable[[str], None]) -> Callable[[Tensor], None]:
        """Let whole batches be launched as one CUDA graph, where all that they need is on the device."""
        on_host = self.data.train.images.device.type != "cuda"
        if on_host or self.config.optimizer.startswith("timm:"):
            why = "the images are on the host" if on_host else "timm's optimizers cannot be captured"
            say(f"without CUDA graphs: {why}")
            return self._train_batch
        optim.keep_learning_rate_on(self.optimizer, self.device)
        return step.Captured(self._train_batch, self.config.batch_size, self.device, [self.augment_generator], say)

    @property
    def place(self) -> str:
        """Say where the training stands."""
        at = self.progress
        within = f"in epoch {at.epoch + 1}, after {at.batch:,} of {self.batches:,} batches"
        return within if at.batch else f"after epoch {at.epoch}"

    def fit(
        self,
        on_epoch: Callable[[dict[str, float]], bool | None],
        on_batch: Callable[[int, int], None] = lambda batch, batches: None,
        checkpoint: Callable[["Trainer"], None] = lambda trainer: None,
        must_stop: Callable[[], bool] = lambda: False,
    ) -> str:
        """Train to the last epoch and return `finished`, or before it `diverged`, `stopped` (by early stopping or by
        `on_epoch`) or, when `must_stop` says so, `interrupted`.

        `on_epoch` gets the row of every epoch, and may return True to stop there; `on_batch` gets the batches done and
        their number in the epoch; `checkpoint` is called about every 30 seconds, more rarely where that takes long, and
        before an interruption.
        """
        due = time.monotonic() + CHECKPOINT_SECONDS
        while self.progress.epoch < self.config.epochs:
            if self._is_to_stop():
                return "stopped"
            for batch in self.train_epoch():
                on_batch(batch, self.batches)
                if must_stop():
                    checkpoint(self)
                    return "interrupted"
                if time.monotonic() > due:
                    started = time.monotonic()
                    checkpoint(self)
                    due = time.monotonic() + max(CHECKPOINT_SECONDS, 20 * (time.monotonic() - started))
            row = self._end_epoch()
            gives_up = on_epoch(row)
            if not np.isfinite([row["train/loss"], row["val/loss"]]).all():
                return "diverged"
            if gives_up:
                return "stopped"
        return "finished"

    def _is_to_stop(self) -> bool:
        """Tell whether early stopping has waited long enough for a better epoch."""
        patience, at = self.config.early_stopping, self.progress
        return patience is not None and at.epoch - at.improved_epoch >= patience

    def train_epoch(self):
        """Train the rest of an epoch, yielding after each batch the number of batches done."""
        at, config, data = self.progress, self.config, self.data
        order = torch.randperm(
            len(data.train), generator=torch.Generator().manual_seed(_stream(config.seed, at.epoch, "order"))
        )
        if at.batch == 0:
            torch.manual_seed(_stream(config.seed, at.epoch, "dropout"))
            self.augment_generator.manual_seed(_stream(config.seed, at.epoch, "augment"))
        if self.mirrored is not None:
            drawn = torch.Generator().manual_seed(_stream(config.seed, "mirrored"))
            self.mirrored.copy_(alternating_flips(len(self.mirrored), at.epoch, drawn))
        pretrained.train_mode(self.model)
        started, before = time.perf_counter(), at.epoch_seconds
        order = order[: self.images].to(data.train.images.device)
        for start in range(at.batch * config.batch_size, self.images, config.batch_size):
            factor = self.schedule(at.iterations)
            at.lr = config.lr * factor
            optim.set_learning_rate(self.optimizer, factor)
            self.train_batch(order[start : start + config.batch_size])
            at.batch += 1
            at.iterations += 1
            at.epoch_seconds = before + time.perf_counter() - started
            yield at.batch

    def _train_batch(self, indices: Tensor) -> None:
        """Train on the images with these indices, and add to the epoch's sums of losses and correct predictions."""
        batch = self.data.train.take(indices)
        mirrored = None if self.mirrored is None else self.mirrored[indices.to(self.device)]
        images = augment(self.data.resize(batch.images), self.config.augmentations, self.augment_generator, mirrored)
        loss, correct = self.step(self.data.normalise(images), batch.labels)
        self.progress.sums += torch.stack([loss * len(batch), correct])

    def _end_epoch(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and return the epoch's row."""
        at, images = self.progress, self.images
        waited = time.perf_counter()
        train_loss, train_correct = at.sums.tolist()
        train_seconds = at.epoch_seconds + time.perf_counter() - waited
        # a peak so far: the memory of a CUDA graph counts only while it is captured
        peak = max([devices.peak_megabytes(self.device), *(row["memory/peak_mb"] for row in at.history[-1:])])
        validated = time.perf_counter()
        val_loss, val_acc = self.evaluator.score(self.data.val)
        at.epoch += 1
        row = {
            "epoch": at.epoch,
            "train/loss": train_loss / images,
            "train/acc": train_correct / images,
            "val/loss": val_loss,
            "val/acc": val_acc,
            "lr": at.lr,
            "time/epoch": train_seconds + time.perf_counter() - validated,
            "time/images_per_second": images / train_seconds,
            "memory/peak_mb": peak,
        }
        at.train_seconds += row["time/epoch"]
        self._count_energy()
        at.batch, at.epoch_seconds = 0, 0.0
        at.sums.zero_()
        at.history.append(row)
        if np.isfinite(val_loss) and _is_better(row, at.best):
            at.best = row
            self.best_weights = {name: value.clone() for name, value in self.evaluator.model.state_dict().items()}
        watched = -val_loss if self.config.early_stopping_metric == "val/loss" else val_acc
        if watched > at.improved_value:
            at.improved_epoch, at.improved_value = at.epoch, watched
        devices.forget_peak(self.device)
        return row

    def evaluate(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Summarise the training and test the best weights, once; return summary.json's values and evaluation.npz's.

        `train` accuracies are those of the network as it predicts, without dropout or augmentation, on as many
        training images as there are validation images: the gap to validation is then no effect of either.
        """
        at, data = self.progress, self.data
        sample, chosen = data.train[evaluation.train_sample(data)], evaluation.feature_sample(data)
        summary = self.sizes | {"iterations": at.iterations, "train_seconds": at.train_seconds}
        summary |= {} if math.isnan(at.energy_joules) else {"energy_joules": at.energy_joules}
        summary |= evaluation.summary_of("last", at.history[-1], self.evaluator.score(sample))
        last = {name: value.clone() for name, value in self.evaluator.model.state_dict().items()}
        try:
            self.evaluator.model.load_state_dict(self.best_weights)
            summary |= evaluation.summary_of("best", at.best, self.evaluator.score(sample))
            logits = self.evaluator.logits(data.test)
            summary["test/loss"], summary["test/acc"] = evaluation.score(logits, data.test.labels)
            return summary, evaluation.arrays(data, logits, chosen, self.evaluator.activations(data.val[chosen]))
        finally:
            self.evaluator.model.load_state_dict(last)

    def _count_energy(self) -> None:
        """Add what the device has used since it was last asked."""
        before, self.energy_read = self.energy_read, devices.energy_joules(self.device)
        self.progress.energy_joules += self.energy_read - before

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a training needs to go on exactly where it stands."""
        self._count_energy()
        return {
            "progress": vars(self.progress),
            "model": self.model.state_dict(),
            "best": self.best_weights,
            "average": self.average and self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "augment_generator": self.augment_generator.get_state(),
            "device": self.device.type,
        } | devices.generators(self.device)

    def load(self, path: Path) -> bool:
        """Go on from a file that holds a `state_dict`; tell whether it could be read and is this training's.

        It is read into the host's memory, so that a device that is short of memory does not look like a broken file.
        Where it is another's, what there is of this trainer is no longer to be used.
        """
        state = cache.read(path)
        try:
            if state is not None:
                self._set(state)
            return state is not None
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            return False

    def _set(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        optim.load(self.optimizer, state["optimizer"])
        if isinstance(self.train_batch, step.Captured):
            optim.keep_learning_rate_on(self.optimizer, self.device)
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
            self.average.updates.fill_(state["progress"]["iterations"])
        self.best_weights = {name: value.to(self.device) for name, value in state["best"].items()}
        self.progress = Progress(**state["progress"] | {"sums": state["progress"]["sums"].to(self.device)})
        if state["device"] == self.device.type:  # another kind of device has generators of its own
            self.augment_generator.set_state(state["augment_generator"])
            devices.set_generators(self.device, state)


def _is_better(row: dict[str, float], best: dict[str, float]) -> bool:
    """Tell whether an epoch is better than the best so far: by its validation accuracy, of equal ones by its loss."""
    return not best or (row["val/acc"], -row["val/loss"]) > (best["val/acc"], -best["val/loss"])


def _stream(*keys: Any) -> int:
    """Derive a random seed for one purpose from the run's seed, the epoch and the purpose's name."""
    return int.from_bytes(hashlib.sha256(repr(keys).encode()).digest()[:8]) >> 1
