"""A segmentation network as functions of tensors, for `torch.export`, and as ONNX files for other runtimes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stmemory.errors import FileError, OptionError
from stmemory.io.files import file_path, whole_file
from stmemory.memory.read import space_time_read
from stmemory.networks.layers import FrameFeatures
from stmemory.networks.lite import CUES
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = ["Stage", "export_onnx", "stages"]

_FEATURES = ("key", "value", "stride4", "stride8", "stride16")
_ROWS = 2  # in the example inputs: of one row, torch would take the number for fixed
_MOST_ROWS = 1 << 12


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a network, as a module of tensors alone, for the frames of one video.

    Attributes:
        name: "encode", "read", "decode", "memorise", "fuse" or "key".
        module: in eval mode; shares the network's parameters.
        inputs: examples by name, in the order of the module's arguments.
        outputs: names of what the module gives.
        rows: names of the inputs whose first dimension is the number of rows, which is free; all else is fixed.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    rows: tuple[str, ...]

    def export(self) -> torch.export.ExportedProgram:
        """The stage as a program of `torch.export`, for any number of rows."""
        with torch.no_grad():
            return torch.export.export(self.module, tuple(self.inputs.values()), dynamic_shapes=self.dynamic_shapes())

    def dynamic_shapes(self) -> tuple[dict[int, torch.export.Dim], ...]:
        """The dimensions of the inputs that are free, as `torch.export` wants them."""
        rows = torch.export.Dim("rows", min=1, max=_MOST_ROWS)
        return tuple({0: rows} if name in self.rows else {} for name in self.inputs)


class _Step(nn.Module):
    """A part of a network's work as a module of tensors."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network


class _Encode(_Step):
    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        found = self.network.encode_query(frame)
        kept = tuple(getattr(found, name) for name in _FEATURES)
        return kept if found.appearance is None else (*kept, found.appearance)


class _Read(_Step):
    def forward(self, key: Tensor, templates: Tensor, valid: Tensor, pinned: Tensor) -> Tensor:
        read, each = self.network.read, templates.flatten(0, 1)  # [B K, C, h, w]
        keys, values = (head(each).flatten(2) for head in (read.key, read.value))
        found = space_time_read(
            key.flatten(2),
            keys.view(*valid.shape, *keys.shape[1:]),
            values.view(*valid.shape, *values.shape[1:]),
            valid,
            affinity=read.affinity,
            scale=read.scale,
            top_k=read.top_k,
            bias=None if read.pinned_bias is None else read.pinned_bias.float() * pinned,
        )
        return found.reshape(*found.shape[:2], *key.shape[2:])


class _Decode(_Step):
    def forward(
        self, value: Tensor, stride4: Tensor, stride8: Tensor, recalled: Tensor, cues: Tensor | None = None
    ) -> Tensor:
        features = FrameFeatures(value, value, value, stride4, stride8, value)  # a decoder looks at no more than these
        return self.network.decode(recalled, features, _one_video(recalled), cues)


class _Memorise(_Step):
    def forward(
        self,
        frame: Tensor,
        key: Tensor,
        stride4: Tensor,
        stride8: Tensor,
        stride16: Tensor,
        mask: Tensor,
        others: Tensor,
    ) -> Tensor:
        features = FrameFeatures(frame, key, key, stride4, stride8, stride16)
        return self.network.encode_memory(features, mask, others, _one_video(mask))


