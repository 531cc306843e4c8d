"""Figures of counterfactual results; also ``causcell.pl``. matplotlib comes with ``causcell[plot]``.

Each takes an ``ax`` and returns it. The effect of an intervention is the difference of mean expression (log scale)
between its rows and the factual rows of the same cells; an atlas of effects (``store="effects"``) holds the differences
already.

- `umap_pair`: real cells beside their counterfactuals; `counterfactual_embedding`: each joined to its own;
- `volcano`, `effect_heatmap`, `top_genes`: which genes change; `intervention_effects`: the numbers;
- `value_course`: genes over the numbers, or ordered labels, that a concept was set to;
- `graph`: a model's concepts, how well each is read, and which may be intervened on.
"""

from __future__ import annotations

from causcell.plot.cells import counterfactual_embedding
from causcell.plot.concept_graph import graph
from causcell.plot.courses import value_course
from causcell.plot.effects import effect_heatmap, intervention_effects, top_genes
from causcell.plot.gene_volcano import volcano
from causcell.plot.maps import umap_pair

__all__ = [
    "counterfactual_embedding",
    "effect_heatmap",
    "graph",
    "intervention_effects",
    "top_genes",
    "umap_pair",
    "value_course",
    "volcano",
]
