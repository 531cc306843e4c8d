"""Counterfactuals of cells: abduction, action and prediction, and the form of their results."""
