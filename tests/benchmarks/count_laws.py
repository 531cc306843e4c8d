"""The law between a sample of expression and counts: several compared with real held-out cells of the same label.

    python tests/benchmarks/count_laws.py kang baron deep --data kang.h5ad --split kang.split.csv --seeds 3 --out laws

``kang``: the Kang split, 2,000 genes. ``baron``: simulated cells of the depth of Baron's pancreas, 6,000 counts over
4,000 genes, of which 1,000 are the panel. ``deep``: simulated cells of 20,000 counts over 400 genes.

Held-out cells are reconstructed (drawn from their own embeddings), and each law makes counts of the same draws:

``rounding``             c = L expm1(x) / 10,000 to the nearest whole number, at least 1;
``stochastic rounding``  c up or down by chance, its mean kept, at least 1;
``log rounding``         the count whose log value is nearest: the head's distribution inverted on whole numbers;
``Poisson of the head``  a Poisson number above zero with the mean of the head's slab, at the sample's quantile;
``gamma of the head``    a gamma number with the slab's mean and deviation on the log scale, likewise, rounded;
``shared total``         the product's law (`causcell.counterfactual.counts`), and with stochastic rounding;
``gamma, shared total``  the gamma numbers, their total held to the cell's own.

Beside them what a law makes of the real cells' own log values, which have to give the counts back, and the difference
of one half of the real cells from the other. Differences are averaged over labels, weighted by cells: ``zeros`` and the
absolute ones of mean, variance (geometric mean over genes) and the slope of log variance over log mean (genes with a
mean above 0.1); ``energy distance`` is of the counts' log1p, made from one half of the cells and compared with the
other. A law is chosen by the validation cells; the table has the test cells too. Models stay in ``--models`` and are
used again. Writes ``result.json`` and ``table.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata
import numpy as np
import pandas as pd
from jobs import Job, add_job_options, run_jobs, write_result
from scipy import special, stats
from trained_models import KANG_SETTINGS, SIMULATOR_EDGES

from causcell import Generator
from causcell._internal.batching import batches, pad_batch
from causcell.cells.collection import open_cells
from causcell.counterfactual.counts import share_out
from causcell.counterfactual.request import make_request
from causcell.counterfactual.stream import MeasuredCells
from causcell.diffusion.sampling import POSTERIOR_OUTPUTS
from causcell.evaluation.distances import energy_distance
from causcell.evaluation.simulator import SCHEMA, World
from causcell.preprocessing import TARGET_SUM
from causcell.randomness import CellNoise, Purpose, cell_keys, uniforms
from causcell_export import export, exporter
from causcell_training import fit
from causcell_training.config import load_config, parse_overrides

DRAWS = 2
MIN_CELLS = 16
MIN_MEAN = 0.1
LABEL = "cell_type"
WORLDS: Mapping[str, dict[str, Any]] = {
    "baron": {"genes": 4000, "library": 6000.0, "panel": 1000},
    "deep": {"genes": 400, "library": 20000.0, "panel": "all"},
}
SIMULATED_PARTS = ("train",) * 1700 + ("validation",) * 400 + ("test",) * 400
KANG_VALIDATION = 211
PARTS = ("validation", "test")
FRACTIONS = (0.5, 2.0)
"""Library sizes that counts are made for in place of the cell's own, over it."""

Arrays = dict[str, np.ndarray]
Law = Callable[[Arrays], np.ndarray]


