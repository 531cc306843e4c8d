"""Registered heads: each keeps the contract, plugins are found, no name is taken twice, and settings know them."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from head_from_outside import LaplaceHead
from plugins import install_plugin
from torch import Tensor, nn

from causcell.diffusion.solvers import SolverSettings
from causcell.errors import CausCellWarning, ConfigurationError
from causcell_training.config import load_config
from causcell_training.heads import Head, PlainHead, SpikeSlabHead, head_class, known_heads, register_head
from causcell_training.heads.contract import check_head

BUILTIN = ("plain", "skip", "spike_slab")


# -- contract ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [*BUILTIN, LaplaceHead])
def test_every_head_keeps_the_contract(head: str | type[Head]) -> None:
    check_head(head)


class OtherNames(PlainHead):
    loss_names = ("likelihood",)


class Unweighted(PlainHead):
    loss_names = ("surprise",)


class NotFinite(PlainHead):
    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        return super().x0(hidden, x_t, alpha_bar) / (alpha_bar > 0.5)


class OfTheBatch(PlainHead):
    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        return super().x0(hidden - hidden.mean(dim=0), x_t, alpha_bar)


class Untrained(PlainHead):
    def __init__(self, width: int, zero: Tensor) -> None:
        super().__init__(width, zero)
        self.spare = nn.Parameter(torch.zeros(3))


class HalfAnswer(PlainHead):
    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        return self.output(hidden)


class Branching(PlainHead):
    def x0(self, hidden: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
        answer = super().x0(hidden, x_t, alpha_bar)
        return answer if answer.sum() > 0 else answer + 0.0


class DrawsInManySteps(PlainHead):
    presets: ClassVar[Mapping[str, SolverSettings]] = {**PlainHead.presets, "accurate": SolverSettings("draw", steps=5)}


class WithoutMean(PlainHead):
    presets: ClassVar[Mapping[str, SolverSettings]] = {"accurate": SolverSettings("ddpm", steps=5)}


class TakenConstant(SpikeSlabHead):
    def draw_constants(self, deviation: Tensor) -> dict[str, Tensor]:
        return {**super().draw_constants(deviation), "time": deviation}


class NarrowDraws(SpikeSlabHead):
    def draw(self, hidden: Tensor, uniforms: Tensor, mean: Tensor, deviation: Tensor, **constants: Tensor) -> Tensor:
        return 0.5 * super().draw(hidden, uniforms, mean, deviation, **constants)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (nn.Linear, "is not a subclass of Head"),
        (OtherNames, "losses are .*'reconstruction'.*loss_names says .*'likelihood'"),
        (Unweighted, "the objective has weights for"),
        (NotFinite, "x0 is not finite"),
        (OfTheBatch, "x0 of a cell depends on the others of its batch"),
        (Untrained, "do not reach the parameter 'spare'"),
        (HalfAnswer, r"at half precision x0 is torch\.float16"),
        (Branching, r"torch\.export can't trace"),
        (DrawsInManySteps, "preset 'accurate' draws, and the head does not"),
        (WithoutMean, "ask for 'mean'"),
        (TakenConstant, r"draw_constants names .*'time'"),
        (NarrowDraws, r"the mean of draws over uniform numbers differs"),
    ],
)
def test_the_contract_tells_what_is_broken(head: type[Head], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_head(head)


# -- plugins -----------------------------------------------------------------------------------------------------------


def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.heads", "plugin_head = head_from_outside:LaplaceHead")
    assert "plugin_head" in known_heads()
    assert load_config(overrides={"model.head": "plugin_head"}).model.head == "plugin_head"
    assert head_class("plugin_head") is LaplaceHead


def test_a_plugin_does_not_take_the_place_of_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.heads", "plain = head_from_outside:LaplaceHead")
    with pytest.warns(CausCellWarning, match=r"head 'plain' .*of outside.* is left out"):
        known_heads()
    assert head_class("plain") is PlainHead


def test_a_plugin_that_is_no_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, "causcell.heads", "linear = torch.nn:Linear")
    with pytest.raises(ConfigurationError, match=r"head 'linear' is .*; give a subclass of"):
        head_class("linear")


def test_settings_and_names_are_checked_without_torch() -> None:
    """Asking for settings, or for help, need not wait for it."""
    text = (
        "import sys; from causcell_training.config import load_config; import causcell_training.heads as heads\n"
        "load_config(overrides={'model.head': 'plain'}); heads.known_heads()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_name_is_given_once() -> None:
    with pytest.raises(
        ConfigurationError, match=r"head 'plain' exists already; take another name, or say replace=True"
    ):
        register_head("plain", LaplaceHead)
    assert head_class("plain") is PlainHead
    register_head("plain", PlainHead)  # the same again is no other


def test_a_head_that_nothing_would_train_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"has losses .*'surprise'.*which the objective weighs"):
        register_head("unweighted", Unweighted)


def test_a_class_that_is_no_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"give a subclass of"):
        register_head("linear", nn.Linear)


def test_an_unknown_head_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as error:
        load_config(overrides={"model.head": "spike-slab"})
    assert str(error.value).startswith(
        "setting 'model.head' = 'spike-slab': head 'spike-slab' is not known; did you mean 'spike_slab'? known are "
        "'plain', 'skip', 'spike_slab'"
    )


@pytest.mark.parametrize(
    ("head", "weights"),
    [("plain", {"reconstruction": 0}), ("spike_slab", {"reconstruction": 0, "likelihood": 0})],
)
def test_something_has_to_train_the_denoiser(head: str, weights: dict[str, float]) -> None:
    overrides = {f"objective.{name}": value for name, value in weights.items()}
    with pytest.raises(ConfigurationError, match=rf"nothing would train the denoiser, as head '{head}' has no other"):
        load_config(overrides={"model.head": head, **overrides})
    assert load_config(overrides=overrides | {"model.head": "spike_slab", "objective.likelihood": 1})


def test_the_old_table_of_heads_warns() -> None:
    import causcell_training.heads as heads

    with pytest.warns(DeprecationWarning, match=r"use causcell_training\.heads\.head_class\(\)"):
        assert heads.HEADS["plain"] is PlainHead
