"""Two low-rank adapters (LoRA) on one set of frozen weights, by peft: the generator's and the posterior's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.config import AdaptationConfig
from trainer.errors import TrainerError, suggestion

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
    """Put both adapters on a causal model; each also trains rows of its own for the new tokens that it reads.

    Raises:
        TrainerError: a target is no linear layer of the model's blocks.
    """
    from peft import LoraConfig, get_peft_model
    from torch import nn

    from trainer.merged_lora import MergedLinear

    _require_layers(model, adaptation.targets)

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


def _require_layers(model: "PreTrainedModel", targets: Sequence[str]) -> None:
    """Refuse names that peft would pass over in silence, or put an adapter on that no part here has."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    layers = [name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            known = ", ".join(sorted({name.rsplit(".")[-1] for name in layers}))
            near = suggestion(target, known.split(", "))
            raise TrainerError(f"adaptation.targets: the model has no layer {target!r}.{near} Take some of {known}.")


def switch_to(model: "PeftModel", adapter: str) -> None:
    """Make one adapter act, and leave both trainable.

    peft's `set_adapter` freezes all others: a joint backward would then give them no gradient, and no error.
    """
    model.set_adapter(adapter)
    model.set_requires_grad([GENERATOR, POSTERIOR])
