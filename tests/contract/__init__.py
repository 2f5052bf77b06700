"""Suites that every implementation of a port must pass. That of producers ships: ``broadway_py.testing.contract``."""

import pytest

# The suite's asserts should explain themselves as those of a test module do.
pytest.register_assert_rewrite("tests.contract.sink_contract")
