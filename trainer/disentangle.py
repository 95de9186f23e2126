"""Mode ``disentangle``: factorise a given base model p(y|x) through a latent z."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.backbone import Backbone, Tokenizer, load_backbone
from trainer.batches import entangled_rows, generator_rows
from trainer.config import Config
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
from trainer.latents import LOG_VAR_LIMIT, LatentModel
from trainer.loop import batch_order, train
from trainer.objective import Forward, evaluate_objective, fractions
from trainer.pool import Pairs, Pool, build_pool, describe, load_pool, save_pool, valid_pairs
from trainer.randomness import stream, stream_seed
from trainer.records import RunRecords
from trainer.stop import StopRequest
from trainer.tasks import TASKS


class PairRows:
    """N pairs in both layouts, with the base model's surprise, ready to be batched.

    Attributes:
        lengths: (N,), tokens of the generator's records.
    """

    def __init__(self, pairs: Pairs, tokenizer: Tokenizer, *, position_neutral: bool) -> None:
        self._entangled = entangled_rows(pairs.x, pairs.y, tokenizer)
        self._generator = generator_rows(pairs.x, pairs.y, tokenizer, position_neutral=position_neutral)
        self._baselines = pairs.baseline.split([len(y) + 2 for y in pairs.y])  # N times (targets,)
        self.lengths = self._generator.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def forward(self, model: LatentModel, index: Tensor, noise: Tensor) -> Forward:
        """Run the model on some pairs.

        Args:
            model: router, generator and posterior.
            index: (B,), which pairs.
            noise: (S, B, d_z), standard normal.
        """
        baseline = torch.cat([self._baselines[i] for i in index.tolist()]).to(model.device)
        return model(
            self._entangled.take(index).to(model.device), self._generator.take(index).to(model.device), baseline, noise
        )

    def tokens(self, index: Tensor) -> int:
        """Return the tokens that generator and posterior read for some pairs, padding left out."""
        return int(self._generator.lengths[index].sum() + self._entangled.lengths[index].sum())

    def whiten(self, model: LatentModel, index: Tensor) -> None:
        """Start the posterior head from these pairs."""
        model.whiten_posterior(self._entangled.take(index).to(model.device))


class LatentLearner:
    """The conditional ELBO with its auxiliary terms, on pairs of the pool."""

    def __init__(self, model: LatentModel, train_rows: PairRows, validation_rows: PairRows, config: Config) -> None:
        self._model, self._train, self._validation, self._config = model, train_rows, validation_rows, config

    def parameters_by_name(self) -> Mapping[str, nn.Parameter]:
        """Return the adapted weights, the heads and the injection."""
        return self._model.trainable()

    def loss(self, index: Tensor, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective on a micro-batch, and all its terms."""
        noise = self._noise(len(index), "noise", step, part)
        objective = evaluate_objective(self._train.forward(self._model, index, noise), self._config.objective, step)
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
            self._validation.forward(self._model, index, self._noise(len(index), "validation", number))
            for number, index in enumerate(torch.arange(len(self._validation)).split(self._config.eval.batch_size))
        ]
        forward = Forward(
            log_likelihood=torch.cat([part.log_likelihood for part in parts], dim=1),
            baseline=torch.cat([part.baseline for part in parts]),
            mu_q=torch.cat([part.mu_q for part in parts]),
            log_var_q=torch.cat([part.log_var_q for part in parts]),
            mu_p=torch.cat([part.mu_p for part in parts]),
            log_var_p=torch.cat([part.log_var_p for part in parts]),
        )
        objective = evaluate_objective(forward, self._config.objective, step)
        shares = fractions({name: float(value) for name, value in objective.weighted.items()})
        near_limit = (forward.log_var_q.abs() > LOG_VAR_LIMIT * torch.tanh(torch.tensor(1.0))).float().mean()
        return {
            **{f"loss/val/{name}": float(value) for name, value in objective.series().items()},
            **{f"loss/val/fraction/{name}": share for name, share in shares.items()},
            "latent/sigma_q_mean": float((forward.log_var_q / 2).exp().mean()),
            "latent/sigma_p_mean": float((forward.log_var_p / 2).exp().mean()),
            "latent/log_var_clamped_share": float(near_limit),
        }

    def _noise(self, records: int, *use: str | int) -> Tensor:
        """Return standard normal noise, (S, B, d_z), for one use."""
        device = self._model.device
        shape = (self._config.latent.samples, records, self._config.latent.dim)
        return torch.randn(shape, generator=stream(self._config.seed, *use, device=device), device=device)


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
    pooling = config.latent.pooling or ("last" if backbone.pretrained else "mean")
    neutral = config.latent.position_neutral
    if neutral is None:
        neutral = not backbone.pretrained
    model = LatentModel(
        backbone,
        config.adaptation,
        dim=config.latent.dim,
        pooling=pooling,
        seed=stream_seed(config.seed, "weights"),
    ).to(device)
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
        config.train,
        validate_every=config.eval.every,
        series=config.series(),
        device=device,
        records=records,
        stop=stop,
    )
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
    mu, log_var = posterior_of(model, tokenizer, pairs, config.eval.batch_size)
    z = mu + (log_var / 2).exp() * torch.randn(mu.shape, generator=stream(config.seed, "posterior_test"))
    router, posterior = "router_test_final", "posterior_test_final"
    return {
        **answer_quality(router, routed, TASKS[task].strategies),
        f"{router}/decoding": config.eval.decoding,
        f"{router}/split_policy": config.task.split_policy,
        **probe_metrics(f"{router}/router_probe_accuracy", samples.z, routed, pairs.x),
        **probe_metrics(f"{router}/x_only_probe_accuracy", samples.mu, routed, pairs.x),
        **centroid_metrics(router, samples.z, routed),
        **probe_metrics(f"{posterior}/posterior_mu_probe_accuracy", mu, given, pairs.x),
        **probe_metrics(f"{posterior}/posterior_sampled_probe_accuracy", z, given, pairs.x),
        **centroid_metrics(posterior, mu, given),
    }
