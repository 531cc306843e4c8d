"""Homes today of the modules of version 0.1; see `causcell._deprecation`."""

from __future__ import annotations

MOVED = {
    "causcell_training.evaluation.concepts": ("causcell.evaluation.embeddings",),
    "causcell_training.evaluation.effects": ("causcell.evaluation.shifts",),
    "causcell_training.evaluation.evaluate": ("causcell.evaluation.evaluate",),
    "causcell_training.evaluation.expression": ("causcell.evaluation.expression",),
    "causcell_training.evaluation.known_truth": ("causcell.evaluation.known_truth",),
    "causcell_training.evaluation.probes": ("causcell.evaluation.probes",),
    "causcell_training.evaluation.report": ("causcell.evaluation.report",),
    "causcell_training.evaluation.simulator": ("causcell.evaluation.simulator",),
    "causcell_training.evaluation.subject": ("causcell.evaluation.data",),
    "causcell_training.evaluation.table": ("causcell.evaluation.table", "causcell.cli.tables"),
    "causcell_training.plot": ("causcell_training.curves",),
}
"""By old module, the modules that hold its names today."""

_EVALUATION = {
    "concepts": {
        "finer_labels": "tabulate_finer_labels",
        "leakage": "tabulate_leakage",
        "own_labels": "tabulate_own_labels",
    },
    "effects": {
        "described": "format_combination",
        "effects": "tabulate_effects",
        "predicted_shifts": "predict_shifts",
        "seen_cases": "find_seen_cases",
        "trained_shifts": "compute_baseline_shifts",
        "unseen_cases": "find_unseen_cases",
    },
    "evaluate": {"judged_tables": "tabulate_test_cells", "model_facts": "describe_model"},
    "expression": {
        "cluster_agreement": "tabulate_clusters",
        "markers": "tabulate_markers",
        "mean_estimate": "tabulate_mean_estimate",
        "samples": "tabulate_samples",
    },
    "known_truth": {
        "against_truth": "compare_with_truth",
        "log_expression": "log_normalise",
        "mean_shifts": "compute_mean_shifts",
        "predicted_effect": "predict_effect",
        "signature_effect": "average_signature_effect",
        "state_genes": "find_state_genes",
    },
    "probes": {"Reader": "Probe", "clusters": "cluster_cells"},
    "report": {"bars": "draw_bars", "circumstances": "run_environment"},
    "subject": {"Subject": "EvaluationData", "read_subject": "read_evaluation_data"},
    "table": {"as_text": "format_measures", "combined": "merge_repetitions", "shown": "format_values"},
}

RENAMED = {
    f"causcell_training.evaluation.{module}.{old}": new
    for module, names in _EVALUATION.items()
    for old, new in names.items()
}
"""New names by old ones, for each module of the evaluation apart."""
