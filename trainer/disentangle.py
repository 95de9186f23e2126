"""Mode ``disentangle``: factorise a given base model p(y|x) through a latent z."""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, checkpoint_layers, load_backbone
from trainer.config import Config, TrainConfig
from trainer.continuous import LOG_VAR_LIMIT
from trainer.distributions import Categoricals, Distributions, Gaussians
from trainer.environment import choose_device
from trainer.errors import TrainerError
from trainer.evaluation.during import follow_latents
from trainer.evaluation.of_latents import evaluate_latents
from trainer.evaluation.quality import Metrics, judge
from trainer.evaluation.writing import Writer
from trainer.fresh import PairSource
from trainer.guard import TermGuard, require_applied, require_beginnings
from trainer.latents import LatentModel, build_latent_model, is_position_neutral
from trainer.loop import require_finite, total_steps, train
from trainer.margin import coding_margin, strategy_entropy
from trainer.objective import evaluate_objective, fractions, join
from trainer.pair_rows import PairRows
from trainer.pool import Pairs, Pool, build_pool, describe, load_pool, save_pool
from trainer.randomness import stream, stream_seed
from trainer.records import RunRecords
from trainer.stop import StopRequest
from trainer.weights import first_step_above_0, weights_at

WHITENING_PAIRS = 256
"""Training pairs at most over which the posterior head is whitened at the start."""

POSTERIOR_LR_SCALE = {"continuous": 0.5, "discrete": 0.2}
"""Default of `train.posterior_lr_scale`: at the generator's rate the posterior saturates before z means anything."""


