"""What a data set lets a model learn: labels, concepts, graph, expression, and what training on them takes."""

from causcell.cells.check.data_check import check, warn_of_labels
from causcell.cells.check.report import ConceptSummary, Finding, PairSummary, Report

__all__ = ["ConceptSummary", "Finding", "PairSummary", "Report", "check", "warn_of_labels"]
