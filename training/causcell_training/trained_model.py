"""A trained model from its description and its weights, which may come from strangers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from causcell.repository.description import ModelDescription
from causcell_training.config import ModelConfig
from causcell_training.model import CausCell

_LABEL_MEAN, _GATES, _TARGET, _TRAINED_SCM = "label_mean.", "scm.gates.", "target_", "trained_scm."


def make_model(description: ModelDescription, config: ModelConfig, weights: Mapping[str, Tensor]) -> CausCell:
    """Make a model with these weights, in evaluation mode on the CPU.

    Parameters
    ----------
    description
        Concepts, graph, panel and standardisation.
    config
        Shapes of the networks.
    weights
        Tensors by their names in the model.

    Raises
    ------
    ValueError
        Weights that are of a model of another shape, or not finite; no memory is taken for such a shape.
    """
    with np.errstate(over="ignore"):
        schema, preprocessing = description.concept_schema, description.preprocessing
    mean, deviation = preprocessing.mean, preprocessing.deviation
    if not (np.isfinite(mean) & np.isfinite(deviation) & (deviation > 0)).all():
        raise ValueError("a gene's mean or deviation is not finite, or its deviation not above zero")
    with torch.device("meta"):  # shapes alone
        blank = CausCell(schema, preprocessing, config)
        if gated := any(name.startswith(_GATES) for name in weights):  # a graph that is still being learned
            blank.scm.learn_edges()
        if fitted := any(name.startswith(_TRAINED_SCM) for name in weights):  # see `fitted_mechanisms`
            blank.trained_scm = copy.deepcopy(blank.scm)
        expected = {name: tensor.shape for name, tensor in blank.state_dict().items()}
    if config.abduction == "expression" and not any(name.startswith(_LABEL_MEAN) for name in weights):
        labels = {name: torch.zeros(shape) for name, shape in expected.items() if name.startswith(_LABEL_MEAN)}
        weights = {**weights, **labels}  # a model trained before it had them, which does not read them
    for name in expected.keys() - weights.keys():
        if name.startswith(_TARGET):  # of a model trained before it had them: its priors as they are
            fill = torch.ones if name == "target_scale" else torch.zeros
            weights = {**weights, name: fill(expected[name])}
    if differing := sorted(set(expected) ^ set(weights)):
        raise ValueError(f"the weights are of another model: {differing[0]!r} is in one of them alone")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            found = tuple(weights[name].shape)
            raise ValueError(f"the weights are of another model: {name!r} has shape {found}, not {tuple(shape)}")
        if weights[name].is_floating_point() and not torch.isfinite(weights[name]).all():
            raise ValueError(f"the weights {name!r} are not finite")
    with torch.random.fork_rng(devices=[]):  # first weights are random, and the stream is the caller's
        model = CausCell(schema, preprocessing, config)
    if gated:
        model.scm.learn_edges()
    if fitted:
        model.trained_scm = copy.deepcopy(model.scm)
    model.load_state_dict(dict(weights))
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; its header is checked against its size before anything is taken."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping


def select_model_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the model's weights from the state of a training plan, which also has those of its objective."""
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
