"""`PredictionConfig`: all that a prediction network is built from, in one frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stmemory.errors import OptionError
from stmemory.io.records import read_record

__all__ = ["PREDICTION_PRESETS", "PredictionConfig"]

LAYERS = 6  # section 4.2: six convolutional and six deconvolutional layers
STATES = ("convgru", "none")
MEMORIES = ("bank", "none")


@dataclass(frozen=True)
class PredictionConfig:
    """What a `PredictionNetwork` is built from; saved beside its weights.

    Attributes:
        preset: the name it started from, for people.
        image_channels: channels of a frame, 1 (grey) or 3 (RGB).
        image_side: pixels; the frames it is made for. It runs on any size.
        widths: channels of the encoder's six convolutions; the decoder mirrors them, and the last is that of features
            and context.
        strides: strides of the six convolutions, each 1 or 2.
        key_channels: Ck; 12 tell the place, of the rest half what it looks like there, half what it looks like on the
            whole.
        value_channels: Cv, recalled from memory.
        state: what stands for the frames before this one: `"convgru"`, a recurrent state, or `"none"`, the features of
            the last frame.
        memory: `"bank"`, or `"none"`: the same network with nothing to recall, a baseline.
        clock_channels: channels of a template that tell when it was written, an even number; 0 for none.
        skips: 1 if the decoder sees the current frame's finer features too, else 0.
        fusion_bottleneck: middle channels of the fusion cell; 0 for none.

    Raises:
        OptionError: a value is out of its range.

    >>> PredictionConfig.of("small").stride
    4
    """

    preset: str = "mini"
    image_channels: int = 1
    image_side: int = 32
    widths: tuple[int, ...] = (16, 16, 32, 32, 48, 48)
    strides: tuple[int, ...] = (2, 1, 2, 1, 1, 1)
    key_channels: int = 32
    value_channels: int = 48
    state: str = "convgru"
    memory: str = "bank"
    clock_channels: int = 0
    skips: int = 0
    fusion_bottleneck: int = 32

    def __post_init__(self) -> None:
        for name, known in (("state", STATES), ("memory", MEMORIES), ("image_channels", (1, 3)), ("skips", (0, 1))):
            if getattr(self, name) not in known:
                raise OptionError(f"PredictionConfig: expected {name} in {known}, got {getattr(self, name)!r}")
        checks = (
            (
                "widths",
                len(self.widths) == LAYERS and all(width >= 8 and width % 8 == 0 for width in self.widths),
                "six multiples of 8",
            ),
            ("strides", len(self.strides) == LAYERS and set(self.strides) <= {1, 2}, "six of 1 or 2"),
            ("image_side", self.image_side >= 1, "1 or more"),
            ("key_channels", self.key_channels >= 14, "14 or more, of which 12 tell the place"),
            ("value_channels", self.value_channels >= 1, "1 or more"),
            ("clock_channels", self.clock_channels >= 0 and self.clock_channels % 2 == 0, "an even number, 0 or more"),
            ("fusion_bottleneck", self.fusion_bottleneck >= 0, "0 or more"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise OptionError(f"PredictionConfig: expected {name} of {expected}, got {getattr(self, name)}")

    @property
    def stride(self) -> int:
        """Pixels a cell."""
        stride = 1
        for step in self.strides:
            stride *= step
        return stride

    @property
    def template_channels(self) -> int:
        """C: a frame's features, the context that it came after, and the clock."""
        return 2 * self.widths[-1] + self.clock_channels

    @classmethod
    def of(cls, preset: str) -> PredictionConfig:
        """A preset by name: "mini" (32 pixels), "small" (64), both grey, or "human" (128, RGB).

        Raises:
            OptionError: there is no such preset.
        """
        if preset not in PREDICTION_PRESETS:
            raise OptionError(f"PredictionConfig: expected a preset of {', '.join(PREDICTION_PRESETS)}, got {preset!r}")
        return PREDICTION_PRESETS[preset]

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PredictionConfig:
        """From what `dataclasses.asdict` gave, by way of JSON or not.

        Raises:
            OptionError: a key is unknown or missing, or a value has another type.
        """
        return read_record(cls, values, cls.__name__, complete=True)


PREDICTION_PRESETS = {
    "mini": PredictionConfig(),
    "small": PredictionConfig(
        preset="small",
        image_side=64,
        widths=(32, 32, 64, 64, 64, 64),
        key_channels=64,
        value_channels=64,
        fusion_bottleneck=64,
    ),
    "human": PredictionConfig(
        preset="human",
        image_channels=3,
        image_side=128,
        widths=(32, 64, 64, 128, 128, 256),
        strides=(2, 1, 2, 1, 2, 1),
        key_channels=64,
        value_channels=256,
        skips=1,
        fusion_bottleneck=128,
    ),
}
