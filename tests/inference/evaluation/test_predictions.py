"""Predictions of any method: what files may hold, what is asked of them, and what is refused."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from simulation import CONCEPTS, EDGES

from causcell.cells.collection import Cells
from causcell.concept_columns import schema_from_obs
from causcell.concepts import as_pairs
from causcell.errors import (
    CausCellError,
    CausCellWarning,
    ConfigurationError,
    DataError,
    ExpressionError,
    GenePanelError,
    InterventionError,
    UnknownConceptError,
    UnknownLabelError,
)
from causcell.evaluation.cell_maps import CellMap
from causcell.evaluation.data import read_evaluation_data
from causcell.evaluation.evaluate import Evaluation
from causcell.evaluation.evaluate import evaluate as evaluate_with_maps
from causcell.evaluation.prediction_data import Method
from causcell.evaluation.prediction_rows import read_rows
from causcell.evaluation.prediction_scale import check_prediction_scale
from causcell.evaluation.predictions import PredictionReading
from causcell.evaluation.shifts import find_seen_cases, tabulate_effects
from causcell.generator import Generator

evaluate = partial(evaluate_with_maps, maps="none")
"""Without a map of cells in each: one test looks at one."""

SAMPLES = {"causcell": {"estimate": "sample"}}
MEANS = {"causcell": {"estimate": "mean"}}


@pytest.fixture(scope="module")
def expression(cells: anndata.AnnData) -> np.ndarray:
    """Real expression, log1p of 10,000, [n x G]."""
    counts = cells.X.toarray().astype(np.float64)
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


@pytest.fixture(scope="module")
def method(cells: anndata.AnnData) -> Method:
    """Every other cell was trained on."""
    return Method(CONCEPTS, EDGES, {name: ("test", "train")[i % 2] for i, name in enumerate(cells.obs_names)})


def rows_of(
    cells: anndata.AnnData, values: np.ndarray, intervention: str, uns: dict[str, Any], **columns: Any
) -> anndata.AnnData:
    """Predictions of cells under one intervention, as a stranger would save them."""
    obs = pd.DataFrame({"source_cell": cells.obs_names, "intervention": intervention, **columns})
    obs.index = [f"row {i} {intervention}" for i in range(len(obs))]
    return anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=cells.var_names), uns=uns)


def stacked(parts: Sequence[anndata.AnnData]) -> anndata.AnnData:
    return anndata.concat(parts, uns_merge="same")


def shifted(cells: anndata.AnnData, expression: np.ndarray) -> np.ndarray:
    """Control cells and what they become where every type's own mean shift is added (test cells tell it), [n x G]."""
    made = expression.copy()
    test = np.arange(len(made)) % 2 == 0
    for cell_type in cells.obs["cell_type"].unique():
        of_type = (cells.obs["cell_type"] == cell_type).to_numpy()
        means = [
            expression[test & of_type & (cells.obs["stim"] == stim).to_numpy()].mean(axis=0) for stim in ("ctrl", "IFN")
        ]
        made[of_type] += means[1] - means[0]
    return made


def values_of(evaluation: Evaluation, table: str, row: str) -> dict[str, float]:
    (found,) = (each for each in evaluation.tables if each.name.startswith(table))
    return {measure: values[0] for measure, values in found.rows[row].items()}


def names(evaluation: Evaluation) -> str:
    return "; ".join(table.name for table in evaluation.tables)


# -- what is answered --------------------------------------------------------------------------------------------------


