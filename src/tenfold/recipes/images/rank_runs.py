"""Rank runs: dense, automatic ranks, fixed ranks from scratch and the null model; finished runs are kept and not repeated."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.bayes import attach
from tenfold.bayes.factorized_weights import factorized_weights
from tenfold.data.images import Images
from tenfold.layers.base import FactorizedLayer
from tenfold.recipes.automatic_ranks import Training, cosine, fix_ranks, train_automatic, train_null, train_plain
from tenfold.recipes.finished_runs import digest_of, kept_place, read_kept, write_kept
from tenfold.recipes.images.calibration import Calibration, calibration
from tenfold.recipes.images.task import ImageTask
from tenfold.recipes.options import DENSE, Options
from tenfold.recipes.rank_steps import batches_from
from tenfold.running import eval_mode

AUTOMATIC, FIXED, NULL = "automatic", "fixed", "null"
VERSION = 1  # of what a run is: kept runs of another version are not used
N_SAMPLES = 16
SPREADING = 0.05  # of all steps: training of the variances alone, after everything else
SPREADING_LR = 0.1
START_VARIANCE = 1e-4


@dataclass(frozen=True)
class RankRun:
    """One training.

    way: dense, automatic, fixed (the ranks that the automatic run of the same seed found, from scratch), or null (no data).
    test: of the trained means; sampled: of the mean prediction of `N_SAMPLES` draws of the factors, for automatic ranks.
    weights: values stored for the factorised layers, which are dense in the dense network; dense_weights: if dense; parameters: of all.
    ranks: by layer.
    seconds: of training and tests, those before a kill included.
    """

    format: str
    way: str
    seed: int
    test: Calibration | None
    sampled: Calibration | None
    weights: int
    dense_weights: int
    parameters: int
    ranks: Mapping[str, Mapping[str, int]]
    is_stable: bool | None
    removed: tuple[str, ...]
    n_steps: int
    seconds: float


class RankRuns:
    """The runs of a recipe.

    Args:
        build: from a format's name and a seed, a fresh model; `DENSE` gives the dense one.
        layers: names of the layers that formats factorise.
        trainings: how each format is trained, `DENSE` among them.
        moments: by layer, the second moment of its inputs.
        start: gives a layer of fixed ranks its start values, as `build` does.
        factorised: from a format's name and a dense model, the model with factorised layers, for trainings with a dense part.
        words: by format, what the data and the model are: runs of other words are other runs.
    """

    def __init__(
        self,
        recipe: str,
        words: Mapping[str, str],
        task: ImageTask,
        test: Images,
        build: Callable[[str, int], nn.Module],
        layers: tuple[str, ...],
        trainings: Mapping[str, Training],
        options: Options,
        moments: Mapping[str, Tensor],
        start: Callable[[Any], None] = lambda layer: layer.reset_parameters(),
        factorised: Callable[[str, nn.Module], nn.Module] | None = None,
    ) -> None:
        self.recipe, self.words, self.task, self.test = recipe, words, task, test
        self.build, self.layers, self.trainings, self.options, self.moments = build, layers, trainings, options, moments
        self.start, self.factorised = start, factorised
        self.digest = digest_of(*(part for images in (task.images, test) for part in (images.pixels, images.labels)))

    def run(self, format: str, way: str, seed: int, ranks: Mapping[str, Mapping[str, int]] | None = None) -> RankRun:
        """A run: the file of it where it is finished, else trained, from its checkpoint where there is one."""
        plain = ("epochs", "batch_size", "weight_decay", "precision")  # what dense networks and fixed ranks use
        used = (*plain, "dense_lr") if way == DENSE else (*plain, "lr", "rebuild") if way == FIXED else None
        training = {name: value for name, value in dataclasses.asdict(self.trainings[format]).items() if used is None or name in used}
        key = {"version": VERSION, "words": self.words[format], "format": format, "way": way, "seed": seed, "training": training}
        key |= {"data": self.digest, "ranks": ranks and _plain(ranks)}
        place = kept_place(self.options.out, self.recipe, f"{format}-{way}-seed{seed}", key)
        if (kept := read_kept(place, key)) is not None:
            return _from_data(kept)
        checkpoint = None if place is None else place.with_suffix(".ckpt")
        found = self._train(format, way, seed, ranks, checkpoint)
        write_kept(place, key, dataclasses.asdict(found))
        for one in (checkpoint, _dense_checkpoint(checkpoint)):
            if one is not None:
                one.unlink(missing_ok=True)
        return found

    def _train(self, format: str, way: str, seed: int, ranks: Mapping[str, Mapping[str, int]] | None, checkpoint: Path | None) -> RankRun:
        training, lr = self.trainings[format], self.trainings[format].dense_lr if way == DENSE else self.trainings[format].lr
        label = f"{self.recipe} {format} {way}, seed {seed}"
        how: Any = {"seed": seed, "checkpoint": checkpoint, "label": label, "progress": self.options.progress}
        is_warmed_up = way == AUTOMATIC and training.dense_part > 0
        model, warm_up = self._warmed_up(format, seed, how) if is_warmed_up else (self.build(format, seed), 0.0)
        n_steps = training.epochs * self.task.n_steps
        sampled, is_stable, removed = None, None, ()
        if way == NULL:
            found = train_null(model, self.task.n_examples, training, n_steps, **how)
            ranks, removed, seconds = found.ranks, found.removed, found.seconds
        elif way == AUTOMATIC:
            found = train_automatic(model, self.task, training, moments=self.moments, **how)
            ranks, removed, is_stable, seconds = found.ranks, found.removed, found.is_stable, found.seconds + warm_up
        else:
            if way == FIXED:
                self._fix(model, ranks or {}, seed)
            seconds = train_plain(model, self.task, training, lr, **how)
        began = time.perf_counter()
        if way == AUTOMATIC and len(removed) < len(self.layers):
            sampled = self._sampled(model, seed, training.epochs)
        test = None if way == NULL else self.task.test(model, self.test)
        weights, dense_weights, parameters = self._sizes(model, removed)
        seconds = round(seconds + time.perf_counter() - began, 1)
        return RankRun(
            format, way, seed, test, sampled, weights, dense_weights, parameters, _plain(ranks or {}), is_stable, removed, n_steps, seconds
        )

    def _warmed_up(self, format: str, seed: int, how: dict[str, Any]) -> tuple[nn.Module, float]:
        """The factorised model after a full-rank warm-up, and the seconds of its steps."""
        assert self.factorised is not None
        dense, training = self.build(DENSE, seed), self.trainings[format]
        how = {**how, "checkpoint": _dense_checkpoint(how["checkpoint"]), "part": training.dense_part}
        seconds = train_plain(dense, self.task, training, training.dense_lr, **how)
        return self.factorised(format, dense), seconds

    def _fix(self, model: nn.Module, ranks: Mapping[str, Mapping[str, int]], seed: int) -> None:
        fix_ranks(factorized_weights(model), ranks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in model.modules():
                if isinstance(module, FactorizedLayer):
                    self.start(module)

    def _sampled(self, model: nn.Module, seed: int, epochs: int) -> Calibration:
        """The mean prediction of draws from a posterior around the trained means: their variances are trained for a while, nothing else.

        Layers and batches are in eval, so nothing but the factors is random.
        """
        posterior = attach(model, n_examples=self.task.n_examples, relative_variance=START_VARIANCE, seed=seed)
        logs = [p for name, p in model.named_parameters() if "log_variances" in name]
        optimizer = torch.optim.Adam(logs, lr=SPREADING_LR)
        n_steps = max(1, round(SPREADING * epochs * self.task.n_steps))
        with eval_mode(model):
            batches = batches_from(self.task, seed, epochs * self.task.n_steps)
            for done, (inputs, targets) in enumerate(itertools.islice(batches, n_steps)):
                for group in optimizer.param_groups:
                    group["lr"] = SPREADING_LR * cosine(done, n_steps)
                posterior.step()
                with posterior.sample(done):
                    loss = posterior.loss(self.task.loss(model(inputs), targets))
                gradients = torch.autograd.grad(loss, logs)
                for one, gradient in zip(logs, gradients, strict=True):
                    one.grad = gradient
                optimizer.step()
        draws = posterior.predictions(lambda: self.task.probabilities(model, self.test), N_SAMPLES)
        posterior.finish()
        return calibration(draws.mean(0), self.test.labels)

    def _sizes(self, model: nn.Module, removed: tuple[str, ...]) -> tuple[int, int, int]:
        """Values stored for the layers that formats factorise, the same if dense, and all parameters."""
        weights, dense, gone = 0, 0, 0
        for name in self.layers:
            layer: Any = model.get_submodule(name)
            if isinstance(layer, FactorizedLayer):
                n = sum(p.numel() for p in layer.factorized.parameters())
                weights += 0 if name in removed else n
                gone += n if name in removed else 0
                size = 1
                for one in layer.factorized.fold.shape:
                    size *= one
                dense += size
            else:
                weights += layer.weight.numel()
                dense += layer.weight.numel()
        return weights, dense, sum(p.numel() for p in model.parameters()) - gone


def _dense_checkpoint(checkpoint: Path | None) -> Path | None:
    """That of the full-rank warm-up before a search."""
    return None if checkpoint is None else checkpoint.with_suffix(".dense.ckpt")


def _plain(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {name: dict(one) for name, one in ranks.items()}


def _from_data(data: Mapping[str, Any]) -> RankRun:
    tests = {name: None if data[name] is None else Calibration(**data[name]) for name in ("test", "sampled")}
    return RankRun(**{**data, **tests, "removed": tuple(data["removed"])})
