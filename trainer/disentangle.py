"""Mode ``disentangle``: factorise a given base model p(y|x) through a latent z."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, Tokenizer, load_backbone
from trainer.batches import entangled_rows, generator_rows
from trainer.config import Config, TrainConfig
from trainer.continuous import LOG_VAR_LIMIT
from trainer.distributions import Categoricals, Distributions, Gaussians
from trainer.environment import choose_device
from trainer.errors import TrainerError
from trainer.evaluate import (
    Metrics,
    answer_quality,
    centroid_metrics,
    judge,
    posterior_of,
    probe_metrics,
    sample_through_router,
)
from trainer.guard import TermGuard, require_applied
from trainer.latents import LatentModel, build_latent_model, is_position_neutral
from trainer.loop import batch_order, train
from trainer.objective import Forward, Surprise, evaluate_objective, fractions, join
from trainer.pool import Pairs, Pool, build_pool, describe, load_pool, save_pool, valid_pairs
from trainer.randomness import stream, stream_seed
from trainer.records import RunRecords
from trainer.stop import StopRequest
from trainer.tasks import TASKS
from trainer.weights import first_step_above_0, weights_at

POSTERIOR_LR_SCALE = {"continuous": 0.5, "discrete": 0.2}
"""Default of `train.posterior_lr_scale`: at the generator's rate the posterior saturates before z means anything."""


class PairRows:
    """N pairs in both layouts, with the base model's surprise, ready to be batched.

    Attributes:
        lengths: (N,), tokens of the generator's records.
    """

    def __init__(self, pairs: Pairs, tokenizer: Tokenizer, *, position_neutral: bool) -> None:
        self._entangled = entangled_rows(pairs.x, pairs.y, tokenizer)
        self._generator = generator_rows(pairs.x, pairs.y, tokenizer, position_neutral=position_neutral)
        counts = [len(y) + 2 for y in pairs.y]  # targets
        self._baselines, self._entropies = pairs.baseline.split(counts), pairs.entropy.split(counts)
        self.lengths = self._generator.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def forward(
        self, model: LatentModel, index: Tensor, rng: torch.Generator | None, *, divergence: bool = False
    ) -> Forward:
        """Run the model on some pairs.

        Args:
            model: router, generator and posterior.
            index: (B,), which pairs.
            rng: of the posterior's samples; None: its mode instead.
            divergence: whether to compare the latents' predictions.
        """
        return model(
            self._entangled.take(index).to(model.device),
            self._generator.take(index).to(model.device),
            self._surprise(index, model.device),
            rng,
            divergence=divergence,
        )

    def tokens(self, index: Tensor) -> int:
        """Return the tokens that generator and posterior read for some pairs, padding left out."""
        return int(self._generator.lengths[index].sum() + self._entangled.lengths[index].sum())

    def whiten(self, model: LatentModel, index: Tensor) -> None:
        """Start the posterior head from these pairs."""
        model.whiten_posterior(self._entangled.take(index).to(model.device))

    def _surprise(self, index: Tensor, device: torch.device) -> Surprise:
        chosen = index.tolist()
        counts = torch.tensor([len(self._baselines[i]) for i in chosen])
        return Surprise(
            torch.cat([self._baselines[i] for i in chosen]).to(device),
            torch.cat([self._entropies[i] for i in chosen]).to(device),
            torch.arange(len(chosen)).repeat_interleave(counts).to(device),
        )