def test_a_prediction_that_is_right_is_told_to_be(
    cells: anndata.AnnData, expression: np.ndarray, method: Method
) -> None:
    """Of control cells alone, without a factual row: real cells are taken off, and the report says so."""
    control = (cells.obs["stim"] == "ctrl").to_numpy()
    made = np.maximum(shifted(cells, expression)[control], 0)
    right = rows_of(cells[control], made, "stim=IFN", SAMPLES)
    evaluation = evaluate(cells, predictions=right, method=method)
    found = values_of(evaluation, "Interventions: stim", "model, do")
    assert found["pcc"] > 0.97  # what was clipped at zero is all that is missing
    assert abs(found["calibration"] - 1) < 0.1
    told = " ".join(evaluation.facts["not answered"])
    for reason in ("real source cells", "intervention is 'factual'", "obsm['X_causcell_<concept>']", "'donor'"):
        assert reason in told
    assert "Mean estimate" not in names(evaluation)
    donor = next(verdict for verdict in evaluation.verdicts if verdict.concept == "donor")
    assert donor.reason == "not judged: there is no prediction of an intervention on it"


@pytest.mark.parametrize(("uns", "estimate"), [(SAMPLES, "sample"), (MEANS, "mean")])
def test_predicted_cells_are_mapped_with_factual_ones_where_there_are_any(
    cells: anndata.AnnData, expression: np.ndarray, method: Method, uns: dict[str, Any], estimate: str
) -> None:
    control = (cells.obs["stim"] == "ctrl").to_numpy()
    made = rows_of(cells[control], np.maximum(shifted(cells, expression)[control], 0), "stim=IFN", uns)
    factual = rows_of(cells[control], expression[control], "factual", uns)
    for given, panels in ((made, 3), (stacked([made, factual]), 4)):
        drawn = evaluate_with_maps(cells, predictions=given, method=method, maps="pca").maps["stim"]
        assert isinstance(drawn, CellMap)
        every = (drawn.sources, drawn.targets, drawn.factual, drawn.counterfactual)
        assert sum(each is not None for each in every) == panels
        assert drawn.estimate == estimate
    np.testing.assert_allclose(drawn.factual.places, drawn.sources.places, atol=1e-3)  # they are those of real cells


def test_draws_of_a_cell_are_averaged_for_effects(
    cells: anndata.AnnData, expression: np.ndarray, method: Method
) -> None:
    control = (cells.obs["stim"] == "ctrl").to_numpy()
    right = np.maximum(shifted(cells, expression)[control], 0)
    noise = right * np.random.default_rng(0).uniform(-0.2, 0.2, right.shape[1])  # which no average over cells takes off
    draws = [
        rows_of(cells[control], right + sign * noise, "stim=IFN", SAMPLES, draw=draw)
        for draw, sign in enumerate((1, -1))
    ]
    for draw, each in enumerate(draws):
        each.obs_names = [f"{name}|{draw}" for name in each.obs_names]
    single, both = (
        values_of(evaluate(cells, predictions=each, method=method), "Interventions: stim", "model, do")["calibration"]
        for each in (draws[0], stacked(draws))
    )
    exact = rows_of(cells[control], right, "stim=IFN", MEANS)
    expected = values_of(evaluate(cells, predictions=exact, method=method), "Interventions: stim", "model, do")
    assert both == pytest.approx(expected["calibration"], abs=1e-3)
    assert single != pytest.approx(expected["calibration"], abs=1e-3)


@pytest.fixture(scope="module")
def whole(cells: anndata.AnnData, expression: np.ndarray) -> anndata.AnnData:
    """Means of every cell under every label of stim, embeddings beside; what a cell has is itself, exactly."""
    made = np.maximum(shifted(cells, expression), 0)
    ctrl, ifn = ((cells.obs["stim"] == stim).to_numpy() for stim in ("ctrl", "IFN"))
    parts = [
        rows_of(cells, np.where(ifn[:, None], expression, made), "stim=IFN", MEANS),
        rows_of(cells, np.where(ctrl[:, None], expression, np.maximum(2 * expression - made, 0)), "stim=ctrl", MEANS),
    ]
    for part in parts:
        one_hot = np.eye(3)[pd.Categorical(cells.obs["cell_type"]).codes]
        part.obsm["X_causcell_cell_type"] = one_hot + np.random.default_rng(0).normal(0, 0.01, one_hot.shape)
        part.obsm["X_causcell_unexplained"] = np.random.default_rng(0).normal(0, 1, (cells.n_obs, 4))
    return stacked(parts)


