"""Hold a configuration against what the trainer does: all its problems, and the keys that change nothing."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainer.config import Config
from trainer.errors import ConfigError, suggestion
from trainer.tasks import TASKS, TaskError
from trainer.tracking import missing_packages
from trainer.weights import TERMS, Term, first_step_above_0

OTHER_KIND = {
    "continuous": ("latent.count", "objective.inter_latent_divergence_positions", "eval.controlled_sampled"),
    "discrete": ("latent.dim", "latent.samples"),
}
"""Keys that a kind of latent does not look at, beside the weights of terms that it does not have."""


def load_config(path: Path) -> Config:
    """Read a configuration file (JSON).

    Raises:
        ConfigError: it cannot be read, is not JSON, or asks for what the trainer does not do; holds all problems.
    """
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}. Check the path."]) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not JSON: {error}. Correct the file."]) from error
    problems, config = validate(raw)
    if config is None or problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def check_line(line: str) -> dict[str, list[str]]:
    """Check one configuration, given as a line of JSON.

    Returns:
        ``errors``: all problems; ``inactive``: dotted keys that are set and change nothing.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"errors": [f"not JSON: {error}. Write one configuration a line."], "inactive": []}
    problems, config = validate(raw)
    return {"errors": problems, "inactive": inactive(config) if config is not None else []}


def validate(raw: Any) -> tuple[list[str], Config | None]:
    """Find everything wrong with a raw configuration that can be known before the run.

    Returns:
        the problems, one line each as ``dotted.key: what, with the value. What to do.``; and the configuration,
        None where its shape is wrong.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        return [_explain(problem) for problem in error.errors()], None
    return [
        *_task_problems(config),
        *_mode_problems(config),
        *_train_problems(config),
        *_data_problems(config),
        *missing_packages(config.report_to),
    ], config


def inactive(config: Config) -> list[str]:
    """Return the dotted keys that the configuration sets and that change nothing in its mode, sorted."""
    return sorted(key for key in _set_keys(config) if _without_effect(config, key))


def _without_effect(config: Config, key: str) -> bool:
    section, _, name = key.partition(".")
    seeds = config.seeds
    if (key == "seed" and None not in {seeds.data, seeds.model, seeds.sampling}) or (
        key == "pool.temperature" and config.data.source == "groundtruth"
    ):
        return True
    if config.mode == "base":
        return (
            key in {"eval.posterior", "eval.controlled_sampled"}
            or section in {"base", "latent", "adaptation", "objective"}
            or key
            in {
                "data.drop_invalid",
                "data.sampling",
                "data.refresh_every",
                "train.head_lr",
                "train.posterior_lr_scale",
            }
        )
    return (
        section == "model"
        or key == "data.records"
        or key in OTHER_KIND[config.latent.kind]
        or (section == "objective" and _objective_without_effect(config, name))
        or (section == "adaptation" and name != "kind" and config.adaptation.kind != "lora")
        or (key in {"train.lr", "train.posterior_lr_scale"} and config.adaptation.kind == "head_only")
        or (key == "train.final_lr_share" and config.train.schedule == "constant")
        or key == "train.compile"
        or (key == "data.refresh_every" and config.data.sampling == "each_step")
        or (key == "train.max_sequences_per_epoch" and config.train.epochs is None)
    )


def _objective_without_effect(config: Config, name: str) -> bool:
    objective, kind = config.objective, config.latent.kind

    def weighs(key: str) -> bool:
        return first_step_above_0(getattr(objective, key)) is not None

    term = next((term for term in TERMS.values() if term.key == name), None)
    if term is not None:
        return kind not in term.kinds
    token_weighted = weighs("token_weighted_reconstruction_weight")
    divergence = kind == "discrete" and weighs("inter_latent_divergence_weight")
    match name:
        case "kl_warmup_steps":
            return not weighs("beta")
        case "curriculum_steps":
            return objective.token_weighted_mode != "curriculum"
        case "baseline_normalized":
            return objective.token_weighted_mode == "replace"
        case "token_weighted_gamma":
            return not token_weighted and not (divergence and objective.inter_latent_divergence_positions == "weighted")
        case "inter_latent_divergence_positions":
            return not divergence
        case _:
            return False


def _set_keys(section: BaseModel, prefix: str = "") -> Iterator[str]:
    for name in section.model_fields_set:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _set_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _task_problems(config: Config) -> Iterator[str]:
    task = TASKS.get(config.task.name)
    if task is None:
        near = suggestion(config.task.name, TASKS)
        yield f"task.name: there is no task {config.task.name!r}.{near} Take one of {', '.join(TASKS)}."
        return
    try:
        task.validate(config.task.params)
    except TaskError as error:
        yield from str(error).splitlines()
    mix = config.task.strategy_mix
    if mix is None:
        return
    for name in mix:
        if name not in task.strategies:
            near = suggestion(name, task.strategies)
            known = ", ".join(task.strategies)
            yield f"task.strategy_mix.{name}: {task.name} has no such strategy.{near} Known: {known}."
    if not 0 < sum(mix.values()) < math.inf:
        total = sum(mix.values())
        yield f"task.strategy_mix: the weights add up to {total:g}, where shares such as 1 would do. Change them."


def _mode_problems(config: Config) -> Iterator[str]:
    if config.mode == "base":
        for term in TERMS.values():
            if term.key in config.objective.model_fields_set and _starts(config, term) is not None:
                yield f"objective.{term.key}: is {_shown(config, term)}, but a base run has no such term. Leave it out."
        return
    if config.base is None:
        yield "base.path: missing. Name the checkpoint folder of a base run, or a pretrained causal language model."
    if config.latent.kind == "discrete" and config.latent.count is None:
        yield "latent.count: missing. Say how many values a discrete latent has, 2 to 8."
    yield from _term_problems(config)
    if config.adaptation.kind != "full" and config.train.optimizer == "muon":
        yield (
            "train.optimizer: is 'muon', which trains whole matrices of the backbone, but adaptation.kind "
            f"{config.adaptation.kind} leaves none to train. Take adamw, or adaptation.kind: full."
        )


def _term_problems(config: Config) -> Iterator[str]:
    """Tell of terms that the latent's kind does not have, and of weights that never act."""
    kind, steps = config.latent.kind, config.train.steps
    for term in TERMS.values():
        start = _starts(config, term)
        if start is None:
            continue
        if kind not in term.kinds:
            yield (
                f"objective.{term.key}: is {_shown(config, term)}, but a {kind} latent has no such term. Set it to 0."
            )
        elif steps is not None and start > steps:
            yield (
                f"objective.{term.key}: is {_shown(config, term)}, above 0 from step {start} on, but the run ends at "
                f"step {steps}. Let it begin earlier."
            )
    token_weighted = TERMS["token_weighted_reconstruction"]
    if config.objective.token_weighted_mode != "additive" and _starts(config, token_weighted) is None:
        yield (
            f"objective.token_weighted_mode: is {config.objective.token_weighted_mode}, but "
            f"objective.{token_weighted.key} is 0. Give it a weight, or take mode additive."
        )


