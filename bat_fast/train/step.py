"""What happens to one batch: the attack, the loss, the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from bat_fast.attacks import PGD, AttackLoss, kept_buffers, random_targets, untouched
from bat_fast.batch import Batch
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import Method, Terms
from bat_fast.train.allocator import keep_freed_memory
from bat_fast.train.awp import perturbed, small_losses
from bat_fast.train.batch_norm import running_statistics, synced
from bat_fast.train.health import Health, Running, saturated
from bat_fast.train.learner import learner_of
from bat_fast.train.meter import EpochMeter
from bat_fast.train.micro_batches import merge
from bat_fast.train.schedule import attack_strength
from bat_fast.train.whole import Part, Whole


class TrainStep:
    """Trains ``model`` on a batch, with what is orthogonal to the method: smoothing, clipping, AWP,
    16 bits, and what saves memory: parts of a batch one after the other, blocks that run again.

    Args:
        model: in train mode when called.
        method: what to climb and what to descend.
        attack: how to climb.
        optimizer: how to descend.
        curriculum: targets, clean starts and warm-up of the configuration's attack.
        optim: all but the optimiser of that part of the configuration.
        whole: what the processes of a run say to each other about a batch; None is for one alone.

    Raises:
        ValueError: ``optim.grad_checkpointing`` with a model that has no blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        attack: PGD,
        optimizer: torch.optim.Optimizer,
        curriculum: AttackConfig,
        optim: OptimConfig,
        whole: Whole | None = None,
    ) -> None:
        self.model, self.method, self.attack, self.optimizer = model, method, attack, optimizer
        self.curriculum, self.optim = curriculum, optim
        if all(parameter.is_cpu for parameter in model.parameters()):
            keep_freed_memory()
        self._whole = Whole() if whole is None else whole
        self._world = self._whole.world
        self._network = learner_of(model, optim)
        self._learner = self._whole.answers(self._network)
        self.seen: Batch | None = None
        """The batch of the last call: labels and ids of all processes, the images of this one."""
        self.health = Health(optim, model)
        self.replays: int = getattr(method, "replays", 0)
        self.attacks = bool(self.replays)  # whether the images were adversarial so far
        self.running: Running | None = None
        self._bn_mode, self._seed = attack.bn_mode, attack.seed
        self._full = (attack.eps, attack.step_size, attack.steps)

    def set_progress(self, progress: float) -> None:
        """Radius and number of steps where ``progress`` in [0, 1) of the run is done."""
        plan, attack = self.curriculum, self.attack
        if plan.warmup or plan.late_start is not None:
            attack.eps, attack.step_size, attack.steps = attack_strength(plan, progress, *self._full)

    def __call__(self, batch: Batch, epoch: int, meter: EpochMeter, *, awp: bool = True) -> Terms:
        """One update, or as many as the method replays; ``epoch`` counts from 0.

        Returns:
            The terms of the batch, that of all processes together.
        """
        awp = awp and self.optim.awp > 0
        self.seen, parts = self._whole.divide(batch, self.optim.micro_batches)
        self.health.epoch = epoch
        self.running = Running(batch, awp, torch.get_rng_state())
        with self.health.kept():
            if self.replays:
                return self._replay(parts, epoch, awp)
            images = self._adversarial(parts, epoch, meter)
            self._whole.remember(self.method, parts)
            if self.attack.bn_updates != "all":
                return self._update(parts, images, epoch, awp)
            self._pass(images)
            terms = self._update(parts, images, epoch, awp)
            self._pass([part.own.x for part in parts])
            self._add_up([])
            return terms

    def watch(self, batch: Batch, epoch: int, meter: EpochMeter, awp: bool) -> Iterator[tuple[str, Tensor]]:
        """The values of an update one after the other, by name, without the update: for a replay."""
        _, parts = self._whole.divide(batch, self.optim.micro_batches)
        if self.replays:
            with torch.no_grad():
                images = [self.attack.start(part.own.x, part.own.index, epoch) for part in parts]
        else:
            images = self._adversarial(parts, epoch, meter)
        for x in images:
            yield "adversarial images", x
        self.optimizer.zero_grad(set_to_none=True)
        moved = perturbed(self.model, lambda: self._risks(parts, images, epoch), self.optim)
        with moved if awp and self.optim.awp else nullcontext():
            self.optimizer.zero_grad(set_to_none=True)
            for terms in self._terms(parts, images, epoch):
                if terms.logits is not None:
                    yield "logits", terms.logits
                yield "loss of each image", terms.per_sample
                yield "loss", terms.total
                terms.total.backward()

    @torch.no_grad()
    def _pass(self, images: Sequence[Tensor]) -> None:
        """A pass for the running statistics alone."""
        with synced(self._world, self.optim.sync_bn):
            for x in images:
                self._network(x)

    def _adversarial(self, parts: Sequence[Part], epoch: int, meter: EpochMeter) -> list[Tensor]:
        """The images to train on, of all parts, before the running statistics or the weights move.

        Each process attacks its own images, and meets no other while it does.
        """
        keep = not self.attack.bn_updates
        with torch.no_grad(), untouched(self.model, self._bn_mode, keep=keep):
            objectives = [self.method.attack_loss(self.model, part.own, epoch) for part in parts]
            if all(objective is None for objective in objectives):
                return [part.own.x for part in parts]
            self.attacks = True
            with self._clean_start(), meter.attack():
                return [
                    self._climb(part.own, goal, epoch) for part, goal in zip(parts, objectives, strict=True)
                ]

    def _climb(self, part: Batch, objective: AttackLoss | None, epoch: int) -> Tensor:
        if objective is None:
            return part.x
        targets = None
        if self.curriculum.targets == "random":
            classes = cast(int, self.model.num_classes)
            targets = random_targets(part.y, part.index, classes, seed=self._seed, draw=epoch)
        return self.attack(part.x, part.y, targets, part.index, objective=objective, draw=epoch)

    @contextmanager
    def _clean_start(self) -> Iterator[None]:
        """Switches the random start off for a share of the batches."""
        share = self.curriculum.clean_start
        # The generator is seeded for every epoch, and for every process otherwise.
        if not share or self._world.broadcast(float(torch.rand(()))) >= share:
            yield
            return
        usual, self.attack.random_start = self.attack.random_start, False
        try:
            yield
        finally:
            self.attack.random_start = usual

    def _replay(self, parts: Sequence[Part], epoch: int, awp: bool) -> Terms:
        """The gradient that training leaves at the images moves them, for nothing."""
        with torch.no_grad():
            adv = [self.attack.start(part.own.x, part.own.index, epoch) for part in parts]
        for _ in range(self.replays):
            leaves = [images.detach().requires_grad_() for images in adv]
            terms = self._update(parts, leaves, epoch, awp)
            with torch.no_grad():
                for images, leaf, part in zip(adv, leaves, parts, strict=True):
                    assert leaf.grad is not None
                    self.attack.step(images, leaf.grad, part.own.x)
        return terms

    def _update(self, parts: Sequence[Part], images: Sequence[Tensor], epoch: int, awp: bool) -> Terms:
        constant = [x_adv.detach() for x_adv in images]
        moved = perturbed(
            self.model, lambda: self._risks(parts, constant, epoch), self.optim, self._world.sum_
        )
        done, signs = [], dict[str, Tensor]()  # what says how healthy the update was, without a wait
        if self.attacks:
            own = sum(len(part.own.y) for part in parts) / sum(sum(part.sizes) for part in parts)
            signs["saturated"] = own * saturated(constant)
        with synced(self._world, self.optim.sync_bn), moved if awp else nullcontext():
            self.optimizer.zero_grad(set_to_none=True)
            for terms in self._terms(parts, images, epoch):
                with kept_buffers(self.model) if self.optim.grad_checkpointing else nullcontext():
                    terms.total.backward()
                done.append(_detached(terms))
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._add_up([*gradients, *signs.values()])
            if self.health.allows([terms.total for terms in done]):
                if self.optim.clip is not None:
                    norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip)
                    signs["clipped"] = (norm > self.optim.clip).float()
                self.optimizer.step()
        terms = merge(done)
        signs["zero_grad"] = (terms.per_sample == 0).float().mean()
        return terms._replace(metrics=terms.metrics | signs)

    def _add_up(self, gradients: Sequence[Tensor]) -> None:
        """Gradients, and what goes with them, become the sums over all processes, running statistics means.

        One collective, when all gradients are there. Ones that overlap with the backward pass, as
        DistributedDataParallel has them, could hide behind one pass of the K + 1 of a step.
        """
        if self._world.size > 1:
            statistics = running_statistics(self.model)
            self._world.sum_([*gradients, *statistics])
            for statistic in statistics:
                statistic.div_(self._world.size)

    def _terms(self, parts: Sequence[Part], images: Sequence[Tensor], epoch: int) -> Iterator[Terms]:
        """The terms of one part after the other; their totals add up to the loss of the batch."""
        size = sum(map(sum, (part.sizes for part in parts)))
        for part, x_adv in zip(parts, images, strict=True):
            self._whole.turn_to(part)
            terms = self._smoothed(part.seen, self.method(self._learner, part.seen, x_adv, epoch))
            yield terms._replace(total=sum(part.sizes) / size * terms.total)

    def _risks(self, parts: Sequence[Part], images: Sequence[Tensor], epoch: int) -> Iterator[Tensor]:
        """What perturbed weights climb, of one part after the other; the sum is that of the batch."""
        size = sum(map(sum, (part.sizes for part in parts)))
        for part, terms in zip(parts, self._terms(parts, images, epoch), strict=True):
            if self.optim.awp_below is None:
                yield terms.total
            else:
                yield sum(part.sizes) / size * small_losses(terms, part.seen.y, self.optim.awp_below)

    def _smoothed(self, batch: Batch, terms: Terms) -> Terms:
        """Add the label smoothing of the configuration to ``terms``."""
        if not self.optim.label_smoothing:
            return terms
        if terms.logits is None:
            raise TypeError("optim.label_smoothing: the method does not say which logits it fits")
        # CE with smoothed labels is CE + s mean(log p_y - mean_c log p_c).
        log_p = terms.logits.log_softmax(1)
        excess = (log_p.gather(1, batch.y[:, None]).squeeze(1) - log_p.mean(1)).mean()
        return terms._replace(total=terms.total + self.optim.label_smoothing * excess)


def _detached(terms: Terms) -> Terms:
    """What is left of ``terms`` when the gradient is known: no graph, for whoever reads them afterwards."""
    logits = None if terms.logits is None else terms.logits.detach()
    return terms._replace(total=terms.total.detach(), logits=logits)
