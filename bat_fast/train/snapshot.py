"""What a run must remember to go on, and how it goes on from there."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from bat_fast.data import Loader
from bat_fast.train.build import Parts
from bat_fast.train.meter import EpochMeter
from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch
from bat_fast.train.step import TrainStep
from bat_fast.world.ranks import ALONE, World

_LEARNT = ("model", "average", "optimizer", "method")


def state_of(parts: Parts) -> dict[str, Any]:
    """What the parts of a run have learnt."""
    return {
        "model": parts.model.state_dict(),
        "average": parts.average.state_dict() if parts.average is not None else {},
        "optimizer": parts.optimizer.state_dict(),
        "method": parts.method.state_dict(),
    }


def load_state(parts: Parts, state: dict[str, Any]) -> None:
    """Give the parts what `state_of` kept."""
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    parts.method.load_state_dict(state["method"])


class Good:
    """What ``optim.on_nonfinite: restore`` goes back to: what the run had learnt at its last checkpoint.

    At one that every run of the configuration writes, at the end of an epoch or by ``checkpoint_every``, and
    not where this one happened to be interrupted, whose checkpoint carries it along: so a run that was
    interrupted goes back to the same weights as one that was not.

    Args:
        policy: ``optim.on_nonfinite``.
    """

    def __init__(self, policy: str) -> None:
        self._wanted = policy == "restore"
        self.learnt: dict[str, Any] | None = None

    def note(self, state: dict[str, Any], due: bool) -> None:
        """Before a checkpoint of ``state`` is written, which is ``due`` or comes by a signal."""
        if self._wanted and due:
            self.resume(state)
        elif self._wanted:
            state["good"] = self.learnt

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        if self._wanted:
            self.learnt = state["good"] if "good" in state else deepcopy({k: state[k] for k in _LEARNT})


def place_of(loader: Loader, meter: EpochMeter, attacks: bool, world: World = ALONE) -> dict[str, Any]:
    """Where a run is within an epoch: the batches done, what was measured, whether it attacked so far."""
    return {
        "loader": loader.state_dict(),
        "meter": meter.state_dict(),
        "rng": rng_state(world),
        "attacks": attacks,
    }


def begin_epoch(
    seed: int,
    epoch: int,
    place: dict[str, Any] | None,
    loader: Loader,
    meter: EpochMeter,
    step: TrainStep,
    world: World = ALONE,
) -> None:
    """Put generators, loader and meter at the start of ``epoch``, or at its `place_of`."""
    if place is None:
        seed_epoch(seed, epoch, world.rank)
        loader.set_epoch(epoch)
        return
    loader.load_state_dict(place["loader"])
    meter.load_state_dict(place["meter"])
    restore_rng_state(place["rng"], world)
    step.attacks = place["attacks"]


def leave_out(parts: Parts, good: Good, meter: EpochMeter, number: int) -> str:
    """What follows an update that was not made: ``optim.on_nonfinite``, and a line about it.

    Args:
        parts: get the weights of ``good`` where that is asked.
        good: of the run.
        meter: counts it.
        number: of the step in the run, from 0.

    Raises:
        FloatingPointError: there is no checkpoint yet.
    """
    meter.leave_out()
    policy = parts.step.health.policy
    what = f"step {number + 1}: loss or gradient became NaN or infinite"
    if policy != "restore":
        return f"{what}; this update is left out"
    if good.learnt is None:
        raise FloatingPointError(f"{what}, and there is no checkpoint to restore")
    load_state(parts, deepcopy(good.learnt))  # an optimiser keeps the tensors that it is given
    return f"{what}; the weights are those of the last checkpoint again"
