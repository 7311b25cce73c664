"""What the tests of failures share."""

from collections.abc import Callable

import pytest
from tests.search.light_study import Account


@pytest.fixture
def account(record_property: Callable[[str, object], None]) -> Account:
    """Keeps a failure's counts before and after."""
    return Account(record_property)
