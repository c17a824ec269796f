"""Projectors of sequences against PyTorch's own recurrent layers and against loops; sizes of the published networks."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from methods.encoders.sequences import GRU, LSTM, GRUProjector, LSTMProjector, TextCNN


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("ours", "theirs"), [(GRU, nn.GRU), (LSTM, nn.LSTM)])
def test_recurrences_equal_those_of_pytorch(ours: type[nn.Module], theirs: type[nn.Module]) -> None:
    """States and gradients, with their weights under their names."""
    expected, model = theirs(4, 6, batch_first=True), ours(4, 6)
    model.load_state_dict(expected.state_dict())
    x = torch.randn(3, 7, 4)
    states = expected(x)[0]
    torch.testing.assert_close(model(x), states, atol=1e-6, rtol=1e-5)
    probe = torch.randn_like(states)
    (states * probe).sum().backward()
    (model(x) * probe).sum().backward()
    for name, p in expected.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, p.grad, atol=1e-5, rtol=1e-4)


def test_a_recurrence_starts_as_in_pytorch() -> None:
    torch.manual_seed(3)
    expected = nn.GRU(4, 6)
    torch.manual_seed(3)
    model = GRU(4, 6)
    for name, p in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), p)


@pytest.mark.parametrize(("features", "size"), [(300, 119_940), (5, 93_390), (20, 94_740), (74, 99_600), (35, 96_090)])
def test_sizes_on_mosi_and_mosei(features: int, size: int) -> None:
    """The GMC code's modality processors: text 300; audio 5 and 74; vision 20 and 35."""
    assert count(GRUProjector((50, features), 60, 30)) == size


def test_the_gru_projector_reads_every_state() -> None:
    model, x = GRUProjector((4, 3), 5, 6), torch.randn(2, 4, 3)
    expected = model.project(model.gru(x).reshape(2, 24))
    torch.testing.assert_close(model(x), expected)
    last = model.project.weight.detach().clone()
    last[:, : 3 * 6] = 0  # only the last state is left
    with torch.no_grad():
        model.project.weight.copy_(last)
    assert not torch.allclose(model(x), expected)


def test_the_lstm_projector_keeps_the_largest_value_over_time() -> None:
    model, x = LSTMProjector((4, 3), 5), torch.randn(2, 4, 3)
    states = model.lstm(x).detach()
    expected = [[max(float(states[b, t, h]) for t in range(4)) for h in range(5)] for b in range(2)]
    torch.testing.assert_close(model(x), torch.tensor(expected))


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_textcnn_equals_loops(steps: int) -> None:
    model, x = TextCNN((steps, 3), 4, filters=6), torch.randn(2, steps, 3)
    filled = torch.cat([x, torch.zeros(2, max(5 - steps, 0), 3)], dim=1)
    found = []
    for conv, span in zip(model.filters, (3, 4, 5), strict=True):
        windows = [filled[:, t : t + span] for t in range(filled.shape[1] - span + 1)]
        scores = [torch.einsum("bsd,fds->bf", window, conv.weight) + conv.bias for window in windows]
        found.append(torch.stack(scores).relu().max(dim=0).values)
    torch.testing.assert_close(model(x), model.project(torch.cat(found, dim=1)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: GRUProjector((4, 3), 5, 6), lambda: LSTMProjector((4, 3), 5), lambda: TextCNN((4, 3), 5, 6)],
    ids=["gru", "lstm", "textcnn"],
)
def test_a_stack_equals_the_replicas_alone(make: type[nn.Module]) -> None:
    replicas = [make() for _ in range(3)]
    x, probe = torch.randn(3, 2, 4, 3), torch.randn(2, 5)
    parameters, buffers = stack_module_state(replicas)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(replicas[0], (parameters, buffers), (x,)) * probe).sum()

    together = vmap(grad(loss))(parameters, buffers, x)
    for k, replica in enumerate(replicas):
        (replica(x[k]) * probe).sum().backward()
        for name, p in replica.named_parameters():
            torch.testing.assert_close(together[name][k], p.grad, atol=1e-5, rtol=1e-4)