@pytest.mark.parametrize("suffix", ["", ".h5ad", ".zarr"])
@pytest.mark.filterwarnings("ignore")  # of zarr, as it writes
def test_a_row_that_sets_what_a_cell_has_is_its_factual_row(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method, tmp_path: Path, suffix: str
) -> None:
    """So a grid over labels answers all that is asked, from memory and from files alike."""
    given: Any = whole
    if suffix:
        given = tmp_path / f"grid{suffix}"
        with anndata.settings.override(zarr_write_format=3):
            (whole.write_h5ad if suffix == ".h5ad" else whole.write_zarr)(given)
    evaluation = evaluate(cells, predictions=given, method=method)
    assert values_of(evaluation, "Mean estimate", "model, mean estimate")["MSE"] < 1e-10
    assert values_of(evaluation, "Labels read", "cell_type: linear probe of its embedding")["accuracy"] == 1
    leaks = values_of(evaluation, "Leakage: ", "embedding of unexplained")
    assert leaks["stim"] < 0.75
    assert values_of(evaluation, "Interventions: stim", "model, do")["pcc"] > 0.8  # but for what was clipped at zero
    assert "real source cells" not in " ".join(evaluation.facts["not answered"])
    assert evaluation.facts["cells"]["judged"] == 160
    assert evaluation.facts["cells"]["predicted and left out"] == 160


def test_cells_trained_on_are_not_judged_whatever_was_predicted_of_them(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method
) -> None:
    wrong = whole.copy()
    trained = wrong.obs["source_cell"].isin(cells.obs_names[1::2]).to_numpy()
    wrong.X = sparse.csr_matrix(np.where(trained[:, None], 3.0, wrong.X.toarray()))
    tables = [
        [table.to_json() for table in evaluate(cells, predictions=each, method=method).tables]
        for each in (whole, wrong)
    ]
    assert tables[0] == tables[1]


def test_a_column_of_parts_is_as_good_as_a_table_of_them(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method
) -> None:
    labelled = cells.copy()
    labelled.obs["fold"] = [("test", "train")[i % 2] for i in range(cells.n_obs)]
    found = evaluate(labelled, predictions=whole, method=Method(CONCEPTS, EDGES, part="fold"))
    expected = evaluate(cells, predictions=whole, method=method)
    assert [table.to_json() for table in found.tables] == [table.to_json() for table in expected.tables]


def test_cells_that_the_method_was_chosen_by_are_neither_judged_nor_learned_from(
    cells: anndata.AnnData, expression: np.ndarray
) -> None:
    made = rows_of(cells, expression, "factual", MEANS)
    parts = dict(zip(cells.obs_names, ("test", "train", "validation", "report") * 80, strict=True))
    counts = evaluate(cells, predictions=made, method=Method(["cell_type"], split=parts)).facts["cells"]
    assert counts["judged"] == 160
    assert counts["learned from by baselines"] == counts["left out, as the method was chosen by them"] == 80


def test_effects_start_from_the_label_that_was_predicted_from(
    cells: anndata.AnnData, expression: np.ndarray, method: Method
) -> None:
    """Also where it is not the most frequent one."""
    for source, target in (("ctrl", "IFN"), ("IFN", "ctrl")):
        mine = (cells.obs["stim"] == source).to_numpy()
        made = rows_of(cells[mine], expression[mine] + 0.1, f"stim={target}", SAMPLES)
        assert "Interventions: stim (3 shifts)" in names(evaluate(cells, predictions=made, method=method))


