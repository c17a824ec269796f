"""Every variant and every switch of a method keeps the contract of `bench.contract`."""

from typing import Any

import pytest

from bench.contract import Check
from tests.methods.conformance import keeps, tries


@pytest.mark.parametrize(("name", "values", "check"), list(tries(defaults=False)))
def test_variant_keeps_the_contract(name: str, values: dict[str, Any], check: Check) -> None:
    keeps(name, values, check)
