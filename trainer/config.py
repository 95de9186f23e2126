"""What a run can be told: the strict shape of its configuration, without importing anything heavy."""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from trainer.weights import ScheduledWeight

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class TaskConfig(Section):
    """What the sequences are about.

    Attributes:
        name: one of the tasks in `trainer.tasks`.
        params: ranges of its problems; what is left out has the task's own default.
        strategy_mix: strategy name to weight; absent: all strategies equally often.
        split_policy: ``heldout``: inputs for validation and test are never trained on; ``overlap``: all are drawn
            from all inputs (accuracy is then no generalisation, and the metrics say so).
    """

    name: StrictStr
    params: dict[str, Any] = {}
    strategy_mix: dict[str, Weight] | None = None
    split_policy: Literal["heldout", "overlap"] = "heldout"


class BaseConfig(Section):
    """Where the model to disentangle comes from.

    Attributes:
        path: ``checkpoint`` folder of a base run, any name or path that ``AutoModelForCausalLM`` takes, or a GGUF file.
    """

    path: StrictStr


SIZES = {
    "s": {"width": 64, "layers": 3, "heads": 4, "kv_heads": 4, "mlp_width": 192},
    "m": {"width": 256, "layers": 6, "heads": 8, "kv_heads": 8, "mlp_width": 768},
    "l": {"width": 512, "layers": 12, "heads": 8, "kv_heads": 8, "mlp_width": 1536},
}
"""Shapes of base models by name: 164 thousand, 5.1 and 41 million parameters."""


class ModelConfig(Section):
    """Shape of a base model that is trained from scratch (Qwen2 architecture).

    Attributes:
        size: a shape of `SIZES`; single keys beside it take its place.
    """

    size: Literal["s", "m", "l"] = "s"
    width: Count = 64
    layers: Count = 3
    heads: Count = 4
    kv_heads: Count = 4
    mlp_width: Count = 192
    tie_embeddings: StrictBool = True
    init_std: Positive = 0.02

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        """Take what is not given from the size's shape."""
        size = raw.get("size") if isinstance(raw, dict) else None
        return {**SIZES[size], **raw} if isinstance(size, str) and size in SIZES else raw


class LatentConfig(Section):
    """The latent variable z.

    Attributes:
        kind: ``continuous``: Gaussian router and posterior, injected as a projected vector. ``discrete``: one of
            `count` tokens; the router is the next-token distribution.
        dim: continuous: number of dimensions of z.
        count: discrete: number of values of z; to be given.
        pooling: what the posterior reads: ``mean`` over the target positions or the ``last`` state (at ``<eos>``).
            Default: mean for a model from scratch, last for a pretrained one.
        position_neutral: whether the three tokens of the latent slot share the position of ``</x>``, so that the
            model starts out equal to the base. Default: true for a model from scratch, false for a pretrained one.
        samples: continuous: latent samples per record and step.
    """

    kind: Literal["continuous", "discrete"] = "continuous"
    dim: Count = 8
    count: Annotated[int, Field(ge=2, le=8, strict=True)] | None = None
    pooling: Literal["mean", "last"] | None = None
    position_neutral: StrictBool | None = None
    samples: Count = 1


LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""All linear layers in a block of a Qwen2 or Llama model."""


class AdaptationConfig(Section):
    """What is trained beside the heads.

    Attributes:
        kind: ``full``: all weights of two copies of the base; ``lora``: low-rank additions, by peft; ``head_only``:
            nothing, the backbone stays the base (a discrete latent's token rows count as heads).
        rank, alpha: of LoRA.
        targets: of LoRA; last names of the linear layers that get one, in every block.
    """

    kind: Literal["full", "lora", "head_only"] = "full"
    rank: Count = 8
    alpha: Positive = 16.0
    targets: Annotated[tuple[StrictStr, ...], Field(min_length=1)] = LAYERS


class ObjectiveConfig(Section):
    """Weights of the terms of the objective; see the formulas in ``docs/trainer.md``.

    A weight is a number, or a list of points ``[step, weight]``: linear in between, constant outside.

    Attributes:
        kl_warmup_steps: beta grows from 0 over that many steps.
        reduction: the reconstruction is a mean over tokens or over sequences.
        baseline_normalized: whether the reconstruction is divided by the base model's own.
        token_weighted_mode: ``additive``: the token-weighted reconstruction comes on top of the plain one;
            ``replace``: instead of it; ``curriculum``: the plain one's weight grows from 0 to 1 over
            `curriculum_steps`.
        token_weighted_gamma: exponent of the base model's entropy in a token's weight.
        inter_latent_divergence_positions: ``all`` targets count alike, or ``weighted`` by the same token weights.
    """

    beta: ScheduledWeight = 0.1
    kl_warmup_steps: CountOrZero = 0
    reduction: Literal["token_mean", "sequence_mean"] = "token_mean"
    baseline_normalized: StrictBool = True
    posterior_variance_weight: ScheduledWeight = 0.0
    router_marginal_kl_to_prior_weight: ScheduledWeight = 0.0
    router_support_weight: ScheduledWeight = 0.0
    posterior_entropy_weight: ScheduledWeight = 0.0
    token_weighted_reconstruction_weight: ScheduledWeight = 0.0
    token_weighted_mode: Literal["additive", "replace", "curriculum"] = "additive"
    token_weighted_gamma: Positive = 1.0
    curriculum_steps: Count = 1000
    inter_latent_divergence_weight: ScheduledWeight = 0.0
    inter_latent_divergence_positions: Literal["all", "weighted"] = "all"


class DataConfig(Section):
    """What is trained on.

    Attributes:
        records: base: distinct draws of ground-truth records to train on, read again and again.
        source: of the pairs that a base leaves and that are trained on when it is disentangled: ``model``: y is sampled
            from the base model; ``groundtruth``: a strategy writes it.
        drop_invalid: disentangle: leave out pairs whose trace no strategy writes.
        sampling: disentangle: ``pool``: train on the fixed pool; ``each_step``: every step draws its own pairs.
        refresh_every: disentangle, with ``pool``: steps after which the training pairs are drawn anew; absent: never.
    """

    records: Count = 16384
    source: Literal["model", "groundtruth"] = "model"
    drop_invalid: StrictBool = False
    sampling: Literal["pool", "each_step"] = "pool"
    refresh_every: Count | None = None


class PoolConfig(Section):
    """The fixed pool of pairs (x, y) with the base model's surprise at each token.

    A base run leaves one in its checkpoint; a run that disentangles it takes that one where it is the pool that this
    section describes, and makes one of its own otherwise.

    Attributes:
        train_records, validation_records, test_records: pairs for each use.
        seed: of the draws; apart from the run's seed, so that runs with several seeds share their data.
        temperature: at which the base model is sampled.
    """

    train_records: Count = 4096
    validation_records: Count = 512
    test_records: Count = 1000
    seed: CountOrZero = 0
    temperature: Positive = 1.0


class TrainConfig(Section):
    """How it is optimised.

    Attributes:
        steps: optimiser steps; or else `epochs` over the pool.
        max_sequences_per_epoch: an epoch ends after that many sequences at the latest.
        batch_size: sequences in a micro-batch.
        accumulation: micro-batches in an optimiser step.
        optimizer: ``adamw``, or ``muon`` for the backbone's matrices with AdamW for the rest.
        lr: learning rate of the matrices of the backbone; `head_lr` that of heads and injection.
        posterior_lr_scale: learning rate of the posterior's backbone relative to the generator's; default: 0.5 with a
            continuous latent, 0.2 with a discrete one.
        schedule: ``constant``; ``cosine`` to `final_lr_share`; ``warmup_flat_linear``: up over `warmup_steps`,
            flat until 60 % of the steps, linearly down to `final_lr_share`.
        precision: ``bfloat16``: products in bfloat16, weights in float32; ``auto``: that where the hardware has units
            for it, else ``float32``.
        gradient_checkpointing: whether layers are computed again backwards instead of kept: less memory, more time.
        compile: base: whether training goes through ``torch.compile``; it takes a minute and a C++ compiler.
        clip: largest norm of the gradient over all parameters; 0 for no clipping.
        checkpoint_every_s: seconds between checkpoints.
        log_every: steps between two points of the series in ``history.jsonl``.
    """

    steps: Count | None = None
    epochs: Count | None = None
    max_sequences_per_epoch: Count | None = None
    batch_size: Count = 32
    accumulation: Count = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 1e-3
    head_lr: Positive = 1e-3
    posterior_lr_scale: Share | None = None
    weight_decay: Weight = 0.0
    schedule: Literal["constant", "cosine", "warmup_flat_linear"] = "constant"
    warmup_steps: CountOrZero = 0
    final_lr_share: Share = 0.02
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: StrictBool = False
    compile: StrictBool = False
    clip: Weight = 1.0
    checkpoint_every_s: Positive = 60.0
    log_every: Count = 10


class EvalConfig(Section):
    """How it is measured.

    Attributes:
        every: steps between validations; 0: only at the end.
        batch_size: sequences in a batch of evaluation or generation.
        decoding: ``sample`` at temperature 1, or ``greedy``, for the accuracy of the answers.
        posterior: latents of given pairs (validation loss, answers under the posterior's z) are drawn from the full
            posterior (``sample``; the loss of a discrete one is summed), or are its ``mean`` (discrete: its most
            probable value).
        answers: validation inputs that are answered at each validation, for the series of accuracies, probes and
            alignment; 0: none.
        controlled_sampled: discrete: decode each latent also at temperature 1, beside greedily.
    """

    every: CountOrZero = 0
    batch_size: Count = 256
    decoding: Literal["sample", "greedy"] = "sample"
    posterior: Literal["sample", "mean"] = "sample"
    answers: CountOrZero = 256
    controlled_sampled: StrictBool = False


Purpose = Literal["data", "model", "sampling"]


class SeedsConfig(Section):
    """Seeds for single purposes; each is the run's `seed` where it is absent.

    Attributes:
        data: ground-truth records, order of the batches, inputs that are drawn anew.
        model: new weights and embedding rows.
        sampling: samples of z, of traces, and of evaluations.
    """

    data: CountOrZero | None = None
    model: CountOrZero | None = None
    sampling: CountOrZero | None = None


class Config(Section):
    """One run of the trainer.

    Attributes:
        mode: ``base``: train the entangled model p(y|x); ``disentangle``: factorise a given one through z.
        seed: of all that is random, the pool excepted; see `seeds` and `PoolConfig.seed`.
        device: ``auto`` takes CUDA where there is one.
        report_to: trackers that are told the series beside the run's own records.
    """

    mode: Literal["base", "disentangle"]
    seed: CountOrZero = 0
    seeds: SeedsConfig = SeedsConfig()
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    task: TaskConfig
    base: BaseConfig | None = None
    model: ModelConfig = ModelConfig()
    latent: LatentConfig = LatentConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig = DataConfig()
    pool: PoolConfig = PoolConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    def seed_of(self, purpose: Purpose) -> int:
        """Return the seed for one purpose: its own, or the run's."""
        own: int | None = getattr(self.seeds, purpose)
        return self.seed if own is None else own

    def series(self) -> str:
        """Name the series of steps that this configuration describes: only its own checkpoint is gone on from.

        How a batch is split into micro-batches does not count, nor whether layers are computed again, so a run that was
        short of memory may go on with half the batch and twice the accumulation; nor does what is only written, saved
        or measured more often.

        Returns:
            SHA-256, hex.
        """
        record = self.model_dump(mode="json")
        train = record["train"]
        train["rows"] = train.pop("batch_size") * train.pop("accumulation")
        del train["log_every"], train["checkpoint_every_s"], train["gradient_checkpointing"], record["eval"]
        del record["device"], record["report_to"], record["model"]["size"]
        record["seeds"] = [self.seed_of(purpose) for purpose in get_args(Purpose)]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
