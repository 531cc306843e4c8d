"""Evaluation: measures of a trained model on cells, beside their trivial baselines and their ceilings.

- `evaluate` (`causcell_training.evaluation.evaluate`): a trained model, through `causcell.Generator`, on given cells;
- `causcell_training.evaluation.concepts`, `expression`, `effects`: the measures, as tables;
- `causcell_training.evaluation.report`: JSON and one HTML page;
- `causcell_training.evaluation.simulator`: cells whose true counterfactuals are known.
"""
