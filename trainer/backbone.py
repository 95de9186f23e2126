"""The entangled base model p(y|x): made from scratch, or taken from a base run or from any pretrained causal LM."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.config import ModelConfig, TaskConfig
from trainer.environment import quick_imports
from trainer.errors import TrainerError
from trainer.records import STATE_FILE, write_json
from trainer.tokenizer import CHARACTERS, CharTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_POSITIONS = 512
"""Positions of a model from scratch; rotary embeddings make this a limit of the config only."""

BASE_RECORD = "base.json"
"""Written last into a base run's checkpoint folder: where it stands, model, tokenizer and pool are whole."""

MARKUP = ("<x>", "</x>", "<y>", "</y>", "<z>", "</z>", "<z_empty>", *(f"<z{k}>" for k in range(1, 9)))
"""Tokens that a pretrained tokenizer is extended by: the canonical record's, and 8 discrete latents."""


ALL_CHARACTERS = "".join(CHARACTERS)
"""What inputs and traces are written in."""


class Tokenizer(Protocol):
    """What the trainer needs of a tokenizer: ids of the markup, and text to ids and back."""

    pad: int
    bos: int
    eos: int
    x_open: int
    x_close: int
    y_open: int
    y_close: int
    z_open: int
    z_close: int
    z_empty: int

    def latent(self, k: int) -> int:
        """Return the id of ``<zk>``, k from 1 on."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without markup."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; markup appears as such."""
        ...


class PretrainedTokenizer:
    """A pretrained tokenizer, extended by the markup.

    Args:
        tokenizer: ``PreTrainedTokenizerBase`` of transformers; changed in place.
    """

    def __init__(self, tokenizer: Any) -> None:
        missing = [token for token in MARKUP if token not in tokenizer.get_vocab()]
        if tokenizer.bos_token_id is None:
            missing.append("<bos>")
        if tokenizer.eos_token_id is None:
            missing.append("<eos>")
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
        ids = tokenizer.get_vocab()
        self.eos: int = ids["<eos>"] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        self.bos: int = ids["<bos>"] if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.x_open, self.x_close = ids["<x>"], ids["</x>"]
        self.y_open, self.y_close = ids["<y>"], ids["</y>"]
        self.z_open, self.z_close, self.z_empty = ids["<z>"], ids["</z>"], ids["<z_empty>"]
        self._latents = [ids[f"<z{k}>"] for k in range(1, 9)]
        self.new_ids = sorted(ids[token] for token in missing)
        self._tokenizer = tokenizer

    def latent(self, k: int) -> int:
        """Return the id of ``<zk>``, k from 1 on."""
        return self._latents[k - 1]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without markup."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; markup appears as such."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@dataclass(frozen=True)
class Backbone:
    """A base model and what is known of it.

    Attributes:
        model: the causal LM.
        tokenizer: its tokenizer.
        new_token_ids: rows of the embedding that its own training never saw: LoRA trains them whole.
        sha256: of its weights.
        pretrained: not made by a base run: it has neither a task nor a pool.
        folder: of a base run's checkpoint.
        task: what a base run was trained on.
    """

    model: "PreTrainedModel"
    tokenizer: Tokenizer
    new_token_ids: list[int]
    sha256: str
    pretrained: bool
    folder: Path | None = None
    task: TaskConfig | None = None


def build_from_scratch(config: ModelConfig, tokenizer: CharTokenizer, seed: int) -> "PreTrainedModel":
    """Make a small Qwen2 with random weights.

    Only the one submodule of transformers is imported: that takes half as long as the package's own entrance.
    """
    with quick_imports():
        from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
        from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=config.tie_embeddings,
            initializer_range=config.init_std,
            pad_token_id=tokenizer.pad,
            bos_token_id=tokenizer.bos,
            eos_token_id=tokenizer.eos,
        )
    )


def save_base(folder: Path, model: "PreTrainedModel", tokenizer: CharTokenizer, task: TaskConfig) -> str:
    """Write a trained base model as a folder that `load_backbone` and transformers can read.

    Returns:
        the SHA-256 of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BASE_RECORD).unlink(missing_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    for path in folder.glob("*.safetensors"):  # safetensors lets nobody but the owner read, whatever the umask is
        shutil.copymode(folder / "config.json", path)
    sha256 = weights_sha256(model)
    write_json(folder / BASE_RECORD, {"task": task.model_dump(mode="json"), "weights_sha256": sha256})
    return sha256


def load_backbone(path: str, seed: int) -> Backbone:
    """Load the model that is to be disentangled.

    Args:
        path: a base run's checkpoint folder, a name or path for ``AutoModelForCausalLM``, or a GGUF file.
        seed: for the rows of markup tokens that a pretrained model does not have.

    Raises:
        TrainerError: there is no usable model.
    """
    folder = Path(path)
    if (folder / BASE_RECORD).is_file():
        return _load_base(folder)
    if (folder / STATE_FILE).exists():
        raise TrainerError(
            f"base.path: {path} is the checkpoint of a base run that has not ended. Wait for it, or resume it."
        )
    return _load_pretrained(path, seed)


def weights_sha256(model: nn.Module) -> str:
    """Hash a model's weights, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Parts:
    """A causal LM taken apart, so that logits are made where they are needed only.

    Attributes:
        embed: ids (...) to embeddings (..., d).
        decoder: embeddings to final hidden states; see `hidden_states`.
        head: hidden states (..., d) to logits (..., V).
        config: of the model.
    """

    embed: nn.Module
    decoder: nn.Module
    head: nn.Module
    config: Any

    @classmethod
    def of(cls, model: Any) -> "Parts":
        """Take a model apart; adapters inside it stay in force."""
        return cls(model.get_input_embeddings(), model.base_model, model.get_output_embeddings(), model.config)


