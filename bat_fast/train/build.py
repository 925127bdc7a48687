"""From a configuration to the parts of a run, with or without the data."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from bat_fast import data, methods, models
from bat_fast.attacks import PGD
from bat_fast.config import TrainConfig, settled
from bat_fast.config.limits import check as check_limits
from bat_fast.config.limits import check_images, in_fractions
from bat_fast.device import check_name, layout
from bat_fast.runs.model_file import GIVEN, build_model, load_run
from bat_fast.runs.weights import put_weights, read_weights
from bat_fast.train.feed import Feed
from bat_fast.train.optimizer import build_average, build_optimizer
from bat_fast.train.schedule import learning_rate
from bat_fast.train.step import TrainStep
from bat_fast.train.validation import test_attack, validation_attack
from bat_fast.train.whole import Whole
from bat_fast.world.ranks import ALONE, World

_CURRICULUM = (  # of the training step, not of PGD
    *("targets", "clean_start", "warmup", "first_steps", "late_start", "late_eps", "late_steps"),
)


def check(config: TrainConfig) -> None:
    """Raise ValueError naming the first setting that is out of its range (`bat_fast.config.limits`)."""
    check_limits(config)
    check_name(config.device)
    validation_attack(config.eval)
    test_attack(config.eval)


def recorded(config: TrainConfig, splits: data.Splits | None, model: nn.Module | None) -> TrainConfig:
    """``config`` without the names of data and of a model that it does not see, as a program gave them."""
    if splits is not None:
        config = replace(config, data=replace(config.data, name=data.GIVEN, root=None, options={}))
    if model is not None:
        config = replace(config, model=replace(config.model, name=f"{GIVEN}{type(model).__qualname__}"))
    return config


def architecture(config: TrainConfig, shape: data.Shape, given: nn.Module | None = None) -> dict[str, Any]:
    """What `bat_fast.runs.model_file.build_model` needs, but for mean and std, which the weights hold."""
    classes = shape.num_classes if config.model.num_classes is None else config.model.num_classes
    if classes < shape.num_classes:
        raise ValueError(
            f"model.num_classes is {classes}, but {config.data.name} has {shape.num_classes} classes"
        )
    more = {"options": config.model.options} if config.model.options else {}
    return more | {
        "arch": models.located(config.model.name) if given is None else f"{GIVEN}{type(given).__qualname__}",
        "num_classes": classes,
        "in_channels": shape.in_channels,
        "image_size": shape.image_size,
        "activation": config.model.activation,
    }


def build_method(config: TrainConfig) -> methods.Method:
    """The method of the configuration."""
    options = {key: value for key, value in config.method.items() if key != "name"}
    return methods.create(config.method["name"], **options)


def build_attack(config: TrainConfig, method: methods.Method, model: nn.Module) -> PGD:
    """The attack of the configuration, as far as the method does not set it itself."""
    options = {name: value for name, value in asdict(config.attack).items() if name not in _CURRICULUM}
    return PGD(model, **(options | method.attack_options(options)), seed=config.seed)


class Parts(NamedTuple):
    """What a training run is made of, all but its data."""

    architecture: dict[str, Any]
    """What `bat_fast.runs.model_file.build_model` makes the model of."""
    model: nn.Module
    method: methods.Method
    attack: PGD
    optimizer: torch.optim.Optimizer
    step: TrainStep
    average: torch.optim.swa_utils.AveragedModel | None
    """What averages the weights, if the configuration asks for it."""

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the average where there is one."""
        averaged = self.average is not None and int(self.average.n_averaged) > 0
        return self.average.module if self.average is not None and averaged else self.model


def parts(
    config: TrainConfig,
    shape: data.Shape,
    device: str = "cpu",
    *,
    samples: int | None = None,
    model: nn.Module | None = None,
    begin: bool = True,
    world: World = ALONE,
    **normalisation: Any,
) -> Parts:
    """All parts of a run, put together in the one order that fixes their random numbers.

    Args:
        config: the settings, already checked (`check`) and `settled`.
        shape: of the data.
        device: where the model is.
        samples: one more than the largest sample id; None leaves out what a method keeps for each sample.
        model: to train, as `bat_fast.models.wrap` takes it; None makes a new one.
        begin: put the weights into it that the run begins with (``model.pretrained``, ``model.init``).
        world: the processes that train it together; all begin with the weights of rank 0.
        normalisation: ``mean`` and ``std`` of the pixels, for a new model.

    Raises:
        ValueError: a setting is out of range, or does not fit the others.
    """
    check_images(config, shape.image_size)
    built = architecture(config, shape, model)
    if model is None:
        torch.manual_seed(config.seed)
    pretrained = begin and config.model.pretrained
    if config.model.normalize == "none":
        normalisation = {}
    model = build_model(built, given=model, pretrained=pretrained, **normalisation).to(device)
    if begin and config.model.init is not None:
        put_weights(model, read_weights(config.model.init), config.model.init, new_head=True)
    model.to(memory_format=cast(Any, layout(device)))
    world.copy_(model.state_dict().values())
    method, whole = build_method(config), Whole(world)
    if samples is not None:
        method.prepare(samples, built["num_classes"], device)
        _bring_helper(method, built["num_classes"], device, whole)
    attack = build_attack(config, method, model)
    optimizer = build_optimizer(config.optim, model)
    run = in_fractions(config)
    step = TrainStep(model, method, attack, optimizer, run.attack, run.optim, whole)
    average = build_average(config.optim, model)
    answers = (None, None) if average is None else (whole.answers(average.module), average.n_averaged)
    method.follow(*answers)
    return Parts(built, model, method, attack, optimizer, step, average)


def _bring_helper(method: methods.Method, classes: int, device: str, whole: Whole) -> None:
    """Load the models that the options ``helper`` and ``robust_helper`` of a method name."""
    for option, usual in (("helper", "standard"), ("robust_helper", "pgd_at")):
        path = getattr(method, option, None)
        if path is None:
            continue
        if not path:
            raise ValueError(
                f"method.{option} is missing: the run folder of a model trained with --method {usual}"
            )
        helper, described = load_run(path, device)
        if described["num_classes"] != classes:
            raise ValueError(
                f"method.{option}: the model of {path} has {described['num_classes']} classes, this run "
                f"{classes}"
            )
        method.consult(whole.answers(helper))


def dry_run(config: TrainConfig) -> str:
    """Check every setting and build all parts on the CPU, without the data; one line about them.

    Only where the size of the images is not known otherwise the folders are listed.

    Raises:
        ValueError: a setting is out of range.
    """
    check(config)
    config = settled(config)
    data.Augment(**asdict(config.data.augment))
    built = parts(config, data.shape(config.data.name, config.data.options) or Feed(config, "cpu").shape)
    learning_rate(config.optim, 0, 1)
    weights, attack = sum(parameter.numel() for parameter in built.model.parameters()), built.attack
    return (
        f"ok: {config.data.name}, {config.model.name} with {weights:,} parameters, "
        f"{config.method['name']}, {attack.norm} eps {float(attack.eps):.4g}, {attack.steps} steps, "
        f"{config.epochs} epochs"
    )
