"""What prediction is compared with: ConvLSTM and PredRNN's spatiotemporal LSTM between our own encoder and decoder.

Both remember videos in recurrent states alone, have the interface of `PredictionNetwork`, and are as wide as makes
their parameters as many as ours (`matched`), so that only what stands between encoder and decoder differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError, ShapeError
from stmemory.memory.policy import UpdatePolicy
from stmemory.prediction.config import PredictionConfig
from stmemory.prediction.network import Decoder, Encoder, PredictionNetwork

__all__ = ["ConvLSTM", "RecurrentNetwork", "RecurrentState", "SpatiotemporalLSTM", "matched", "parameters"]

CORES = ("convlstm", "predrnn")
LAYERS = 2
_FORGET = 1.0  # added to what the forget gates see, so that a state that is not trained yet keeps what it holds
_WIDEST = 1024
_NEAR = 0.015  # of our parameters, where the widest state is chosen


@dataclass(eq=False)
class RecurrentState:
    """All that a recurrent network remembers of B videos; of constant size once it has seen a frame.

    Attributes:
        hidden: `[B, hidden, h, w]` of each layer, H.
        cells: the same, C.
        flow: `[B, hidden, h, w]`, what the last layer hands to the first one of the next frame, M; None for ConvLSTM.
        time: frames seen.
    """

    hidden: list[Tensor] = field(default_factory=list)
    cells: list[Tensor] = field(default_factory=list)
    flow: Tensor | None = None
    time: int = 0

    @property
    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [*self.hidden, *self.cells, *([] if self.flow is None else [self.flow])]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def detach(self) -> None:
        """Cut the graph: truncated backpropagation through time."""
        self.hidden, self.cells = [h.detach() for h in self.hidden], [c.detach() for c in self.cells]
        self.flow = None if self.flow is None else self.flow.detach()

    def fork(self) -> RecurrentState:
        """A copy that goes its own way from here on; its tensors are never written in place."""
        return replace(self, hidden=list(self.hidden), cells=list(self.cells))


class ConvLSTM(nn.Module):
    """One layer of Shi et al. 2015, without peepholes: input `[B, channels, h, w]` and both states to the next states.

    Args:
        channels: channels of the input.
        hidden: channels of the states.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, given: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; hidden and cell."""
        enter, forget, leave, new = self.gates(torch.cat([given, hidden], 1)).chunk(4, 1)
        cell = (forget + _FORGET).sigmoid() * cell + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class SpatiotemporalLSTM(nn.Module):
    """One layer of PredRNN (Wang et al. 2017): beside the cell C, that goes from frame to frame, a flow M from layer to
    layer.

    Args:
        channels: channels of the input.
        hidden: channels of hidden, cell and flow.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.of_input = nn.Conv2d(channels, 7 * hidden, 3, padding=1)  # g, i, f of C; g', i', f' of M; o
        self.of_hidden = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)  # g, i, f; o
        self.of_flow = nn.Conv2d(hidden, 3 * hidden, 3, padding=1, bias=False)  # g', i', f'
        self.of_both = nn.Conv2d(2 * hidden, hidden, 3, padding=1, bias=False)  # o, of C and M
        self.last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, given: Tensor, hidden: Tensor, cell: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class; hidden, cell and flow."""
        x, h, m = self.of_input(given).chunk(7, 1), self.of_hidden(hidden).chunk(4, 1), self.of_flow(flow).chunk(3, 1)
        cell = (x[2] + h[2] + _FORGET).sigmoid() * cell + (x[1] + h[1]).sigmoid() * (x[0] + h[0]).tanh()
        flow = (x[5] + m[2] + _FORGET).sigmoid() * flow + (x[4] + m[1]).sigmoid() * (x[3] + m[0]).tanh()
        both = torch.cat([cell, flow], 1)
        leave = (x[6] + h[3] + self.of_both(both)).sigmoid()
        hidden = leave * self.last(both).tanh()
        return hidden, cell, flow


class RecurrentNetwork(nn.Module):
    """Our encoder and decoder around two recurrent layers; to be used as a `PredictionNetwork` is.

    Args:
        config: configuration of encoder and decoder; what it says of memory is not looked at.
        core: `"convlstm"` or `"predrnn"`.
        hidden: channels of the states.

    Raises:
        OptionError: there is no such core.

    >>> network = RecurrentNetwork(PredictionConfig.of("mini"), "predrnn", 8)
    >>> state = network.new_state()
    >>> network.step(torch.rand(2, 1, 32, 32), state).shape, state.nbytes
    (torch.Size([2, 1, 32, 32]), 20480)
    """

    def __init__(self, config: PredictionConfig, core: str, hidden: int) -> None:
        super().__init__()
        if core not in CORES:
            raise OptionError(f"RecurrentNetwork: expected a core in {CORES}, got {core!r}")
        self.config, self.core, self.hidden = config, core, hidden
        features = config.widths[-1]
        self.encoder = Encoder(config.image_channels, config.widths, config.strides)
        self.decoder = Decoder(config.image_channels, config.widths, config.strides, skips=bool(config.skips))
        layer = ConvLSTM if core == "convlstm" else SpatiotemporalLSTM
        self.layers = nn.ModuleList(layer(hidden if number else features, hidden) for number in range(LAYERS))
        self.mix = nn.Sequential(
            nn.Conv2d(hidden, features, 3, padding=1), nn.GroupNorm(8, features), nn.LeakyReLU(0.2)
        )

    @property
    def stride(self) -> int:
        """Frames have sides that this divides."""
        return self.config.stride

    def new_state(self, capacity: int = 0, *, policy: str | UpdatePolicy = "drop") -> RecurrentState:
        """What is remembered before the first frame: nothing. There are no slots, so both arguments change nothing."""
        return RecurrentState()

    def step(self, frame: Tensor, state: RecurrentState) -> Tensor:
        """Take the videos one frame further and say what comes next, as `PredictionNetwork.step`.

        Args:
            frame: `[B, C, H, W]` in [0, 1].
            state: state of these B videos; changed.

        Returns:
            The next frame, `[B, C, H, W]`; not limited to [0, 1].

        Raises:
            ShapeError: the frame does not fit the network.
        """
        if (
            frame.dim() != 4
            or frame.shape[1] != self.config.image_channels
            or any(side % self.stride for side in frame.shape[2:])
        ):
            raise ShapeError(
                f"frame: expected [B, {self.config.image_channels}, H, W] with H and W multiples of {self.stride}, got "
                f"{tuple(frame.shape)}; pad or crop it first"
            )
        given, finer = self.encoder(frame)  # [B, Cf, h, w]
        if not state.hidden:
            nothing = given.new_zeros(len(given), self.hidden, *given.shape[2:])
            state.hidden, state.cells = [nothing] * LAYERS, [nothing] * LAYERS
            state.flow = nothing if self.core == "predrnn" else None
        for number, layer in enumerate(self.layers):
            if state.flow is None:
                given, state.cells[number] = layer(given, state.hidden[number], state.cells[number])
            else:
                given, state.cells[number], state.flow = layer(
                    given, state.hidden[number], state.cells[number], state.flow
                )
            state.hidden[number] = given
        state.time += 1
        predicted: Tensor = self.decoder(self.mix(given), finer)
        return predicted


def parameters(network: nn.Module) -> int:
    """How many numbers are learned.

    >>> parameters(nn.Linear(2, 3))
    9
    """
    return sum(parameter.numel() for parameter in network.parameters())


def matched(config: PredictionConfig, kind: str, count: int) -> PredictionNetwork | RecurrentNetwork:
    """The network of a kind that comes nearest to a number of parameters.

    Args:
        config: configuration of ours.
        kind: `"convlstm"`, `"predrnn"`: as many channels of state as it takes; `"state_only"`: our network without its
            bank, with wider fifth and sixth layers, and of those that fit within 1.5 % the one with the widest state.
        count: parameters.

    Raises:
        OptionError: no width comes within 3 %.

    >>> config = PredictionConfig.of("mini")
    >>> ours = parameters(PredictionNetwork(config))
    >>> abs(parameters(matched(config, "convlstm", ours)) / ours - 1) < 0.03
    True
    """
    if kind in CORES:
        network: PredictionNetwork | RecurrentNetwork = RecurrentNetwork(config, kind, _nearest(config, kind, count))
    elif kind == "state_only":
        network = PredictionNetwork(_widened(config, count))
    else:
        raise OptionError(f"matched: expected one of {(*CORES, 'state_only')}, got {kind!r}")
    if abs(parameters(network) / count - 1) > 0.03:
        raise OptionError(
            f"matched: expected {kind} to have a width with {count} "
            f"parameters, within 3 %, got {parameters(network)} at best"
        )
    return network


def _nearest(config: PredictionConfig, core: str, count: int) -> int:
    """Channels of state that come nearest."""
    return _halve(lambda hidden: _count(RecurrentNetwork, config, core, hidden), count, most=_WIDEST)


def _widened(config: PredictionConfig, count: int) -> PredictionConfig:
    """Our config without the bank, its last two widths grown, by the eights that GroupNorm wants."""
    found, narrowest = [], config.widths[4]
    for fifth in range(narrowest, 3 * narrowest + 1, 8 * max(1, narrowest // 32)):

        def candidate(eights: int, fifth: int = fifth) -> PredictionConfig:
            return replace(config, memory="none", widths=(*config.widths[:4], fifth, 8 * eights))

        nearest = candidate(
            _halve(lambda eights: _count(PredictionNetwork, candidate(eights)), count, most=_WIDEST // 8)
        )
        off = abs(_count(PredictionNetwork, nearest) / count - 1)
        found.append((off > _NEAR, 0 if off <= _NEAR else off, -nearest.widths[5], nearest))
    return min(found, key=lambda entry: entry[:3])[3]


def _halve(count_of: Callable[[int], int], count: int, *, most: int) -> int:
    """The number from 1 to `most` whose count comes nearest, where counts grow with it."""
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_of(middle) <= count else (low, middle)
    return min((low, high), key=lambda number: abs(count_of(number) - count))


def _count(build: Callable[..., nn.Module], *arguments: object) -> int:
    """Parameters of a network that is not made."""
    with torch.device("meta"):
        return parameters(build(*arguments))