def main() -> None:
    """Train or open the models, measure the laws, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", nargs="+", choices=["kang", *WORLDS])
    parser.add_argument("--data", help="kang: the cells")
    parser.add_argument("--split", help="kang: the split")
    parser.add_argument("--models", type=Path, help="folder of trained models [default: in --out]")
    add_job_options(parser)
    arguments = parser.parse_args()
    if "kang" in arguments.where and not (arguments.data and arguments.split):
        parser.error("kang takes --data and --split")
    common: Job = {"settings": parse_overrides(arguments.settings)}
    jobs: dict[str, Job] = {}
    for seed in range(arguments.seeds):
        for where in arguments.where:
            files = {"data": arguments.data, "split": arguments.split} if where == "kang" else {}
            jobs[f"{where}, seed {seed}"] = common | files | {"where": where, "seed": seed}
    models = arguments.models or arguments.out / "models"
    found = run_jobs(partial(measure, models=models), jobs, arguments)
    by_data: dict[str, list[Any]] = {}
    for name, result in found.items():
        by_data.setdefault(jobs[name]["where"], []).append(result)
    write_result(arguments.out, {"results": by_data})
    (arguments.out / "table.md").write_text(format_tables(by_data))
    print(format_tables(by_data))


def measure(job: Job, *, models: Path) -> dict[str, Any]:
    """Measures of every law on validation and test cells."""
    cells, parts, settings = read_cells(job)
    place = models / f"{job['where']}-{job['seed']}"
    if not place.exists():
        config = load_config(overrides={**settings, **job["settings"], "seed": job["seed"]})
        split = dict(zip(cells.obs_names, parts, strict=True))
        run = fit(cells, models / f"run-{place.name}", config=config, split=split)
        with patch.object(exporter, "with_quality", lambda manifest, root, held_out, **_: manifest):
            export(run, place)
    with Generator.open(place, threads=1) as generator:
        return {part: measure_part(generator, cells[parts == part].copy(), job["seed"]) for part in PARTS}


def read_cells(job: Job) -> tuple[anndata.AnnData, np.ndarray, dict[str, Any]]:
    """Cells, the part of each (str [n]), and the settings of training."""
    if job["where"] == "kang":
        cells = anndata.read_h5ad(job["data"])
        parts = pd.read_csv(job["split"], index_col=0).iloc[:, 0].reindex(cells.obs_names).to_numpy().astype(object)
        training = np.flatnonzero(parts == "train")
        parts[np.random.default_rng(0).permutation(training)[:KANG_VALIDATION]] = "validation"
        return cells, parts, {**KANG_SETTINGS, "genes": 2000}
    asked, seed = WORLDS[job["where"]], job["seed"]
    world = World.make(genes=asked["genes"], seed=seed)
    cells = world.cells(world.noise(len(SIMULATED_PARTS), seed=seed, library=asked["library"]))
    settings = {key: KANG_SETTINGS[key] for key in KANG_SETTINGS if key.startswith(("model.", "optimisation."))}
    settings |= {"concept": SCHEMA.names, "edge": SIMULATOR_EDGES, "genes": asked["panel"]}
    return cells, np.array(SIMULATED_PARTS, dtype=object), settings


# -- samples -----------------------------------------------------------------------------------------------------------


def draw_samples(generator: Generator, cells: anndata.AnnData, seed: int) -> Arrays:
    """Reconstruct cells.

    Returns
    -------
    Of each draw, [draws x n x G]: samples ``x`` (log scale), quantile within the slab ``quantile``, the slab's ``mean``
    and ``deviation`` (log scale), ``chance``, uniform numbers; ``library`` and ``total`` over the panel, [n].
    """
    model, genes = generator.model, generator.preprocessing.genes
    request = make_request(model.manifest, None, store="counts", draws=DRAWS, seed=seed)
    solver = model.build_solver(request.settings)
    timestep, scale = int(solver.table[0, 0]), generator.preprocessing.deviation
    pieces: dict[str, list[list[np.ndarray]]] = {}
    with generator.bind(open_cells(cells)) as bound:
        source = MeasuredCells(model, bound, request.library)
        read = [source.read(rows) for rows in batches(len(bound), model.batch_size)]
        for batch in read:
            keys = pad_batch(cell_keys(seed, batch.names), model.batch_size)
            for each in source.predict(source.encode(batch), keys, request, solver):
                noise = CellNoise(keys, len(genes), each.draw)
                still = {"x_t": np.zeros((model.batch_size, len(genes)), np.float32), "endogenous": each.endogenous}
                still["timestep"] = np.full((model.batch_size, 1), timestep, np.int64)
                slab = model.engine.run("denoiser", still, POSTERIOR_OUTPUTS)
                probability, centre, deviation = (slab[name] for name in POSTERIOR_OUTPUTS)
                made = {
                    "x": model.decode(each.endogenous, noise, solver),
                    "quantile": np.clip(noise.posterior(timestep) / probability, 1e-7, 1 - 1e-7),
                    "mean": centre * scale + generator.preprocessing.mean,
                    "deviation": deviation * scale,
                    "chance": uniforms(keys, len(genes), Purpose.STEP_NOISE, draw=each.draw),
                }
                for name, array in made.items():
                    pieces.setdefault(name, [[] for _ in range(DRAWS)])[each.draw].append(array[: len(batch.names)])
    found = {name: np.stack([np.concatenate(draw) for draw in draws]) for name, draws in pieces.items()}
    sizes = {"library": [each.library for each in read], "total": [each.panel_totals for each in read]}
    return found | {name: np.concatenate(each) for name, each in sizes.items()}


# -- laws: counts [draws x n x G] of samples ---------------------------------------------------------------------------


def scaled(arrays: Arrays) -> np.ndarray:
    """Return samples as counts that need not be whole, L expm1(x) / 10,000."""
    return np.asarray(np.expm1(arrays["x"].astype(np.float64)) * (arrays["library"] / TARGET_SUM)[:, None])


def rounded(counts: np.ndarray) -> np.ndarray:
    """Round to the nearest whole number, at least 1 where there is anything."""
    return np.where(counts > 0, np.maximum(np.rint(counts), 1), 0)


def rounded_by_chance(counts: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Round up with the probability of what is beyond the whole number, at least 1 where there is anything."""
    return np.where(counts > 0, np.maximum(np.floor(counts + chance), 1), 0)


