"""Making the factorised model that a configuration describes."""

from trainer.backbone import Backbone
from trainer.config import Config
from trainer.continuous import ContinuousModel
from trainer.discrete import DiscreteModel
from trainer.factorised import LatentModel
from trainer.randomness import stream_seed

__all__ = ["LatentModel", "build_latent_model", "is_position_neutral"]


def build_latent_model(backbone: Backbone, config: Config) -> LatentModel:
    """Make router, generator and posterior from a base, which is taken over; the posterior head is still to be set."""
    latent, seed = config.latent, stream_seed(config.seed_of("model"), "weights")
    pooling = latent.pooling or ("last" if backbone.pretrained else "mean")
    if latent.kind == "discrete":
        assert latent.count is not None  # `check` refuses a discrete latent without
        return DiscreteModel(backbone, config.adaptation, count=latent.count, pooling=pooling, seed=seed)
    return ContinuousModel(
        backbone, config.adaptation, dim=latent.dim, samples=latent.samples, pooling=pooling, seed=seed
    )


def is_position_neutral(backbone: Backbone, config: Config) -> bool:
    """Say whether the latent slot is to be neutral (see `trainer.batches.slot_positions`)."""
    neutral = config.latent.position_neutral
    return not backbone.pretrained if neutral is None else neutral
