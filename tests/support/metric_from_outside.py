"""Metrics as another package would bring them: of matched cells, of a distribution, of a predicted shift."""

import numpy as np

from causcell.evaluation import Metric


def median_error(real: np.ndarray, generated: np.ndarray) -> float:
    """Median absolute error of the same cells' expression, over all entries of [n x G] arrays."""
    return float(np.median(np.abs(real - generated)))


def centre_distance(real: np.ndarray, generated: np.ndarray, bandwidth: float) -> float:
    """Distance of the mean cells of two sets, [n x G] and [m x G], in bandwidths."""
    return float(np.linalg.norm(real.mean(axis=0) - generated.mean(axis=0))) / bandwidth


def size_ratio(predicted: np.ndarray, real: np.ndarray) -> float | None:
    """Size of a predicted shift by that of the real one, both [G]; `None` without a real one."""
    return float(np.linalg.norm(predicted) / np.linalg.norm(real)) if real.any() else None


MEDIAN_ERROR = Metric("median_error", median_error, "cells", "lower")
"""What the entry point ``median_error = metric_from_outside:MEDIAN_ERROR`` of the group ``causcell.metrics`` names."""

CENTRE_DISTANCE = Metric("centre_distance", centre_distance, "distribution", "lower")
SIZE_RATIO = Metric("size_ratio", size_ratio, "effect", "one")
"""It is entered as ``shift_size_ratio``; see `Metric.key`."""