def rounded_on_log_scale(arrays: Arrays) -> np.ndarray:
    """Return the counts whose log values are nearest."""
    counts, factor = scaled(arrays), (TARGET_SUM / arrays["library"])[:, None]
    below = np.maximum(np.floor(counts), 1)
    middle = (np.sqrt((1 + factor * below) * (1 + factor * (below + 1))) - 1) / factor
    return np.where(counts > 0, np.where(counts > middle, below + 1, below), 0)


def poisson_of_head(arrays: Arrays) -> np.ndarray:
    """Return Poisson numbers above zero, with the slab's mean, at the sample's quantile."""
    on = arrays["x"] > 0
    factor = np.broadcast_to((arrays["library"] / TARGET_SUM)[:, None], on.shape)[on]
    slab = arrays["mean"][on].astype(np.float64) + arrays["deviation"][on].astype(np.float64) ** 2 / 2
    mean = np.maximum(np.expm1(slab) * factor, 1.0005)
    rate = np.where(mean > 3, mean, 2 * (mean - 1))
    for _ in range(20):  # Newton's, of rate / (1 - exp(-rate)) = mean
        some = -np.expm1(-rate)
        slope = np.maximum(1 / some - rate * np.exp(-rate) / some**2, 1e-3)
        rate = np.maximum(rate - (rate / some - mean) / slope, 1e-4)
    none = np.exp(-rate)
    counts = np.zeros(on.shape)
    counts[on] = np.maximum(stats.poisson.ppf(none + (1 - none) * arrays["quantile"][on], rate), 1)
    return counts


def gamma_of_head(arrays: Arrays) -> np.ndarray:
    """Return counts that need not be whole: gamma numbers whose logarithm has the slab's mean and deviation."""
    on = arrays["x"] > 0
    mean, variance = arrays["mean"].astype(np.float64)[on], arrays["deviation"].astype(np.float64)[on] ** 2
    shape = 1 / variance + 0.5
    for _ in range(8):  # Newton's, of trigamma(shape) = variance
        shape = np.maximum(shape + (special.polygamma(1, shape) - variance) / -special.polygamma(2, shape), 1e-2)
    value = special.gammaincinv(shape, arrays["quantile"][on]) * np.exp(mean - special.digamma(shape))
    counts = np.zeros(arrays["x"].shape)
    counts[on] = np.maximum(value - 1, 1e-9)
    return counts * (arrays["library"] / TARGET_SUM)[:, None]


