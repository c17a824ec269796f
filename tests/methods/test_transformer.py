"""The ViT block against a worked example, torch's own layer, and tokens really left out."""

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from methods.transformer import Block, Transformer, attend


def test_attention_of_one_query_by_hand() -> None:
    """Keys (0, 1) and (1, 0) for the query (1, 0): weights softmax(0, 1/sqrt(2))."""
    query, keys = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(attend(query, keys, keys), torch.tensor([[0.669762, 0.330238]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(attend(query, keys, keys, torch.tensor([[True, False]])), keys[:1])
    assert attend(query, keys, keys, torch.tensor([[False, False]])).isfinite().all()


def test_block_equals_the_layer_of_torch() -> None:
    ours = Block(12, heads=3, ratio=2)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.attention.qkv.weight,
            "self_attn.in_proj_bias": ours.attention.qkv.bias,
            "self_attn.out_proj.weight": ours.attention.out.weight,
            "self_attn.out_proj.bias": ours.attention.out.bias,
            "linear1.weight": ours.mlp[0].weight,
            "linear1.bias": ours.mlp[0].bias,
            "linear2.weight": ours.mlp[2].weight,
            "linear2.bias": ours.mlp[2].bias,
            "norm1.weight": ours.norm_attention.weight,
            "norm1.bias": ours.norm_attention.bias,
            "norm2.weight": ours.norm_mlp.weight,
            "norm2.bias": ours.norm_mlp.bias,
        }
    )
    x, seen = torch.randn(4, 5, 12), torch.rand(4, 5) < 0.6
    seen[:, 2] = True
    torch.testing.assert_close(ours(x, seen), theirs(x, src_key_padding_mask=~seen), atol=1e-5, rtol=1e-5)


def test_masking_a_token_is_leaving_it_out() -> None:
    model, x = Transformer(8, depth=2, heads=2), torch.randn(3, 4, 8)
    seen = torch.tensor([True, False, True, False]).expand(3, 4)
    torch.testing.assert_close(model(x, seen)[:, [0, 2]], model(x[:, [0, 2]]), atol=1e-5, rtol=1e-5)
    changed = torch.where(seen[..., None], x, 1e3)
    torch.testing.assert_close(model(changed, seen)[:, [0, 2]], model(x, seen)[:, [0, 2]])


def test_a_stack_of_transformers_computes_what_each_computes_alone() -> None:
    models = [Transformer(8, depth=1, heads=2) for _ in range(3)]
    state = stack_module_state(models)
    x, seen = torch.randn(3, 5, 4, 8), torch.rand(3, 5, 4) < 0.7
    together = vmap(lambda p, b, x, s: functional_call(models[0], (p, b), (x, s)))(*state, x, seen)
    for k, model in enumerate(models):
        torch.testing.assert_close(together[k], model(x[k], seen[k]), atol=1e-5, rtol=1e-5)
