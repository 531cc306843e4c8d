"""Effects of interventions with their uncertainty: over a population, on single cells, and tests of cells in pairs.

- `causcell.effects.trial`: simulated trials, the average effect of each label of a concept;
- `causcell.effects.cells`: the effect of one intervention on every cell;
- `causcell.effects.paired`: tests on results that hold the factual and the counterfactual rows of the same cells.

`causcell.get.effects_df` gives the first two as tables of genes.

Standard errors, deviations and the p-values that rest on them are those of the cells as a sample of their population
and of the draws: that the model is right is assumed, and with many cells they go to zero. Intervals add the model's
own error, as `causcell.evaluation.effect_errors` measures it. Neither holds a wrong graph or causes left out.
"""

from __future__ import annotations

from causcell.effects.cells import cell_effects
from causcell.effects.paired import paired_tests
from causcell.effects.settings import EffectSettings
from causcell.effects.trial import simulated_trial

__all__ = ["EffectSettings", "cell_effects", "paired_tests", "simulated_trial"]