class LatentLearner:
    """The conditional ELBO with its auxiliary terms, on pairs of the pool.

    Args:
        model: what is trained.
        source: of the pairs to train on.
        writer: the model, to be asked.
        pairs: to validate on.
        config: of the run.
    """

    def __init__(
        self,
        model: LatentModel,
        source: PairSource,
        writer: Writer,
        pairs: Pairs,
        config: Config,
    ) -> None:
        self._model, self._source, self._writer, self._pairs, self._config = model, source, writer, pairs, config
        tokenizer = model.tokenizer
        self._validation = PairRows(pairs, tokenizer, position_neutral=writer.position_neutral)
        self._validation_entropy = strategy_entropy(judge(config.task.name, tokenizer, pairs.x, pairs.y))
        self._guard = TermGuard(model.trainable())
        weight = config.objective.inter_latent_divergence_weight
        self._divergence = model.kind == "discrete" and first_step_above_0(weight) is not None

    def parameters_by_name(self) -> Mapping[str, nn.Parameter]:
        """Return the adapted weights, the heads and the injection."""
        return self._model.trainable()

    def loss(self, index: Tensor, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective on a micro-batch, and all its terms.

        Raises:
            TrainerError: a term gives no gradient to what it is to train.
        """
        rng = self._stream("noise", step, part)
        forward = self._source.rows.forward(self._model, index, rng, divergence=self._divergence)
        objective = evaluate_objective(forward, self._config.objective, step)
        if part == 0:
            self._guard.look(objective, weights_at(self._config.objective, self._model.kind, step))
        return objective.total, objective.series()

    def prepare(self, step: int) -> None:
        """Have the pairs of a step ready."""
        self._source.prepare(step)

    def tokens(self, index: Tensor) -> int:
        """Return the tokens that generator and posterior read."""
        return self._source.rows.tokens(index)

    def validate(self, step: int) -> dict[str, float]:
        """Return the terms on the validation pairs, and how answers and latents have come along."""
        terms = self.terms(step)
        require_finite(step, terms)  # before anything is drawn from distributions that are none
        return {**terms, **follow_latents(self._config, self._writer, self._pairs)}

    @torch.no_grad()
    def terms(self, step: int) -> dict[str, float]:
        """Return the terms on the validation pairs, always with the same noise.

        All pairs are one batch to the objective: the router's marginal is over all of them.
        """
        parts = [
            self._validation.forward(
                self._model,
                index,
                self._stream("validation", number) if self._config.eval.posterior == "sample" else None,
                divergence=self._model.kind == "discrete",
            )
            for number, index in enumerate(torch.arange(len(self._validation)).split(self._config.eval.batch_size))
        ]
        forward = join(parts)
        objective = evaluate_objective(forward, self._config.objective, step)
        shares = fractions({name: float(value) for name, value in objective.weighted.items()})
        return {
            **{f"loss/val/{name}": float(value) for name, value in objective.series().items()},
            **{f"loss/val/fraction/{name}": share for name, share in shares.items()},
            "objective/coding_margin": coding_margin(
                forward, objective, self._config.objective, step, self._validation_entropy
            ),
            **latent_usage(forward.posterior, forward.router),
        }

    def _stream(self, *use: str | int) -> torch.Generator:
        return stream(self._config.seed_of("sampling"), *use, device=self._model.device)


def latent_usage(posterior: Distributions, router: Distributions) -> dict[str, float]:
    """Return how z is used: spreads of a continuous z, shares of each value of a discrete one."""
    if isinstance(posterior, Gaussians):
        assert isinstance(router, Gaussians)
        near_limit = (posterior.log_var.abs() > LOG_VAR_LIMIT * torch.tanh(torch.tensor(1.0))).float().mean()
        return {
            "latent/sigma_q_mean": float(posterior.sigma().mean()),
            "latent/sigma_p_mean": float(router.sigma().mean()),
            "latent/log_var_clamped_share": float(near_limit),
        }
    assert isinstance(router, Categoricals)
    shares = {"posterior": posterior.log_p.exp().mean(0).tolist(), "router": router.log_p.exp().mean(0).tolist()}
    return {f"latent/{name}_share/z{k}": share for name, of in shares.items() for k, share in enumerate(of, start=1)}


def run_disentangle(config: Config, records: RunRecords, stop: StopRequest) -> Metrics:
    """Factorise a base model and measure what the latent carries.

    Returns:
        the final metrics.

    Raises:
        TrainerError: the base does not fit the configuration.
    """
    assert config.base is not None  # `check` refuses a config without
    device = choose_device(config.device)
    backbone = load_backbone(config.base.path, stream_seed(config.seed_of("model"), "markup"))
    if backbone.task is not None and backbone.task != config.task:
        raise TrainerError(
            f"task: the base in {config.base.path} was trained on {backbone.task.model_dump_json()}, this run asks for "
            f"{config.task.model_dump_json()}. Take the base's task, or another base."
        )
    backbone.model.to(device)  # pyright: ignore[reportArgumentType]  # a decorator in transformers hides self
    pool = _pool(config, backbone, records)
    neutral = is_position_neutral(backbone, config)
    source = PairSource(config, backbone, pool, position_neutral=neutral)  # before the base is taken over
    require_beginnings(config, total_steps(config.train, source))
    tell_of_approximations(config)
    model = build_latent_model(backbone, config).to(device)
    source.rows.whiten(model, torch.arange(min(len(source.rows), WHITENING_PAIRS)))
    if config.train.gradient_checkpointing:
        checkpoint_layers(model, model.acting_as_now)
    writer = Writer(model, neutral, pool.max_new_tokens, config.eval.batch_size)
    learner = LatentLearner(model, source, writer, pool.pairs["validation"], config)
    progress = train(
        learner,
        source,
        with_posterior_rate(config),
        validate_every=config.eval.every,
        series=config.series(),
        device=device,
        records=records,
        stop=stop,
    )
    require_applied(config, progress.step, progress.applied_steps)
    return {
        **evaluate_latents(config, writer, pool),
        **learner.terms(progress.step),
        "loss/val/total__comparable": False,
        "train/step": progress.step,
        "train/tokens": progress.tokens,
        "train/core_seconds": progress.core_seconds,
        "train/tokens_per_core_second": progress.tokens / max(progress.core_seconds, 1e-9),
        "train/refresh_count": source.draws(progress.step),
        **{f"train/applied_steps/{term}": steps for term, steps in progress.applied_steps.items()},
        "model/parameters": sum(p.numel() for p in model.parameters()),
        "model/trained_parameters": sum(p.numel() for p in model.trainable().values()),
        "provenance/base_sha256": backbone.sha256,
        "provenance/pool_sha256": pool.sha256,
    }


def tell_of_approximations(config: Config) -> None:
    """Say on standard error what a run computes otherwise than its formula: a marginal over part of a batch."""
    train, key = config.train, "router_marginal_kl_to_prior_weight"
    if train.accumulation > 1 and first_step_above_0(getattr(config.objective, key)) is not None:
        print(
            f"objective.{key}: the marginal is taken over each micro-batch of {train.batch_size} records, not over the "
            f"{train.batch_size * train.accumulation} of a step (train.accumulation {train.accumulation}).",
            file=sys.stderr,
        )


def with_posterior_rate(config: Config) -> TrainConfig:
    """Return how to train, with the kind of latent's own posterior rate where none is given."""
    if config.train.posterior_lr_scale is not None:
        return config.train
    return config.train.model_copy(update={"posterior_lr_scale": POSTERIOR_LR_SCALE[config.latent.kind]})


def _pool(config: Config, backbone: Backbone, records: RunRecords) -> Pool:
    """Take the base's pool, or this run's own from an earlier try, or make one."""
    description = describe(config, backbone.sha256)
    for folder in (backbone.folder, records.pool_folder):
        pool = load_pool(folder, description) if folder is not None else None
        if pool is not None:
            return pool
    pool = build_pool(config, backbone.model, backbone.tokenizer, backbone.sha256)
    save_pool(records.pool_folder, pool)
    return pool
