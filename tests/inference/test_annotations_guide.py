"""Every Python example of docs/annotations.md runs, as a script of its own, and finds what the page says."""

import re
from pathlib import Path

import pytest
from atlases import run_example
from paths import MODEL_REPOSITORY, ROOT

pytest.importorskip("scanpy", reason="takes causcell[evaluate]")

GUIDE = (ROOT / "docs" / "annotations.md").read_text()
EXAMPLES = {
    section.partition("\n")[0]: example
    for section in re.split(r"(?m)^## ", GUIDE)
    for example in re.findall(r"(?ms)^```python\n(.*?)^```", section)
}
"""Examples by the section that they stand in."""


def run_section(section: str, folder: Path) -> str:
    """Run a section's example where the model is; return what it prints."""
    (folder / "model_repository").symlink_to(MODEL_REPOSITORY)
    return run_example(folder, EXAMPLES[section])


def test_each_section_has_one_example() -> None:
    assert list(EXAMPLES) == [
        "Coordinates: a counterfactual in place",
        "A time course",
        "Embeddings beside all else",
    ]
    assert GUIDE.count("```python") == len(EXAMPLES)


def test_counterfactuals_are_plotted_in_place(tmp_path: Path) -> None:
    assert "bulk_labels_factual" in run_section("Coordinates: a counterfactual in place", tmp_path)


def test_a_time_course_has_its_order(tmp_path: Path) -> None:
    printed = run_section("A time course", tmp_path)
    assert re.findall(r"phase=\w+", printed) == ["phase=G1", "phase=S", "phase=G2M"]
    assert re.findall(r"(?m)^\d+ h", printed) == ["0 h", "6 h", "24 h"]


def test_embeddings_stand_beside_all_else(tmp_path: Path) -> None:
    run_section("Embeddings beside all else", tmp_path)
