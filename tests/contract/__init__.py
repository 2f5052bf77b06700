"""Suites that every implementation of a port must pass."""

import pytest

# The suites' asserts should explain themselves as those of a test module do.
pytest.register_assert_rewrite("tests.contract.producer_contract", "tests.contract.sink_contract")