class LatentLearner:
    """The conditional ELBO with its auxiliary terms, on pairs of the pool."""

    def __init__(self, model: LatentModel, train_rows: PairRows, validation_rows: PairRows, config: Config) -> None:
        self._model, self._train, self._validation, self._config = model, train_rows, validation_rows, config
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
        forward = self._train.forward(self._model, index, rng, divergence=self._divergence)
        objective = evaluate_objective(forward, self._config.objective, step)
        if part == 0:
            self._guard.look(objective, weights_at(self._config.objective, self._model.kind, step))
        return objective.total, objective.series()

    def tokens(self, index: Tensor) -> int:
        """Return the tokens that generator and posterior read."""
        return self._train.tokens(index)

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
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
            **latent_usage(forward.posterior, forward.router),
        }

    def _stream(self, *use: str | int) -> torch.Generator:
        return stream(self._config.seed, *use, device=self._model.device)


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
    backbone = load_backbone(config.base.path, stream_seed(config.seed, "markup"))
    if backbone.task is not None and backbone.task != config.task:
        raise TrainerError(
            f"task: the base in {config.base.path} was trained on {backbone.task.model_dump_json()}, this run asks for "
            f"{config.task.model_dump_json()}. Take the base's task, or another base."
        )
    backbone.model.to(device)  # pyright: ignore[reportArgumentType]  # a decorator in transformers hides self
    pool = _pool(config, backbone, records)
    neutral = is_position_neutral(backbone, config)
    model = build_latent_model(backbone, config).to(device)
    tokenizer, train_pairs = backbone.tokenizer, pool.pairs["train"]
    if config.data.drop_invalid:
        train_pairs = train_pairs.select(valid_pairs(train_pairs, tokenizer, config.task.name))
    train_rows = PairRows(train_pairs, tokenizer, position_neutral=neutral)
    validation_rows = PairRows(pool.pairs["validation"], tokenizer, position_neutral=neutral)
    order = batch_order(train_rows.lengths, config.train, config.seed)
    train_rows.whiten(model, torch.arange(min(len(train_rows), 256)))
    learner = LatentLearner(model, train_rows, validation_rows, config)
    progress = train(
        learner,
        order,
        with_posterior_rate(config),
        validate_every=config.eval.every,
        series=config.series(),
        device=device,
        records=records,
        stop=stop,
    )
    require_applied(config, progress.step, progress.applied_steps)
    return {
        **_evaluate(config, model, tokenizer, pool, position_neutral=neutral),
        **learner.validate(progress.step),
        "loss/val/total__comparable": False,
        "train/step": progress.step,
        "train/tokens": progress.tokens,
        "train/core_seconds": progress.core_seconds,
        "train/tokens_per_core_second": progress.tokens / max(progress.core_seconds, 1e-9),
        **{f"train/applied_steps/{term}": steps for term, steps in progress.applied_steps.items()},
        "model/parameters": sum(p.numel() for p in model.parameters()),
        "model/trained_parameters": sum(p.numel() for p in model.trainable().values()),
        "provenance/base_sha256": backbone.sha256,
        "provenance/pool_sha256": pool.sha256,
    }


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


def _evaluate(
    config: Config, model: LatentModel, tokenizer: Tokenizer, pool: Pool, *, position_neutral: bool
) -> Metrics:
    """Measure answers and latents on the pool's test pairs."""
    pairs, task = pool.pairs["test"], config.task.name
    device = model.device
    samples = sample_through_router(
        model,
        tokenizer,
        pairs.x,
        position_neutral=position_neutral,
        max_tokens=pool.max_new_tokens,
        temperature=0.0 if config.eval.decoding == "greedy" else 1.0,
        batch_size=config.eval.batch_size,
        generator=stream(config.seed, "router_test", device=device),
    )
    routed = judge(task, tokenizer, pairs.x, samples.y)
    given = judge(task, tokenizer, pairs.x, pairs.y)
    q = posterior_of(model, tokenizer, pairs, config.eval.batch_size)
    z = q.value_features(q.sample(stream(config.seed, "posterior_test")))
    router, posterior = "router_test_final", "posterior_test_final"
    return {
        **answer_quality(router, routed, TASKS[task].strategies),
        f"{router}/decoding": config.eval.decoding,
        f"{router}/split_policy": config.task.split_policy,
        **probe_metrics(f"{router}/router_probe_accuracy", samples.z, routed, pairs.x),
        **probe_metrics(f"{router}/x_only_probe_accuracy", samples.mu, routed, pairs.x),
        **centroid_metrics(router, samples.z, routed),
        **probe_metrics(f"{posterior}/posterior_mu_probe_accuracy", q.features(), given, pairs.x),
        **probe_metrics(f"{posterior}/posterior_sampled_probe_accuracy", z, given, pairs.x),
        **centroid_metrics(posterior, q.features(), given),
    }
