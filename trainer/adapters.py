"""Two low-rank adapters (LoRA) on one set of frozen weights, by peft: the generator's and the posterior's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.config import AdaptationConfig

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

GENERATOR, POSTERIOR = "generator", "posterior"
"""Names of the two adapters."""


def add_adapters(
    model: "PreTrainedModel",
    adaptation: AdaptationConfig,
    *,
    generator_token_ids: Sequence[int],
    posterior_token_ids: Sequence[int],
) -> "PeftModel":
    """Put both adapters on a causal model; each also trains rows of its own for the new tokens that it reads."""
    from peft import LoraConfig, get_peft_model
    from torch import nn

    from trainer.merged_lora import MergedLinear

    def config(token_ids: Sequence[int]) -> "LoraConfig":
        made = LoraConfig(
            r=adaptation.rank,
            lora_alpha=adaptation.alpha,  # pyright: ignore[reportArgumentType]  # any number will do
            target_modules=list(adaptation.targets),
            lora_dropout=0.0,
            trainable_token_indices=list(token_ids) or None,
        )
        made._register_custom_module({nn.Linear: MergedLinear})  # peft's documented way to put it in
        return made

    adapted = get_peft_model(model, config(generator_token_ids), adapter_name=GENERATOR)
    adapted.add_adapter(POSTERIOR, config(posterior_token_ids))
    return adapted.eval()


def switch_to(model: "PeftModel", adapter: str) -> None:
    """Make one adapter act, and leave both trainable.

    peft's `set_adapter` freezes all others: a joint backward would then give them no gradient, and no error.
    """
    model.set_adapter(adapter)
    model.set_requires_grad([GENERATOR, POSTERIOR])