def test_combinations_that_no_training_cell_carries_have_a_table_of_their_own(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method
) -> None:
    held_out = ((cells.obs["stim"] == "IFN") & (cells.obs["cell_type"] == "B")).to_numpy()
    parts = np.where(held_out, "test", list(method.split.values()))
    split = dict(zip(cells.obs_names, parts, strict=True))
    evaluation = evaluate(cells, predictions=whole, method=Method(CONCEPTS, EDGES, split))
    assert "Interventions: stim (2 shifts)" in names(evaluation)
    assert "Unseen combinations: interventions: stim (1 shifts)" in names(evaluation)
    assert [each.combinations for each in evaluation.verdicts if each.concept == "stim"] == ["seen", "unseen"]


def test_counts_are_brought_to_the_scale_of_the_cells(cells: anndata.AnnData, method: Method) -> None:
    counts = rows_of(cells, cells.X, "factual", MEANS)
    how = PredictionReading(expression="counts")
    evaluation = evaluate(cells, predictions=counts, method=method, reading=how)
    assert values_of(evaluation, "Mean estimate", "model, mean estimate")["MSE"] == 0
    some = counts[:, :30].copy()
    with pytest.raises(GenePanelError, match=r"lacks 30 of the 60 genes.*predictions_totals="):
        evaluate(cells, predictions=some, method=method, reading=how)
    some.obs["library"] = np.asarray(cells.X.sum(axis=1)).ravel()
    how = PredictionReading(expression="counts", totals="library")
    evaluation = evaluate(cells, predictions=some, method=method, reading=how)
    assert evaluation.facts["predictions"]["genes"] == 30
    assert values_of(evaluation, "Mean estimate", "model, mean estimate")["MSE"] < 1e-12


@pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")  # the model is hardly trained
def test_an_atlas_of_counts_is_judged_by_its_library_sizes(
    generator: Generator, cells: anndata.AnnData, method: Method
) -> None:
    """Its values are log1p of counts scaled by them to 10,000, and an atlas of these is judged alike."""
    counts = generator.counterfactual(cells, [{}, {"stim": "IFN"}], store="counts")
    scaled = counts.copy()
    scaled.X = np.log1p(counts.X * (1e4 / counts.obs["library_size"].to_numpy()[:, None])).astype(np.float32)
    how = PredictionReading(expression="counts", totals="library_size")
    found = [
        values_of(evaluate(cells, predictions=atlas, method=method, reading=each), "Interventions: stim", "model, do")
        for atlas, each in ((counts, how), (scaled, None))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-3, nan_ok=True)


def test_genes_that_the_cells_lack_are_left_out_and_counted(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method
) -> None:
    named = whole.copy()
    named.var_names = ["other", *whole.var_names[1:]]
    facts = evaluate(cells, predictions=named[:, ::-1].copy(), method=method).facts["predictions"]
    assert facts["genes"] == 59
    assert facts["genes left out, as the cells lack them"] == 1


@pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")  # of combinations; of means, after a few epochs
def test_an_atlas_of_a_grid_has_the_effects_of_the_model_that_wrote_it(
    generator: Generator, cells: anndata.AnnData, method: Method, tmp_path: Path
) -> None:
    """The same interventions on the same cells, so means agree but for rounding, and samples but for their noise."""
    part = np.array(list(method.split.values()))
    test, training = (np.flatnonzero(part == each) for each in ("test", "train"))
    data = read_evaluation_data(generator, cells, test_rows=test, training_rows=training)
    cases = [case for case in find_seen_cases(data) if data.schema.names[case.concept] == "stim"]
    (expected,) = tabulate_effects(data, cases, "Interventions")
    generator.write_atlas(cells, tmp_path / "atlas.zarr", grid=["stim"], preset="mean")
    samples = generator.counterfactual(cells, grid=["stim"], draws=8)
    known = {measure: values[0] for measure, values in expected.rows["model, do"].items()}
    found = values_of(
        evaluate(cells, predictions=tmp_path / "atlas.zarr", method=method), "Interventions: stim", "model, do"
    )
    for measure, value in found.items():
        assert value == pytest.approx(known[measure], abs=1e-3), measure
    found = values_of(evaluate(cells, predictions=samples, method=method), "Interventions: stim", "model, do")
    for measure in ("pcc", "size", "norm ratio"):  # 8 draws of 20 to 30 cells; calibration is a ratio of small numbers
        assert found[measure] == pytest.approx(known[measure], abs=0.2), measure


