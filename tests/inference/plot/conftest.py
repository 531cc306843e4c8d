"""Figures that tests draw: without a display, and closed after each test."""

import pytest


@pytest.fixture(autouse=True)
def closed():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    yield
    plt.close("all")
