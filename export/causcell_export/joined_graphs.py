"""Graphs that are traced at once, for what they share."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from causcell_export.graphs import Decoder, Graph


class DecoderAndSlab(nn.Module):
    """`Decoder` and `Slab` of one hidden state, so that both graphs are traced at once."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, endogenous: Tensor, uniforms: Tensor) -> tuple[Tensor, ...]:
        """Return what the decoder does, and then what the slab does, of their inputs."""
        hidden = self.decoder.hidden(endogenous)
        return *self.decoder.draw(hidden, uniforms), *self.decoder.denoiser.head.prior(hidden)


def join_slab(decoder: Graph, slab: Graph) -> Graph:
    """Join the graphs ``decoder`` and ``slab`` into one with the outputs of both."""
    assert isinstance(decoder.module, Decoder)
    info = decoder.info.model_copy(update={"outputs": {**decoder.info.outputs, **slab.info.outputs}})
    return replace(decoder, module=DecoderAndSlab(decoder.module).eval(), info=info)
