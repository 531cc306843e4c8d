"""Evaluation: measures of a trained model on cells, beside their trivial baselines and their ceilings.

- `causcell.evaluation.evaluate`: a trained model, through `causcell.Generator`, on given cells;
- `causcell.evaluation.embeddings`, `expression`, `shifts`: the measures, as tables;
- `causcell.evaluation.scores`: every measure on one scale, from trivial (`baselines`) to a replicate (`halves`);
  `self_test`, `cell_self_test`: cheats run through the measures; `verdicts`: what the tables say of each concept;
- `causcell.evaluation.metrics`: measures as functions of arrays; `quality`: all registered ones at once;
- `causcell.evaluation.report`: JSON and one HTML page;
- `causcell.evaluation.simulator`, `known_truth`: cells whose true counterfactuals are known, and models held against
  them.

The tables, ``causcell benchmark`` and the exporter measure what is registered. `register_metric` adds a metric from
outside, and `causcell.evaluation.contract.check_metric` tells whether it is what its kind says.
"""

from __future__ import annotations

from causcell.evaluation.registry import (
    BETTER,
    KINDS,
    Better,
    Kind,
    Metric,
    known_metrics,
    register_metric,
    registered_metrics,
)

__all__ = [
    "BETTER",
    "KINDS",
    "Better",
    "Kind",
    "Metric",
    "known_metrics",
    "register_metric",
    "registered_metrics",
]