def shared_total(arrays: Arrays) -> np.ndarray:
    """Return the product's counts."""
    return np.stack([share_out(draw, arrays["total"]) for draw in arrays["x"]])


def hold_total(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Scale counts so that they sum to a total [n], those below 1 raised to 1; not yet rounded."""
    on, raised = counts > 0, np.zeros(counts.shape, dtype=bool)
    while True:
        left = np.maximum(totals[:, None] - raised.sum(axis=-1, keepdims=True), 0)
        rest = np.where(raised, 0, counts).sum(axis=-1, keepdims=True)
        held = counts * (left / np.maximum(rest, 1e-300))
        low = on & (held < 1) & ~raised
        if not low.any():
            return np.where(raised, 1, held)
        raised |= low


LAWS: Mapping[str, Law] = {
    "not rounded": scaled,
    "rounding": lambda arrays: rounded(scaled(arrays)),
    "stochastic rounding": lambda arrays: rounded_by_chance(scaled(arrays), arrays["chance"]),
    "log rounding": rounded_on_log_scale,
    "Poisson of the head": poisson_of_head,
    "gamma of the head": lambda arrays: rounded(gamma_of_head(arrays)),
    "shared total": shared_total,
    "shared total, stochastic": lambda arrays: rounded_by_chance(
        hold_total(scaled(arrays), arrays["total"]), arrays["chance"]
    ),
    "gamma, shared total": lambda arrays: rounded(hold_total(gamma_of_head(arrays), arrays["total"])),
}
OF_SAMPLES = ("rounding", "stochastic rounding", "log rounding", "shared total", "shared total, stochastic")
"""Laws that take nothing but samples, so that they can be asked of real cells' own values."""


# -- measures ----------------------------------------------------------------------------------------------------------


def measure_part(generator: Generator, cells: anndata.AnnData, seed: int) -> dict[str, Any]:
    """Measures of every law on some cells; of one half of the real cells for the other; the round trip."""
    arrays, rng = draw_samples(generator, cells, seed), np.random.default_rng((seed, 7))
    real = cells[:, list(generator.preprocessing.genes)].X.toarray().astype(np.float64)
    labels = cells.obs[LABEL].astype(str).to_numpy()
    own = np.log1p(real * (TARGET_SUM / arrays["library"])[:, None]).astype(np.float32)
    itself = arrays | {"x": own[None], "chance": arrays["chance"][:1]}
    halves = np.zeros(len(real), dtype=int)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        halves[rows[len(rows) // 2 :]] = 1
    return {
        "zero share": float((real == 0).mean()),
        "mean of counts above zero": float(real[real > 0].mean()),
        "laws": {name: compare(law(arrays), real, labels, halves) for name, law in LAWS.items()},
        "one half of the real cells for the other": compare_halves(real, labels, halves),
        "wrong counts of the real cells' own values": {
            name: float((LAWS[name](itself)[0] != real).mean()) for name in OF_SAMPLES
        },
        "other library sizes": other_library_sizes(arrays, real, rng),
        "panel's share of counts": share_by_label(cells.obs, arrays["total"] / arrays["library"]),
    }


def compare(counts: np.ndarray, real: np.ndarray, labels: np.ndarray, halves: np.ndarray) -> dict[str, float]:
    """Differences of counts [draws x n x G] from the real cells [n x G]; see the head of this file."""
    found = []
    for label in np.unique(labels):
        on = labels == label
        if on.sum() >= MIN_CELLS:
            sides = [(counts[0][on & (halves == i)], real[on & (halves != i)]) for i in (0, 1)]
            distance = float(np.mean([energy_distance(np.log1p(a), np.log1p(b)) for a, b in sides]))
            here = moments(counts[:, on].reshape(-1, real.shape[1]), real[on])
            found.append((int(on.sum()), here | {"energy distance": distance}))
    return average(found)


def compare_halves(real: np.ndarray, labels: np.ndarray, halves: np.ndarray) -> dict[str, float]:
    """Differences of one half of the real cells from the other."""
    found = []
    for label in np.unique(labels):
        one, other = (real[(labels == label) & (halves == i)] for i in (0, 1))
        if len(one) + len(other) >= MIN_CELLS:
            distance = energy_distance(np.log1p(one), np.log1p(other))
            found.append((len(one) + len(other), moments(one, other) | {"energy distance": distance}))
    return average(found)


def moments(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Differences of zero share, mean, variance and slope, the last three over the real ones."""
    often = (real.mean(axis=0) > MIN_MEAN) & (made.var(axis=0) > 0) & (real.var(axis=0) > 0)
    (m, v), (real_m, real_v) = ((x.mean(axis=0)[often], x.var(axis=0)[often]) for x in (made, real))
    slope, real_slope = (np.polyfit(np.log(a), np.log(b), 1)[0] for a, b in ((m, v), (real_m, real_v)))
    return {
        "zeros": float((made == 0).mean() - (real == 0).mean()),
        "mean": float(made.mean() / real.mean() - 1),
        "variance": float(np.exp(np.mean(np.log(v / real_v))) - 1),
        "slope": float(slope / real_slope - 1),
    }


def average(found: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Average over labels, weighted by cells: signed, and absolute but for the energy distance."""
    sizes, values = [size for size, _ in found], {name: [row[name] for _, row in found] for name in found[0][1]}
    signed = {name: float(np.average(each, weights=sizes)) for name, each in values.items()}
    absolute = {f"|{name}|": float(np.average(np.abs(each), weights=sizes)) for name, each in values.items()}
    return signed | absolute


def other_library_sizes(arrays: Arrays, real: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Zero shares and means of counts made for other library sizes, and of real cells thinned to the smaller ones."""
    found = {}
    for fraction in FRACTIONS:
        counts = shared_total(arrays | {"total": arrays["total"] * fraction})
        row = {"zero share": float((counts == 0).mean()), "mean": float(counts.mean() / real.mean())}
        if fraction < 1:
            row["zero share of real cells, thinned"] = float((rng.binomial(real.astype(int), fraction) == 0).mean())
        found[f"{fraction:g} of the own"] = row
    return found


def share_by_label(obs: pd.DataFrame, share: np.ndarray) -> dict[str, float]:
    """Mean share of the panel in the counts of cells, by the labels of what is intervened on."""
    concept = next(name for name in ("stim", "treatment") if name in obs)
    return {str(label): float(share[(obs[concept] == label).to_numpy()].mean()) for label in sorted(set(obs[concept]))}


# -- tables ------------------------------------------------------------------------------------------------------------

COLUMNS = ("zeros", "|zeros|", "mean", "|mean|", "variance", "slope", "|slope|", "energy distance")


def format_tables(by_data: Mapping[str, list[Any]]) -> str:
    """Tables of every data set and part, means and deviations over seeds."""
    lines = []
    for where, seeds in by_data.items():
        for part in PARTS:
            results = [each[part] for each in seeds]
            zero, above = (spread([r[k] for r in results]) for k in ("zero share", "mean of counts above zero"))
            lines += [
                "",
                f"{where}, {part} cells ({len(seeds)} seeds): zero share {zero}, counts above zero {above}",
                "",
            ]
            lines += [f"| | {' | '.join(COLUMNS)} | wrong of real |", "|---" * (len(COLUMNS) + 2) + "|"]
            for name in LAWS:
                cells = [spread([r["laws"][name][column] for r in results]) for column in COLUMNS]
                wrong = [r["wrong counts of the real cells' own values"].get(name) for r in results]
                cells.append("" if wrong[0] is None else f"{max(wrong):.6f}")
                lines.append(f"| {name} | {' | '.join(cells)} |")
            half = "one half of the real cells for the other"
            cells = [spread([r[half][column] for r in results]) for column in COLUMNS]
            lines.append(f"| {half} | {' | '.join(cells)} | |")
            lines += [
                "",
                *(f"{name}: {results[0][name]}" for name in ("other library sizes", "panel's share of counts")),
            ]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Mean, and deviation over seeds where there are several."""
    text = f"{np.mean(values):.4f}"
    return text + (f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
