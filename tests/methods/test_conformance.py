"""Every registered method, its variants and its switches keep the contract of `bench.contract`."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.contract import CHECKS, run_check
from methods.registry import METHODS

SWITCHES: dict[str, list[dict[str, Any]]] = {
    "robult": [
        {"fc": "plain", "full_input": "s", "combine": "sum", "late_fusion": "prob_mean", "sup_reduction": "sum"},
        {"combine": "mean", "rbf": "phi_fixed", "tau": 0.5, "include_self": False, "rec": "cos"},
        {"rbf": "cos_fixed", "rec_trains_r": False, "pu_reduction": "anchor_sum", "ignore_empty_multilabel": True},
        {"grad_routing": "none", "pu_reduction": "pair_mean"},
    ],
    "gmc": [{"joints_as_negatives": True, "renorm_mean": True, "fc": "plain"}],
    "unimodal": [{"unimodal_full": "late_mean", "late_fusion": "prob_mean"}],
}


def configs() -> Iterator[Any]:
    for name in METHODS.builtin:
        yield pytest.param(name, {}, id=name)
        for variant, values in METHODS.get(name).variants.items():
            # The probe's default strength keeps it from fitting 32 samples, as it should; the rule wants it able to.
            weaker = {"probe_l2": 0.1} if variant == "no_sup" else {}
            yield pytest.param(name, dict(values) | weaker, id=f"{name}-{variant}")
        for values in SWITCHES.get(name, []):
            yield pytest.param(name, values, id=f"{name}-{'-'.join(map(str, values.values()))}")


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.name.replace(" ", "-"))
@pytest.mark.parametrize(("name", "values"), list(configs()))
def test_method_keeps_the_contract(name: str, values: dict[str, Any], check: Any) -> None:
    cls = METHODS.get(name)
    result = run_check(check, cls, cls.Config(**values))
    assert result.ok, result.message