def stages(network: SegmentationNetwork, *, height: int, width: int, memory_size: int = 5) -> list[Stage]:
    """The steps of a network, by which a video is tracked in any runtime that has tensors.

    Encode a frame; read the memory; decode, the sigmoid of which are the masks; aggregate them; memorise the frame, and
    write the template to a `MemoryBank`, which takes "fuse" and "key" as its fusion and its key.

    Args:
        network: network in eval mode.
        height: height of frames, H, a multiple of 16.
        width: width of frames, W, a multiple of 16.
        memory_size: K.

    Returns:
        * encode: `frame [1, 3, H, W]` to `key`, `value`, `stride4`, `stride8`, `stride16`, and `appearance` where the
          network has a discriminative read, which itself stays in torch: see `SegmentationNetwork.cues`.
        * read: `key [1, Ck, h, w]`, `templates [B, K, C, h, w]`, `valid` and `pinned [B, K]` bool to
          `recalled [B, Cv, h, w]`.
        * decode: `value`, `stride4`, `stride8`, `recalled`, and `cues [B, 5, H/8, W/8]` where the network has such a
          read and the frame is large enough for it, see `FrameFeatures.can_discriminate`, to `logits [B, H, W]`.
        * memorise: `frame`, `key`, `stride4`, `stride8`, `stride16`, `mask` and `others [B, H, W]` to
          `template [B, C, h, w]`.
        * fuse: `source` and `target [B, C, h, w]` to `fused [B, C, h, w]`.
        * key: `template [B, C, h, w]` to `template_key [B, Ck, h, w]`.

    Raises:
        OptionError: the network is in training mode, or a size is out of its range.

    >>> from stmemory.networks.config import NetworkConfig
    >>> network = SegmentationNetwork(NetworkConfig.of("lite")).eval()
    >>> [stage.name for stage in stages(network, height=32, width=48)]
    ['encode', 'read', 'decode', 'memorise', 'fuse', 'key']
    """
    if network.training:
        raise OptionError("export: expected a network in eval mode, got one in training mode; call network.eval()")
    stride = network.stride
    if min(height, width) < stride or height % stride or width % stride or memory_size < 2:
        raise OptionError(
            f"export: expected height and width in multiples of {stride} and a memory_size of 2 or more, got "
            f"{height} x {width} and {memory_size}"
        )
    config, like = network.config, next(network.parameters())
    with torch.no_grad():
        features = network.encode_query(like.new_zeros(1, 3, height, width))
    known = {name: getattr(features, name) for name in ("frame", *_FEATURES)}
    cells, scored = features.key.shape[2:], features.can_discriminate
    template = like.new_zeros(_ROWS, config.template_channels, *cells)
    recalled = like.new_zeros(_ROWS, config.value_channels, *cells)
    templates = like.new_zeros(_ROWS, memory_size, config.template_channels, *cells)
    valid, mask = torch.ones_like(templates[:, :, 0, 0, 0]).bool(), like.new_zeros(_ROWS, height, width)
    cues = {"cues": like.new_zeros(_ROWS, CUES, height // 8, width // 8)} if scored else {}

    def stage(name: str, module: nn.Module, given: tuple[str, ...], rows: dict[str, Tensor], *outputs: str) -> Stage:
        inputs = {**{name: known[name] for name in given}, **rows}
        return Stage(name, module.eval(), inputs, outputs, tuple(rows))

    strides = ("stride4", "stride8", "stride16")
    return [
        stage(
            "encode", _Encode(network), ("frame",), {}, *_FEATURES, *["appearance"] * (features.appearance is not None)
        ),
        stage("read", _Read(network), ("key",), {"templates": templates, "valid": valid, "pinned": ~valid}, "recalled"),
        stage("decode", _Decode(network), ("value", *strides[:2]), {"recalled": recalled, **cues}, "logits"),
        stage(
            "memorise",
            _Memorise(network),
            ("frame", "key", *strides),
            {"mask": mask, "others": torch.zeros_like(mask)},
            "template",
        ),
        stage("fuse", network.fusion, (), {"source": template, "target": torch.zeros_like(template)}, "fused"),
        stage("key", network.read.key, (), {"template": template}, "template_key"),
    ]


def export_onnx(
    network: SegmentationNetwork,
    folder: str | os.PathLike[str],
    *,
    height: int = 480,
    width: int = 864,
    memory_size: int = 5,
    force: bool = False,
) -> list[Path]:
    """Write the stages of a network as ONNX files, `encode.onnx` and so on, for any number of objects.

    Needs onnx, onnxscript and torch 2.6, `pip install "stmemory[onnx]"`; onnxruntime runs the files.

    Args:
        network: network in eval mode.
        folder: for the files, which is made.
        height: height of frames, see `stages`.
        width: width of frames.
        memory_size: K.
        force: replace files that are there.

    Returns:
        The files.

    Raises:
        OptionError: onnx is not installed, the network is in training mode, a size is out of its range, or `folder`
            cannot be the name of a folder.
        FileError: there are such files and `force` is false, or they cannot be written.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise OptionError(
            f'export: expected {" and ".join(missing)} to be installed; run: pip install "stmemory[onnx]"'
        )
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise OptionError(f"export: expected torch 2.6 or newer, got {torch.__version__}; update torch")
    steps = stages(network, height=height, width=width, memory_size=memory_size)
    paths = [file_path(Path(folder) / f"{stage.name}.onnx") for stage in steps]
    if not force and (there := [path for path in paths if path.exists()]):
        raise FileError(
            f"{there[0]}: expected a folder without files of an "
            "earlier export; choose another one, or have them replaced"
        )
    for stage, path in zip(steps, paths, strict=True):
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                stage.module,
                tuple(stage.inputs.values()),
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamic_shapes=stage.dynamic_shapes(),
                dynamo=True,
                verbose=False,
            )
        if program is None:  # of exporters before dynamo
            raise OptionError("export: expected a torch that exports by dynamo, got another one; update torch")
        with whole_file(path) as part:
            program.save(part, external_data=False)
    return paths


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns about parts of its own."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _one_video(rows: Tensor) -> Tensor:
    """The frame that each of the rows `[B, ...]` belongs to, `[B]`: the first and only one."""
    return torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