def _starts(config: Config, term: Term) -> int | None:
    """Return the first step in which a term has a weight above 0."""
    return first_step_above_0(getattr(config.objective, term.key)) if term.key else None


def _shown(config: Config, term: Term) -> str:
    """Write a term's weight as the configuration has it."""
    weight = getattr(config.objective, term.key)
    return json.dumps(weight) if isinstance(weight, tuple) else f"{weight:g}"


def _train_problems(config: Config) -> Iterator[str]:
    train, model = config.train, config.model
    if train.steps is None and train.epochs is None:
        yield "train.steps: missing. Say how long to train, by train.steps or by train.epochs."
    if train.steps is not None and train.epochs is not None:
        yield f"train.epochs: is {train.epochs}, but train.steps is given too. Leave one of the two out."
    if train.epochs is not None and (train.max_sequences_per_epoch or train.batch_size) < train.batch_size:
        yield (
            f"train.max_sequences_per_epoch: is {train.max_sequences_per_epoch}, less than a batch of "
            f"{train.batch_size}. Raise it, or lower train.batch_size."
        )
    if train.compile and train.gradient_checkpointing:
        yield "train.compile: decides itself what to keep, so train.gradient_checkpointing is in its way. Take one."
    if config.mode == "base" and (model.width % model.heads or model.width // model.heads % 2):
        yield f"model.heads: {model.heads} heads do not split width {model.width} into even parts. Change one of them."
    if config.mode == "base" and model.heads % model.kv_heads:
        yield f"model.kv_heads: {model.kv_heads} does not divide model.heads, {model.heads}. Change one of them."


def _data_problems(config: Config) -> Iterator[str]:
    data = config.data
    if config.mode == "base":
        return
    if data.sampling == "each_step" and data.drop_invalid:
        yield "data.drop_invalid: batches would differ in size with data.sampling each_step. Leave one of the two out."
    if data.refresh_every is not None and config.train.epochs is not None:
        yield (
            f"train.epochs: is {config.train.epochs}, but pairs are drawn anew every {data.refresh_every} steps, which "
            "no epoch outlasts. Say how long to train by train.steps."
        )
    if data.sampling == "pool" and (data.refresh_every or 0) >= (config.train.steps or math.inf):
        yield (
            f"data.refresh_every: is {data.refresh_every}, but the run ends at step {config.train.steps}: pairs would "
            "never be drawn anew. Lower it, or leave it out."
        )


def _explain(problem: ErrorDetails) -> str:
    """Turn one of pydantic's problems into a line: dotted key, what is wrong, with the value, what to do."""
    key = ".".join(str(part) for part in problem["loc"]) or "config"
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _known_keys(problem["loc"][:-1])
            near = suggestion(str(problem["loc"][-1]), known)
            return f"{key}: unknown key.{near} Known here: {', '.join(known)}."
        case "missing":
            return f"{key}: missing. Add it."
        case "model_type":
            return f"{key}: expected keys and values, got {value!r}. Write a mapping."
        case _:
            what = problem["msg"].replace("Input should be", "should be")
            return f"{key}: {what}, got {value!r}. Change it."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    for name in location:
        annotation = section.model_fields[str(name)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(section.model_fields)
