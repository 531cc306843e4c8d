"""Curves of a training run show what its file of measures holds."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from causcell.errors import ConfigurationError
from causcell_training.curves import training_curves


@pytest.fixture
def run(tmp_path: Path) -> Path:
    lines = [
        "epoch,step,name,value",
        "0,4,train/mse,3.0",
        "1,8,train/mse,2.0",
        "2,12,train/mse,1.0",
        "2,12,held_out/mse,4",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_line_has_the_values_of_its_name_and_a_single_value_is_a_dot(run: Path) -> None:
    ax = training_curves(run, ["train/mse", "held_out/mse"], ax=Figure().subplots())
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["train/mse"].get_xydata(), [[0, 3], [1, 2], [2, 1]])
    np.testing.assert_array_equal(lines["held_out/mse"].get_xydata(), [[2, 4]])
    assert lines["held_out/mse"].get_marker() == "o"  # a line of one point is none
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)


def test_a_name_that_was_not_measured_is_told(run: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'held_out/mes' is not known; did you mean 'held_out/mse'\?"):
        training_curves(run, ["held_out/mes"], ax=Figure().subplots())
