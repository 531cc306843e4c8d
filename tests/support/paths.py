"""Places in the checkout that tests read, and what lies in shared memory."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL_REPOSITORY = ROOT / "model_repository"


def shared_memory() -> set[str]:
    """Return the names in shared memory of what engines and servers put there; other programs' files come and go."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(("psm_", "causcell_"))}
