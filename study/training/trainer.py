"""Train one network: epochs, best weights by validation, checkpoints, and the final evaluation.

    trainer = Trainer(config, data, device)
    trainer.fit(on_epoch=tracker.log)
    summary, arrays = trainer.evaluate()

Nothing inside an epoch waits for the device: losses are summed on the device and read at the end of the epoch.
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
from study.data.augment import alternating_flips, augment, mix, refuse_unknown
from study.data.dataset import Data, memory_format
from study.models import pretrained
from study.models.pretrained import Pretrained
from study.system import devices
from study.system import files as cache
from study.system.errors import is_out_of_memory
from study.system.progress import Say
from study.training import evaluation, explain, optim, step
from study.training.evaluation import Evaluator

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHECKPOINT_SECONDS = 30.0


@dataclass
class Progress:
    """State of a training: finished epochs, finished batches of the current epoch, and sums over them."""

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
    """Trains one network with its optimizer and its data.

    A last batch of a single image, which batch norm does not accept, is left out of every epoch.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        device: torch.device,
        precision: str | None = None,
        say: Say = lambda text: None,
        pretraining: Pretrained | None = None,
    ):
        """Build everything that a training needs; `precision` overrides the config's when a run resumes."""
        self.config = config
        self.data = data
        self.device = device
        self.say = say

        # Build the network
        refuse_unknown(config.augmentations)
        torch.manual_seed(stream_seed(config.seed, "weights"))
        self.model = models.create(config, data.image_shape, len(data.classes))
        heads = pretrained.begin(self.model, pretraining, config) if pretraining else ()
        self.model.to(device, memory_format=memory_format(device))
        self.sizes = evaluation.measure(self.model, data, config.model, say)

        # Divide the images into batches
        self.augment_generator = torch.Generator(device)
        self.mirrored = torch.zeros_like(data.train.labels, dtype=torch.bool) if config.alternating_flip else None
        leftover = len(data.train) % config.batch_size == 1 and len(data.train) > 1
        self.images = len(data.train) - leftover
        self.batches = math.ceil(self.images / config.batch_size)

        # Build the optimizer and the training step
        self.optimizer = optim.create(config, self.model, heads)
        self.average = optim.MovingAverage(self.model, config.ema_decay) if config.ema_decay is not None else None
        self.precision = PRECISIONS.get(precision or config.precision) or self._faster_precision()
        evaluated = self.model if self.average is None else self.average.module
        self.evaluator = Evaluator(evaluated, data, device, self.precision, config.batch_size, config.flip_test)
        self.step = step.create(
            self.model,
            self.optimizer,
            self.average,
            config.label_smoothing,
            config.clip_norm,
            config.aux_weight or 0.0,
            self.precision,
            config.batch_size if config.compile else None,
            data.balance() if config.class_weights else None,
        )
        self.train_batch = self._captured(say) if device.type == "cuda" and config.cuda_graph else self._train_batch

        # Start counting epochs, energy and memory
        self.logged = evaluation.logged(config, data)
        self.progress = Progress(sums=torch.zeros(2, device=device))
        self.energy_read = devices.energy_joules(device)
        devices.forget_peak(device)  # without the trials; after each epoch, without the validation
        self.best_weights: dict[str, Tensor] = {}

    def _faster_precision(self) -> torch.dtype:
        """Return the precision in which training is faster, tried on one batch without augmentation."""
        batch = self.data.train.take(slice(self.config.batch_size))
        return step.faster_precision(self.model, self.data.prepared(batch), batch.labels)

    def _captured(self, say: Say) -> Callable[[Tensor], None]:
        """Return a function that trains a batch as one CUDA graph, or `_train_batch` if that is not possible."""
        name = self.config.optimizer
        cause = ""
        if self.data.train.images.device.type != "cuda":
            cause = "the images are on the host"
        elif name.startswith("timm:") and not step.can_be_captured(optim.timm_builder(self.config), self.device):
            cause = f"{name} cannot be captured"
        if cause:
            say(f"without CUDA graphs: {cause}")
            return self._train_batch
        optim.prepare_capture(self.optimizer, self.device)
        return step.Captured(self._train_batch, self.config.batch_size, self.device, [self.augment_generator], say)

    @property
    def place(self) -> str:
        """Return the position of the training as text, such as `after epoch 3`."""
        progress = self.progress
        if not progress.batch:
            return f"after epoch {progress.epoch}"
        return f"in epoch {progress.epoch + 1}, after {progress.batch:,} of {self.batches:,} batches"

    def fit(
        self,
        on_epoch: Callable[[dict[str, float]], bool | None],
        on_batch: Callable[[int, int], None] = lambda batch, batches: None,
        checkpoint: Callable[["Trainer"], None] = lambda trainer: None,
        must_stop: Callable[[], bool] = lambda: False,
    ) -> str:
        """Train to the last epoch, and return `finished`, `diverged`, `stopped` or `interrupted`.

        `on_epoch` gets the row of every epoch, and stops the training by returning True, as early stopping does.
        `on_batch` gets the number of finished batches and of all batches of the epoch. `must_stop` interrupts the
        training after a batch by returning True. `checkpoint` is called about every 30 seconds, less often if that
        takes long, and before an interruption.
        """
        due = time.monotonic() + CHECKPOINT_SECONDS
        while self.progress.epoch < self.config.epochs:
            # Train an epoch, with checkpoints
            if self._must_stop_early():
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

            # End it, and stop if it diverged or if the caller wants to
            row = self._end_epoch()
            gives_up = on_epoch(row)
            if not np.isfinite([row["train/loss"], row["val/loss"]]).all():
                return "diverged"
            if gives_up:
                return "stopped"
        return "finished"

    def _must_stop_early(self) -> bool:
        """Return whether the last `early_stopping` epochs brought no improvement."""
        patience = self.config.early_stopping
        return patience is not None and self.progress.epoch - self.progress.improved_epoch >= patience

    def train_epoch(self):
        """Train the rest of an epoch; yield the number of finished batches after each batch."""
        progress = self.progress
        config = self.config
        data = self.data

        # Draw the order of the images, the same when a run resumes within an epoch
        generator = torch.Generator().manual_seed(stream_seed(config.seed, progress.epoch, "order"))
        if config.sampling:
            weights = data.balance()[data.train.labels].double().cpu()
            order = torch.multinomial(weights, len(data.train), replacement=True, generator=generator)
        else:
            order = torch.randperm(len(data.train), generator=generator)

        # Seed dropout and augmentation
        if progress.batch == 0:
            torch.manual_seed(stream_seed(config.seed, progress.epoch, "dropout"))
            self.augment_generator.manual_seed(stream_seed(config.seed, progress.epoch, "augment"))
        if self.mirrored is not None:
            generator = torch.Generator().manual_seed(stream_seed(config.seed, "mirrored"))
            self.mirrored.copy_(alternating_flips(len(self.mirrored), progress.epoch, generator))

        # Train batch by batch
        pretrained.train_mode(self.model)
        schedule = optim.schedule(config, self.batches, progress.history)
        started = time.perf_counter()
        seconds_before = progress.epoch_seconds
        order = order[: self.images].to(data.train.images.device)
        for start in range(progress.batch * config.batch_size, self.images, config.batch_size):
            factor = schedule(progress.iterations)
            progress.lr = config.lr * factor
            optim.set_learning_rate(self.optimizer, factor)
            self.train_batch(order[start : start + config.batch_size])
            progress.batch += 1
            progress.iterations += 1
            progress.epoch_seconds = seconds_before + time.perf_counter() - started
            yield progress.batch

    def _train_batch(self, indices: Tensor) -> None:
        """Train on the images with these indices, and add the loss and the correct predictions to the epoch's sums."""
        batch = self.data.train.take(indices)
        mirrored = None if self.mirrored is None else self.mirrored[indices.to(self.device)]
        strengths = self.config.augmentations
        images = augment(self.data.resize(batch.images), strengths, self.augment_generator, mirrored)
        images, labels = mix(images, batch.labels, len(self.data.classes), strengths, self.augment_generator)
        loss, correct = self.step(self.data.normalise(images), labels)
        self.progress.sums += torch.stack([loss * len(batch), correct])

    def _end_epoch(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and return the epoch's row."""
        progress = self.progress
        images = self.images

        # Read the sums, which waits for the device
        waited = time.perf_counter()
        train_loss, train_correct = progress.sums.tolist()
        train_seconds = progress.epoch_seconds + time.perf_counter() - waited

        # Take the peak of all epochs: the memory of a CUDA graph counts only while it is captured
        peak = max([devices.peak_megabytes(self.device), *(row["memory/peak_mb"] for row in progress.history[-1:])])

        # Validate
        validated = time.perf_counter()
        logits = self.evaluator.logits(self.data.val)
        validation = evaluation.scores("val", logits, self.data.val.labels, self.logged)
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "train/loss": train_loss / images,
            "train/acc": train_correct / images,
            **validation,
            "lr": progress.lr,
            "time/epoch": train_seconds + time.perf_counter() - validated,
            "time/images_per_second": images / train_seconds,
            "memory/peak_mb": peak,
        }
        progress.train_seconds += row["time/epoch"]
        self._count_energy()

        # Start the next epoch's sums
        progress.batch = 0
        progress.epoch_seconds = 0.0
        progress.sums.zero_()
        progress.history.append(row)

        # Keep the best weights, and note an improvement for early stopping
        if np.isfinite(row["val/loss"]) and evaluation.is_better(row, progress.best, self.config.metric):
            progress.best = row
            self.best_weights = {name: value.clone() for name, value in self.evaluator.model.state_dict().items()}
        watched = evaluation.worth(row, self.config.early_stopping_metric or "val/loss")
        if watched > progress.improved_value:
            progress.improved_epoch = progress.epoch
            progress.improved_value = watched
        devices.forget_peak(self.device)
        return row

    def evaluate(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Test the best weights once; return the contents of summary.json and evaluation.npz.

        `train` accuracies are measured in eval mode, without dropout or augmentation, on as many training images as
        there are validation images. So neither contributes to their difference from the validation accuracies.
        """
        progress = self.progress
        data = self.data
        sample = data.train[evaluation.train_sample(data)]
        chosen = evaluation.feature_sample(data)

        # Summarise the last weights
        summary = self.sizes | {"iterations": progress.iterations, "train_seconds": progress.train_seconds}
        summary |= {} if math.isnan(progress.energy_joules) else {"energy_joules": progress.energy_joules}
        summary |= evaluation.summary_of("last", progress.history[-1], self.evaluator.score(sample))

        # Test the best weights, then restore the last ones
        last = {name: value.clone() for name, value in self.evaluator.model.state_dict().items()}
        try:
            self.evaluator.model.load_state_dict(self.best_weights)
            summary |= evaluation.summary_of("best", progress.best, self.evaluator.score(sample))
            logits = self.evaluator.logits(data.test)
            summary |= evaluation.scores("test", logits, data.test.labels, self.logged)
            arrays = evaluation.arrays(data, logits, chosen, self.evaluator.activations(data.val[chosen]))
            mistakes = torch.from_numpy(arrays["mistake_index"]).to(self.device)
            model, size = self.evaluator.model, self.evaluator.batch_size
            return summary, arrays | explain.arrays(model, data, logits, mistakes, size, self.say)
        finally:
            self.evaluator.model.load_state_dict(last)

    def _count_energy(self) -> None:
        """Add the energy that the device used since the last call."""
        before = self.energy_read
        self.energy_read = devices.energy_joules(self.device)
        self.progress.energy_joules += self.energy_read - before

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a training needs to resume exactly here."""
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
        """Load a `state_dict` from a file; return whether it could be read and fits this training.

        It is read into the host's memory, so that a full device is not mistaken for a broken file. If the result is
        False, discard the trainer: part of the state may have been loaded.
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
        """Set everything to a `state_dict`."""
        # The network, its optimizer and its average
        self.model.load_state_dict(state["model"])
        optim.load(self.optimizer, state["optimizer"])
        if isinstance(self.train_batch, step.Captured):
            optim.prepare_capture(self.optimizer, self.device)
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
            self.average.updates.fill_(state["progress"]["iterations"])

        # The progress, and the random generators unless the device is of another kind
        self.best_weights = {name: value.to(self.device) for name, value in state["best"].items()}
        self.progress = Progress(**state["progress"] | {"sums": state["progress"]["sums"].to(self.device)})
        if state["device"] == self.device.type:
            self.augment_generator.set_state(state["augment_generator"])
            devices.set_generators(self.device, state)


def stream_seed(*keys: Any) -> int:
    """Derive a random seed from the run's seed, the epoch and the name of its purpose."""
    return int.from_bytes(hashlib.sha256(repr(keys).encode()).digest()[:8]) >> 1
