"""Batches: what is hidden cannot be read, whatever its value was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from datasets.batch import hide, make_batch

NAN, INF = float("nan"), float("inf")


def inputs():
    return {"text": torch.randn(4, 3), "audio": torch.randn(4, 5, 2)}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.sampled_from([NAN, INF, -INF, 1e30]),
    st.integers(0, 99),
)
def test_no_value_of_a_hidden_modality_survives(available, poison, seed):
    n, mask = len(available), tensor(available)
    generator = torch.Generator().manual_seed(seed)
    clean = {"text": torch.randn(n, 3, generator=generator), "audio": torch.randn(n, 5, 2, generator=generator)}
    poisoned = {name: x.clone() for name, x in clean.items()}
    for column, x in enumerate(poisoned.values()):
        x[~mask[:, column]] = poison
    for column, (name, x) in enumerate(make_batch(poisoned, torch.zeros(n), available=mask).inputs.items()):
        assert torch.equal(x[mask[:, column]], clean[name][mask[:, column]])
        assert (x[~mask[:, column]] == 0).all()


def test_gradients_do_not_flow_into_what_is_hidden():
    x = torch.full((2, 3), NAN, requires_grad=True)
    hide({"text": x}, tensor([[False], [False]]))["text"].sum().backward()
    assert (x.grad == 0).all()


@pytest.mark.parametrize("target", [tensor([NAN, 2.0, 3.0, 4.0]), tensor([7, 2, 3, 4]), tensor([[NAN, 1.0]] * 4)])
def test_a_hidden_target_is_zero_and_the_rest_untouched(target):
    labelled = tensor([False, True, True, False])
    batch = make_batch(inputs(), target, labelled=labelled)
    assert (batch.target[~labelled] == 0).all()
    assert torch.equal(batch.target[labelled].nan_to_num(), target[labelled].nan_to_num())
    assert batch.target.dtype == target.dtype


def test_what_only_fills_a_batch_is_never_labelled():
    valid = tensor([True, True, False, False])
    batch = make_batch(inputs(), tensor([1.0, 2, 3, 4]), labelled=tensor([True, False, True, False]), valid=valid)
    assert batch.labelled.tolist() == [True, False, False, False]
    assert batch.target.tolist() == [1, 0, 0, 0]
    assert make_batch(inputs(), torch.ones(4), valid=valid).labelled.tolist() == valid.tolist()


def test_masks_left_out_mean_everything():
    given_inputs = inputs()
    batch = make_batch(given_inputs, tensor([1.0, 2, 3, 4]))
    assert batch.available.shape == (4, 2)
    assert batch.available.all()
    assert batch.valid.all()
    assert batch.labelled.all()
    assert batch.target.tolist() == [1, 2, 3, 4]
    assert all(torch.equal(batch.inputs[name], x) for name, x in given_inputs.items())


def test_the_caller_keeps_its_own_tensors():
    x, target = torch.ones(2, 3), torch.ones(2)
    make_batch({"text": x}, target, labelled=tensor([False, False]), available=tensor([[False], [False]]))
    assert x.eq(1).all()
    assert target.eq(1).all()


def test_a_batch_is_a_tree_of_tensors():
    leaves = torch.utils._pytree.tree_leaves(make_batch(inputs(), torch.ones(4)))
    assert len(leaves) == 8
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
