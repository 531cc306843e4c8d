"""Shifts of single genes: those that the tables average, kept whole, and in a file that scanpy opens."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from causcell.evaluation.data import EvaluationData, read_evaluation_data
from causcell.evaluation.gene_shifts import find_gene_symbols
from causcell.evaluation.metrics import shared_noise, shift_correlation
from causcell.evaluation.report import write_report
from causcell.evaluation.shifts import find_seen_cases, predict_cell_shifts, predict_shifts, tabulate_effects
from causcell.evaluation.table import Table, merge_repetitions
from causcell.generator import Generator


@pytest.fixture(scope="module")
def data(generator: Generator, cells: anndata.AnnData) -> EvaluationData:
    rows = np.arange(cells.n_obs)
    colored = cells.copy()
    colored.uns["cell_type_colors"] = ["#112233", "#445566", "#778899"]
    return read_evaluation_data(generator, colored, test_rows=rows[::2], training_rows=rows[1::2])


@pytest.fixture(scope="module")
def tables(data: EvaluationData) -> list[Table]:
    return tabulate_effects(data, find_seen_cases(data), "Interventions", quick=True)


def test_shifts_are_those_of_the_cases_gene_by_gene(data: EvaluationData, tables: list[Table]) -> None:
    cases = find_seen_cases(data)
    assert sum(len(table.shifts) for table in tables) == len(cases)
    by_name = {shift.name: shift for table in tables for shift in table.shifts}
    for case in cases:
        concept = data.schema.concepts[case.concept]
        stratum = ",".join(f"{data.schema.names[i]}={data.schema.concepts[i].labels[code]}" for i, code in case.stratum)
        name = f"{concept.name}={concept.labels[case.target]}" + (f" in {stratum}" if stratum else "")
        shift = by_name[name]
        source, target = data.expression[case.source_rows], data.expression[case.target_rows]
        np.testing.assert_allclose(shift.real, target.mean(axis=0) - source.mean(axis=0), atol=1e-5)
        variance = target.var(axis=0, ddof=1) / len(target) + source.var(axis=0, ddof=1) / len(source)
        np.testing.assert_allclose(shift.error, np.sqrt(variance), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(shift.predicted, predict_shifts(data, case)["model, do"], atol=1e-5)
        assert (shift.source_cells, shift.target_cells) == (len(source), len(target))
        shared = shared_noise(predict_cell_shifts(data, case)["model, do"], source)
        correlation = shift_correlation(
            predict_shifts(data, case)["model, do"], target.mean(0) - source.mean(0), shared
        )
        assert shift.correlation == pytest.approx(correlation, abs=1e-4)


def test_the_table_averages_the_correlations_of_its_shifts(tables: list[Table]) -> None:
    for table in tables:
        (pcc,) = table.rows["model, do"]["pcc"]
        assert pcc == pytest.approx(np.mean([shift.correlation for shift in table.shifts]))


def test_a_stratum_has_the_colour_that_scanpy_stored(data: EvaluationData, tables: list[Table]) -> None:
    colors = dict(zip(data.cells.obs["cell_type"].cat.categories, ("#112233", "#445566", "#778899"), strict=True))
    for table in tables:
        for shift in table.shifts:
            label = shift.stratum.removeprefix("cell_type=") if shift.stratum else shift.target
            assert shift.color == (colors[label] if shift.stratum or shift.concept == "cell_type" else "")


def test_a_report_keeps_all_genes_in_a_file_of_its_own(tables: list[Table], tmp_path: Path) -> None:
    write_report(tmp_path / "report", "t", {}, tables)
    shifts = [shift for table in tables for shift in table.shifts]
    kept = anndata.read_h5ad(tmp_path / "report" / "shifts.h5ad")
    assert kept.obs_names.tolist() == [shift.name for shift in shifts]
    assert kept.var_names.tolist() == list(shifts[0].genes)
    np.testing.assert_array_equal(kept.X, np.stack([shift.real for shift in shifts]))
    np.testing.assert_array_equal(kept.layers["predicted"], np.stack([shift.predicted for shift in shifts]))
    np.testing.assert_array_equal(kept.layers["error"], np.stack([shift.error for shift in shifts]))
    assert kept.obs["source_cells"].tolist() == [shift.source_cells for shift in shifts]
    written = json.loads((tmp_path / "report" / "report.json").read_text())["tables"]
    told = [each for table in written for each in table["shifts"]]
    assert [(each["shift"], each["correlation"]) for each in told] == [
        (shift.name, shift.correlation) for shift in shifts
    ]


def test_repetitions_have_no_shifts_of_single_genes(tables: list[Table], tmp_path: Path) -> None:
    merged = merge_repetitions([tables, tables])
    assert all(not table.shifts for table in merged)
    write_report(tmp_path / "report", "t", {}, merged)
    assert not (tmp_path / "report" / "shifts.h5ad").exists()
    assert "shifts" not in json.loads((tmp_path / "report" / "report.json").read_text())["tables"][0]


def test_symbols_stand_for_identifiers_where_there_are_any() -> None:
    genes = ["ENSG00000198851.3", "ENSMUSG00000020592"]
    var = pd.DataFrame({"feature_name": pd.Categorical(["CD3E", None])}, index=genes)
    assert find_gene_symbols(genes, var) == ("CD3E", "ENSMUSG00000020592")
    assert find_gene_symbols(genes, var[[]]) == tuple(genes)
    assert find_gene_symbols(["CD3E"], pd.DataFrame({"symbol": ["other"]}, index=["CD3E"])) == ("CD3E",)
