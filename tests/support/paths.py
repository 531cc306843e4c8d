"""Places in the checkout that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL_REPOSITORY = ROOT / "model_repository"