def embedding_table(model: Any) -> Tensor:
    """Return the rows of a causal LM's input embedding, (V, d), as it stands."""
    return model.get_input_embeddings().weight


def output_table(model: Any) -> Tensor:
    """Return the rows of a causal LM's output layer, (V, d), as it stands; the input's where the two are tied."""
    return model.get_output_embeddings().weight


def compiled(decoder: nn.Module) -> nn.Module:
    """Return a decoder that shares the given one's weights and runs as ``torch.compile`` makes it.

    Raises:
        TrainerError: it is to run on a CPU, and there is no C++ compiler.
    """
    on_cpu = next(decoder.parameters()).device.type == "cpu"
    if on_cpu and not any(map(shutil.which, ("g++", "clang++", os.environ.get("CXX", "g++")))):
        raise TrainerError("train.compile: there is no C++ compiler on this machine. Install g++, or leave it out.")
    return torch.compile(decoder, dynamic=True)  # pyright: ignore[reportReturnType]  # a module for a module


def checkpoint_layers(model: nn.Module, again: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
    """Let the layers of a model be computed again on the way back instead of keeping what is inside them.

    transformers' own switch acts in training mode only, where dropout would act too, and drops the cache. Here a pass
    that fills a cache (a prefix that several latents share) keeps its layers as they are.

    Args:
        model: any that holds layers of transformers; changed in place, so copy it before, not afterwards.
        again: called when a layer is run; returns the context to run it in again, any number of times.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = _again_backwards(layer.forward, again)


def _again_backwards(
    forward: Callable[..., Any], again: Callable[[], AbstractContextManager[object]]
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None or not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **kwargs)

    return run


def hidden_states(
    decoder: nn.Module, embeddings: Tensor, positions: Tensor, cache: Any = None, visible: Tensor | None = None
) -> Tensor:
    """Run a causal decoder over right-padded rows.

    Padding stands at the end, where a causal model's real tokens never look, so it needs no mask. A mask of ones is
    given all the same: without one transformers takes equal position ids (a neutral latent slot) for packed sequences
    and cuts the attention between them.

    Args:
        decoder: of `Parts`.
        embeddings: (B, L, d).
        positions: (B, L), int64.
        cache: of transformers, extended in place; (B, L) are then the new tokens alone.
        visible: (B, S + L), bool, with S tokens in the cache: which tokens later ones may look at; None: all.

    Returns:
        (B, L, d), behind the final norm.
    """
    if visible is None:
        seen = 0 if cache is None else cache.get_seq_length()
        shape = (embeddings.shape[0], seen + embeddings.shape[1])
        visible = torch.ones(shape, dtype=torch.bool, device=embeddings.device)
    return decoder(
        inputs_embeds=embeddings,
        attention_mask=visible,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def _load_base(folder: Path) -> Backbone:
    with quick_imports():
        from safetensors import SafetensorError
        from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    try:
        record = json.loads((folder / BASE_RECORD).read_bytes())
        task, expected = TaskConfig(**record["task"]), record["weights_sha256"]
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = CharTokenizer.load(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise TrainerError(f"base.path: the base in {folder} is damaged ({first_line}). Run the base again.") from error
    sha256 = weights_sha256(model)
    if sha256 != expected:
        raise TrainerError(
            f"base.path: the weights in {folder} have hash {sha256[:12]}, its record says {expected[:12]}. Run the "
            "base again."
        )
    slot = [tokenizer.z_open, tokenizer.z_close, tokenizer.z_empty]
    return Backbone(model, tokenizer, slot, sha256, pretrained=False, folder=folder, task=task)


def _load_pretrained(path: str, seed: int) -> Backbone:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, options = path, {}
    if Path(path).suffix == ".gguf":
        place, options = str(Path(path).parent), {"gguf_file": Path(path).name}
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        tokenizer = PretrainedTokenizer(AutoTokenizer.from_pretrained(place, **options))
    except (OSError, ValueError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise TrainerError(
            f"base.path: {path!r} is neither a base run's checkpoint nor a model that transformers can load "
            f"({first_line}). Give the folder or the name of one."
        ) from error
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(model.config, name, None) not in {None, 1}:
            raise TrainerError(
                f"base.path: {path!r} rescales its logits ({name}), which is not supported. Take another model."
            )
    read_back = tokenizer.decode(tokenizer.encode(ALL_CHARACTERS))
    if read_back != ALL_CHARACTERS:
        raise TrainerError(
            f"base.path: the tokenizer of {path!r} does not give a trace's text back: {read_back!r} instead of "
            f"{ALL_CHARACTERS!r}. Take a model with a tokenizer that loses nothing."
        )
    sha256 = weights_sha256(model)
    _add_rows(model, tokenizer.new_ids, seed)
    return Backbone(model, tokenizer, tokenizer.new_ids, sha256, pretrained=True)


@torch.no_grad()
def _add_rows(model: Any, new_ids: list[int], seed: int) -> None:
    """Give new tokens rows drawn from a Gaussian with each dimension's mean and deviation over the old rows."""
    if not new_ids:
        return
    old_rows = new_ids[0]
    if new_ids[-1] >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(new_ids[-1] + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables = {id(t.weight): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}
    for weight in tables.values():  # (V, d); one table where they are tied
        mean, deviation = weight[:old_rows].mean(0), weight[:old_rows].std(0)
        noise = torch.randn(len(new_ids), weight.shape[1], generator=generator)
        weight[torch.tensor(new_ids)] = mean + deviation * noise.to(weight)