# -- what is refused ---------------------------------------------------------------------------------------------------


def without(column: str) -> Callable[[anndata.AnnData], Any]:
    return lambda rows: rows.obs.drop(columns=column, inplace=True)


def set_value(column: str, value: str) -> Callable[[anndata.AnnData], Any]:
    def change(rows: anndata.AnnData) -> None:
        rows.obs[column] = [value, *rows.obs[column].astype(str)[1:]]

    return change


def twin(rows: anndata.AnnData) -> None:
    rows.obs["source_cell"] = [rows.obs["source_cell"].iloc[2], *rows.obs["source_cell"][1:]]


def set_x(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[anndata.AnnData], None]:
    def apply(rows: anndata.AnnData) -> None:
        rows.X = sparse.csr_matrix(change(rows.X.toarray()))

    return apply


def nan(values: np.ndarray) -> np.ndarray:
    values[0, 3] = np.nan
    return values


def negative(values: np.ndarray) -> np.ndarray:
    values[0, 3] = -0.25
    return values


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without("source_cell"), DataError, r"no column 'source_cell' in obs.*as an atlas does"),
        (without("intervention"), DataError, r"no column 'intervention'"),
        (set_value("source_cell", "cell_9999"), DataError, r"1 rows whose source_cell is none of the 320.*'cell_9999'"),
        (set_value("intervention", "stim=IFM"), UnknownLabelError, r"'stim=IFM' in 1 rows.*did you mean 'IFN'"),
        (set_value("intervention", "dose=3"), UnknownConceptError, r"'dose=3' in 1 rows"),
        (
            set_value("intervention", "stimulated"),
            InterventionError,
            r"neither of the form CONCEPT=LABEL nor 'factual'",
        ),
        (set_value("intervention", "stim=IFN;stim=ctrl"), InterventionError, r"each concept once"),
        (twin, DataError, r"1 rows of the predictions stand twice.*'cell_0002\|stim=IFN'.*obs\['draw'\]"),
        (set_x(nan), ExpressionError, r"AnnData given: .*1 NaN or infinite values, first in cell 'row 0 stim=IFN'"),
        (set_x(negative), ExpressionError, r"negative values \(lowest -0.25, in row 'row 0 stim=IFN'\).*clip"),
        (set_x(lambda x: np.rint(np.expm1(x))), ExpressionError, r"whole numbers only"),
        (set_x(np.expm1), ExpressionError, r"more than any log1p value|not on the scale of the cells"),
        (set_x(lambda x: x / np.log(10)), ExpressionError, r"mean log expression is 0.43 times"),
        (set_x(lambda x: np.log1p(100 * np.expm1(x))), ExpressionError, r"sums to 1\d\d times that of the real cells"),
        (set_x(lambda x: np.log1p(np.expm1(x) / 100)), ExpressionError, r"as values for a smaller total"),
        (lambda rows: rows.uns.clear(), ConfigurationError, r"say estimate='sample' or estimate='mean'"),
        (lambda rows: rows.uns.update(causcell={"store": "effects"}), DataError, r"an atlas of effects"),
    ],
)
def test_rows_that_can_not_be_judged_are_refused_by_name(
    whole: anndata.AnnData,
    cells: anndata.AnnData,
    method: Method,
    change: Callable[[anndata.AnnData], Any],
    error: type[CausCellError],
    message: str,
) -> None:
    rows = whole[:320].copy()
    change(rows)
    with pytest.raises(error, match=message):
        evaluate(cells, predictions=rows, method=method)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": None}, ConfigurationError, "what the concepts are, nor which cells"),
        ({"predictions": None}, ConfigurationError, "one of the two"),
        ({"method": Method(())}, ConfigurationError, r"\(concepts=\)"),
        ({"method": Method(CONCEPTS, EDGES)}, ConfigurationError, r"which cells the method was trained on"),
        ({"method": Method(CONCEPTS, EDGES, {"a": "train"}, "fold")}, ConfigurationError, "one of the two"),
        ({"method": Method(CONCEPTS, EDGES, part="fold")}, UnknownConceptError, r"part='fold' is no column"),
        ({"method": Method(CONCEPTS, EDGES, {"a": "train"})}, DataError, "says nothing of 320 cells"),
        ({"predictions": []}, ConfigurationError, "names no file"),
        ({"reading": PredictionReading(estimate="sample")}, ConfigurationError, "says that its rows are 'mean'"),
    ],
)
def test_what_predictions_do_not_say_has_to_be_said(
    whole: anndata.AnnData,
    cells: anndata.AnnData,
    method: Method,
    options: dict[str, Any],
    error: type[CausCellError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        evaluate(cells, **{"predictions": whole, "method": method} | options)


def test_predictions_of_training_cells_alone_are_refused(
    whole: anndata.AnnData, cells: anndata.AnnData, method: Method
) -> None:
    trained = whole[whole.obs["source_cell"].isin(cells.obs_names[1::2])].copy()
    with pytest.raises(DataError, match=r"none of the 160 cells.*trained on \('cell_0001'"):
        evaluate(cells, predictions=trained, method=method)
    parts = dict.fromkeys(cells.obs_names, "train") | dict.fromkeys(cells.obs_names[:8], "test")
    with pytest.raises(DataError, match="8 of 320 cells are test cells"):
        evaluate(cells, predictions=whole, method=Method(CONCEPTS, EDGES, parts))


def test_rates_of_counts_are_warned_of(expression: np.ndarray) -> None:
    """log1p of a mean is above the mean of log1p."""
    rates = np.tile(np.log1p(np.expm1(expression).mean(axis=0)), (len(expression), 1))
    with pytest.warns(CausCellWarning, match="which is not log1p of the rate"):
        check_prediction_scale(rates, expression, "'scvi.h5ad'")
    assert check_prediction_scale(np.tile(expression.mean(axis=0), (len(expression), 1)), expression, "'mean.h5ad'")


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intervention", "meant"),
    [
        ("stim={stim}", "factual"),
        ("stim={stim};donor={donor}", "factual"),
        ("donor=d1;stim={stim}", "donor=d1"),
        ("cell_type={cell_type};donor=d1", "donor=d1;cell_type={cell_type}"),  # donor would change it
        ("cell_type=B;donor={donor}", "cell_type=B"),
    ],
)
def test_a_row_is_named_by_what_it_changes(cells: anndata.AnnData, intervention: str, meant: str) -> None:
    schema = schema_from_obs(cells.obs, CONCEPTS, as_pairs(EDGES, "parent:child", ":"))
    cell = next(i for i in range(cells.n_obs) if tuple(cells.obs[["donor", "cell_type"]].iloc[i]) == ("d2", "NK"))
    own = cells.obs.iloc[cell].to_dict()
    made = rows_of(cells[[cell]], np.ones((1, 60)), intervention.format(**own), SAMPLES)
    with Cells(made) as file:
        rows = read_rows([("it", file, "sample")], cells.obs_names, schema, schema.encode(cells.obs))
    assert [each.name for each in rows.interventions] == [meant.format(**own)]


def test_an_explicit_factual_row_goes_before_one_that_sets_what_a_cell_has(cells: anndata.AnnData) -> None:
    schema = schema_from_obs(cells.obs, CONCEPTS, as_pairs(EDGES, "parent:child", ":"))
    own = cells.obs["stim"].iloc[0]
    made = stacked([rows_of(cells[:1], np.ones((1, 60)), name, SAMPLES) for name in (f"stim={own}", "factual")])
    with Cells(made) as file:
        rows = read_rows([("it", file, "sample")], cells.obs_names, schema, schema.encode(cells.obs))
    assert rows.row.tolist() == [1]
