"""What a linear probe explains of labels, from each whitened embedding: the definition, step by step."""

import math

import torch
from torch import Tensor


def variance_explained_by_probe(embedding: Tensor, one_hot: Tensor, given: Tensor | None = None) -> Tensor:
    """Sum of squared canonical correlations of an embedding [B x k] and labels [B x labels], within ``given``."""
    cells, numbers = embedding.shape
    groups = embedding.new_ones(cells, 1) if given is None else given.to(embedding.dtype)
    one_hot = one_hot.to(embedding.dtype)
    share = one_hot.mean(dim=0).clamp(min=1 / cells)
    x, y = (_centre_within(each, groups) for each in (embedding, one_hot / share.sqrt()))
    x = x * (x.square().mean(dim=0) + 1e-8).rsqrt()
    correlation = x.T @ x / cells + 0.02 * torch.eye(numbers, dtype=x.dtype)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(correlation), x.T, upper=False)
    sizes = (groups.T @ each.square().sum(dim=1) for each in (white.T, y))
    chance = (math.prod(sizes) / (groups.sum(dim=0) - 1).clamp(min=1)).sum()
    explained: Tensor = ((white @ y).square().sum() - chance) / cells**2
    return explained


def _centre_within(values: Tensor, groups: Tensor) -> Tensor:
    return values - groups @ ((groups.T @ values) / groups.sum(dim=0).clamp(min=1)[:, None])
