"""Evaluation: measures of a trained model on cells, beside their trivial baselines and their ceilings.

- `evaluate` (`causcell.evaluation.evaluate`): a trained model, through `causcell.Generator`, on given cells;
- `causcell.evaluation.embeddings`, `expression`, `effects`: the measures, as tables;
- `causcell.evaluation.report`: JSON and one HTML page;
- `causcell.evaluation.simulator`: cells whose true counterfactuals are known.
"""
