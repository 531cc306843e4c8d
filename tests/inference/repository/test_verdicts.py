"""Verdicts in a manifest: kept, checked, shown, and warned of once where a doubtful concept is intervened on."""

import json
import re
import warnings
from pathlib import Path

import anndata
import pytest
from commands import run_command
from judged import judge_again

from causcell.effects import cell_effects, simulated_trial
from causcell.errors import CausCellWarning, CorruptFileError
from causcell.generator import Generator
from causcell.repository.folder import open_repository
from causcell.repository.manifest import Manifest
from causcell.repository.verdicts import Verdict, warn_of_unusable

DOUBTFUL = Verdict(concept="stim", usable=False, read=False, reason="not read (.25 for .24): don't intervene on it")
USABLE = Verdict(concept="cell_type", usable=True, read=True, score=0.8, reason="usable (0.80 ± 0.05 of the way)")
UNJUDGED = Verdict(concept="state", reason="not judged: too few cells")
WARNING = re.escape("effects of these interventions are not usable: stim: not read (.25 for .24)")


@pytest.fixture(scope="module")
def judged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_again(repository, tmp_path_factory.mktemp("judged") / "models", (DOUBTFUL, USABLE, UNJUDGED))


@pytest.fixture(scope="module")
def doubtful(judged: Path):
    with Generator.open(judged, threads=1, batch_size=64) as generator:
        yield generator


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_verdicts_are_read_as_they_were_written(judged: Path) -> None:
    assert open_repository(judged).manifest.verdicts == (DOUBTFUL, USABLE, UNJUDGED)


def test_models_that_were_not_judged_have_none_and_are_written_without(judged: Path) -> None:
    manifest = open_repository(judged).manifest.model_copy(update={"verdicts": ()}).sealed()
    assert "verdicts" not in json.loads(manifest.to_json())
    assert Manifest.from_json(manifest.to_json(), "m").verdicts == ()


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ((USABLE, USABLE), "verdicts has 'cell_type' twice"),
        ((DOUBTFUL.model_copy(update={"concept": "age"}),), "verdicts has 'age', which is no concept"),
    ],
)
def test_verdicts_that_contradict_the_model_are_refused(judged: Path, verdicts: tuple, message: str) -> None:
    text = open_repository(judged).manifest.model_copy(update={"verdicts": verdicts}).sealed().to_json()
    with pytest.raises(CorruptFileError, match=message):
        Manifest.from_json(text, "m")


# -- where they are shown ----------------------------------------------------------------------------------------------


def test_the_repr_and_inspect_show_them(
    doubtful: Generator, judged: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "verdict on cell_type: usable (0.80 ± 0.05 of the way)" in repr(doubtful)
    assert run_command("inspect", judged) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("verdicts on the concepts, from held-out cells:")
    assert lines[at + 1 : at + 4] == [f"  {each}" for each in (DOUBTFUL, USABLE, UNJUDGED)]
    assert run_command("inspect", judged, "--json") == 0
    told = json.loads(capsys.readouterr().out)["verdicts"]
    assert [Verdict(**each) for each in told] == [DOUBTFUL, USABLE, UNJUDGED]


# -- where they are warned of ------------------------------------------------------------------------------------------


pytestmark = pytest.mark.filterwarnings("ignore:.*rows have combinations of labels that no training cell carries")


def messages_of(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(each.message) for each in caught if "not usable" in str(each.message)]


def test_a_warning_names_every_doubtful_concept_that_is_intervened_on_and_no_other() -> None:
    other = DOUBTFUL.model_copy(update={"concept": "donor"})
    with pytest.warns(CausCellWarning, match=r"stim: not read .*; donor: not read") as caught:
        warn_of_unusable((DOUBTFUL, other, USABLE), ["stim", "donor", "cell_type", "stim"])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unusable((DOUBTFUL, USABLE, UNJUDGED), ["cell_type", "state"])


def test_counterfactuals_warn_once(doubtful: Generator, few: anndata.AnnData) -> None:
    with pytest.warns(CausCellWarning, match=WARNING) as caught:
        doubtful.counterfactual(few, grid=["stim"], seed=0)
    assert len(messages_of(list(caught))) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doubtful.reconstruct(few)


def test_atlases_warn_once(doubtful: Generator, few: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.warns(CausCellWarning, match=WARNING) as caught:
        doubtful.write_atlas(few, tmp_path / "atlas.zarr", do={"stim": "IFN"})
    assert len(messages_of(list(caught))) == 1


def test_effects_warn_once(doubtful: Generator, few: anndata.AnnData) -> None:
    for measure in (
        lambda: simulated_trial(doubtful, few, "stim", draws=1),
        lambda: cell_effects(doubtful, few, {"stim": "IFN"}, draws=2),
    ):
        with pytest.warns(CausCellWarning, match=WARNING) as caught:
            measure()
        assert len(messages_of(list(caught))) == 1


@pytest.mark.parametrize("command", ["generate", "trial"])
def test_commands_warn_once(
    command: str, judged: Path, few: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few.write_h5ad(tmp_path / "few.h5ad")
    out = tmp_path / {"generate": "atlas.zarr", "trial": "effects.h5ad"}[command]
    words = [command, tmp_path / "few.h5ad", "--models", judged, "--do", "stim=IFN", "--out", out, "--no-progress"]
    assert run_command(*words) == 0
    err = capsys.readouterr().err
    assert err.count("not usable: stim: not read") == 1
    assert err.startswith("warning: ")
