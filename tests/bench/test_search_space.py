"""The space: what a trial may hold, and what a sweep goes through."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.search.space import Parameter, Space, split_values

TAU = Parameter("tau", "float", 0.1, 10.0, log=True, points=3)
RBF = Parameter("rbf", "choice", choices=("phi", "cos"))
WIDTH = Parameter("width", "float", 0.0, 1.0, points=2, when={"rbf": ("cos",)})
DEPTH = Parameter("depth", "int", 1, 4, points=9)


class Middle:
    """Suggests the first choice, or the middle of a range."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return (low * high) ** 0.5 if log else (low + high) / 2

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return (low + high) // 2

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return choices[0]


def test_what_does_not_count_is_not_suggested() -> None:
    assert Space((TAU, RBF, WIDTH, DEPTH)).suggest(Middle()) == {"tau": 1.0, "rbf": "phi", "depth": 2}


def test_a_sweep_holds_every_point_once() -> None:
    assert Space((TAU,)).grid() == [{"tau": 0.1}, {"tau": 1.0}, {"tau": 10.0}]
    assert Space((DEPTH,)).grid() == [{"depth": n} for n in (1, 2, 3, 4)]
    assert Space((RBF, WIDTH)).grid() == [{"rbf": "phi"}, {"rbf": "cos", "width": 0.0}, {"rbf": "cos", "width": 1.0}]
    stepped = Parameter("x", "float", 0.2, 0.8, step=0.2)
    assert Space((stepped,)).grid() == [{"x": value} for value in (0.2, 0.4, 0.6, 0.8)]


def test_defaults_are_a_point_where_they_lie_inside() -> None:
    space = Space((TAU, RBF, WIDTH))
    assert space.of({"tau": 1, "rbf": "phi", "width": 7.0, "other": 3}) == {"tau": 1.0, "rbf": "phi"}
    assert space.of({"tau": 1.0, "rbf": "cos", "width": 7.0}) is None
    assert space.of({"tau": 0.01, "rbf": "phi"}) is None
    assert Space((Parameter("b", "choice", choices=(True, False)),)).of({"b": 1}) is None


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.integers(2, 40), st.booleans())
def test_every_point_of_a_sweep_may_be_suggested(low: float, factor: float, points: int, log: bool) -> None:
    parameter = Parameter("x", "float", low, low * factor, log=log, points=points)
    assert all(parameter.contains(value) for value in parameter.grid())
    assert 2 <= len(parameter.grid()) <= points


def test_train_settings_are_told_from_hyper_parameters() -> None:
    assert split_values({"tau": 1.0, "train.lr": 0.1}) == ({"tau": 1.0}, {"lr": 0.1})


def test_a_space_in_words() -> None:
    assert str(WIDTH) == "width: 0 to 1 (when rbf is cos)"
    assert str(TAU) == "tau: 0.1 to 10, log"
