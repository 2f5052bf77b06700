"""The suite that every producer must pass. It needs pytest, and a plug-in of pytest that runs ``async def`` tests.

::

    class TestMyProducer(ProducerContract):
        @pytest.fixture
        async def source(self) -> MySource: ...      # a SourceUnderTest
"""

import pytest

# The suite's asserts should explain themselves as those of a test module do.
pytest.register_assert_rewrite(
    "broadway_py.testing.contract.producer_contract", "broadway_py.testing.contract.failure_contract"
)

from broadway_py.testing.contract.failure_contract import FailureContract, FailureSource  # noqa: E402  # as above
from broadway_py.testing.contract.producer_contract import ProducerContract  # noqa: E402  # as above
from broadway_py.testing.contract.source import SourceUnderTest  # noqa: E402  # as above

__all__ = ["FailureContract", "FailureSource", "ProducerContract", "SourceUnderTest"]
