"""What every test of this folder needs."""

import os

import pytest


@pytest.fixture
def brokers():
    given = os.environ.get("FERROFLOW_TEST_KAFKA")
    if not given:
        pytest.skip("FERROFLOW_TEST_KAFKA is not set (cargo xtask test --cluster sets it)")
    if not os.environ.get("FERROFLOW_BIN"):
        pytest.fail("FERROFLOW_BIN is not set (cargo xtask test --cluster builds it and sets it)")
    return given
