"""Training data: cells, their panel, and who is held out."""
