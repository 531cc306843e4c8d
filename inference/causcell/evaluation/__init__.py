"""Evaluation: measures of a trained model on cells, beside their trivial baselines and their ceilings.

- `causcell.evaluation.evaluate`: a trained model, through `causcell.Generator`, on given cells;
- `causcell.evaluation.embeddings`, `expression`, `shifts`: the measures, as tables;
- `causcell.evaluation.metrics`: measures as functions of arrays; `registry`: which of them appear in reports, and how
  to add one; `contract`: a test for those that are added; `quality`: all of them at once;
- `causcell.evaluation.report`: JSON and one HTML page;
- `causcell.evaluation.simulator`, `known_truth`: cells whose true counterfactuals are known, and models held against
  them.
"""
