"""The adapter against transformers, where it is installed."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from rsir.adapters import from_huggingface
from rsir.errors import BackboneError
from tests.adapters.contract import check, log

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def gpt2(vocabulary=31):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama(vocabulary=31):
    """Other positions, and an output layer that is not tied to the input embeddings."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.LlamaForCausalLM(config).eval()


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def qwen(vocabulary=31):
    """Fewer heads of keys than of queries, and norms of both."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16}
    config = transformers.Qwen3Config(vocab_size=vocabulary, max_position_embeddings=12, **SMALL, **heads)
    return transformers.Qwen3ForCausalLM(config).eval()


def mamba(vocabulary=31):
    """No attention and no positions: a state space, which goes on for as long as the history does."""
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=vocabulary, state_size=4, **SMALL)
    return transformers.MambaForCausalLM(config).eval()


@pytest.mark.parametrize("made", [gpt2, llama, qwen, mamba])
@pytest.mark.parametrize("mapped", [False, True])
def test_adapter(made, mapped):
    """Item ids as tokens, and tokens of their own in a larger vocabulary."""
    data = log()
    names = data.item_labels.to_pylist()
    model = made(50 if mapped else 31)
    tokens = [49 - number for number in range(30)] if mapped else None
    token_of = dict(zip(names, tokens or range(1, 31), strict=True))

    def own_scores(history):
        logits = model(torch.tensor([[token_of[label] for label in history]])).logits[0, -1]
        return {label: float(logits[token]) for label, token in token_of.items()}

    max_len = 12 if made is mamba else None
    check(from_huggingface(model, names, tokens=tokens, max_len=max_len), data, own_scores)


def test_a_model_without_an_output_layer():
    adapter = from_huggingface(gpt2().base_model)
    assert (adapter.num_items, adapter.max_len) == (30, 12)
    assert adapter.item_labels.equals(pa.array(range(1, 31)))


def test_a_bias_is_kept():
    data = log()
    model = gpt2()
    model.lm_head = torch.nn.Linear(16, 31)
    names = data.item_labels.to_pylist()

    def own_scores(history):
        logits = model(torch.tensor([[names.index(label) + 1 for label in history]])).logits[0, -1]
        return {label: float(logits[number]) for number, label in enumerate(names, 1)}

    adapter = from_huggingface(model, names)
    assert adapter.item_embeddings().shape == (31, 17)
    check(adapter, data, own_scores)


def test_what_does_not_fit():
    with pytest.raises(BackboneError, match=r"expected tokens in 0\.\.30, its vocabulary, got 40 tokens up to 40"):
        from_huggingface(gpt2(), list(range(40)))
    with pytest.raises(BackboneError, match="got one twice"):
        from_huggingface(gpt2(), tokens=[1, 1])
    with pytest.raises(BackboneError, match="a label for each of the 2 tokens, got 1"):
        from_huggingface(gpt2(), ["a"], tokens=[1, 2])
    with pytest.raises(BackboneError, match="its configuration has no max_position_embeddings; give max_len"):
        from_huggingface(mamba())
    model = gpt2()
    forward = model.forward

    def squashed(*arguments, **options):
        out = forward(*arguments, **options)
        out.logits = torch.tanh(5 * out.logits)
        return out

    model.forward = squashed
    with pytest.raises(BackboneError, match="its scores are not dot products"):
        from_huggingface(model)
