"""A segmentation network as functions of tensors, for `torch.export`, and as ONNX files for other runtimes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stmemory.errors import FileError, OptionError
from stmemory.io.files import file_path, whole_file
from stmemory.memory.read import space_time_read
from stmemory.networks.layers import FrameFeatures
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = ["Stage", "export_onnx", "stages"]

_FEATURES = ("key", "value", "stride4", "stride8", "stride16")
_BEFORE = 2  # objects in the example inputs: of one, torch would take the number for fixed


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
            return torch.export.export(self.module, tuple(self.inputs.values()), dynamic_shapes=(self._free_rows(),))

    def _free_rows(self) -> tuple[dict[int, object], ...]:
        rows = torch.export.Dim("rows", min=1, max=1 << 12)
        return tuple({0: rows} if name in self.rows else {} for name in self.inputs)


class _Step(nn.Module):
    """A function of a network's, as a module."""

    def __init__(self, network: nn.Module, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        return self.function(*tensors)


def stages(network: SegmentationNetwork, *, height: int, width: int, memory_size: int = 5) -> list[Stage]:
    """The steps of a network, by which a video is tracked in any runtime that has tensors.

    Encode a frame; read the memory; decode, the sigmoid of which are the masks; aggregate them; memorise the frame, and
    write the template to a `MemoryBank`, which takes "fuse" and "key" as its fusion and its key.

    Args:
        network: in eval mode.
        height: of frames, H, a multiple of 16.
        width: of frames, W, a multiple of 16.
        memory_size: K.

    Returns:
        * encode: `frame [1, 3, H, W]` to `key`, `value`, `stride4`, `stride8`, `stride16`, and `appearance` where the
          network has a discriminative read, which itself stays in torch: see `SegmentationNetwork.cues`.
        * read: `key [1, Ck, h, w]`, `templates [B, K, C, h, w]`, `valid` and `pinned [B, K]` bool to
          `recalled [B, Cv, h, w]`.
        * decode: `recalled`, `value`, `stride4`, `stride8`, and `cues [B, 5, H/8, W/8]` where the network has such a
          read, to `logits [B, H, W]`.
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
            f"export: expected height and width in multiples of {stride} and a memory_size of 2 or more, got {height} x "
            f"{width} and {memory_size}"
        )
    parameter = next(network.parameters())
    example = parameter.new_zeros
    with torch.no_grad():
        features = network.encode_query(example(1, 3, height, width))
    scored = features.appearance is not None
    cells, rows = features.key.shape[2:], _BEFORE
    template = example(rows, network.config.template_channels, *cells)
    recalled = example(rows, network.config.value_channels, *cells)
    known = {name: getattr(features, name) for name in _FEATURES}
    slots = torch.ones(rows, memory_size, dtype=torch.bool, device=parameter.device)
    mask = example(rows, height, width)
    cues = {"cues": example(rows, 5, height // 8, width // 8)} if scored else {}

    def encode(frame: Tensor) -> tuple[Tensor, ...]:
        found = network.encode_query(frame)
        kept = tuple(getattr(found, name) for name in _FEATURES)
        return kept if found.appearance is None else (*kept, found.appearance)

    def read(key: Tensor, templates: Tensor, valid: Tensor, pinned: Tensor) -> Tensor:
        each = templates.flatten(0, 1)  # [B K, C, h, w]
        keys, values = (head(each) for head in (network.read.key, network.read.value))
        bias = network.read.pinned_bias
        found = space_time_read(
            key.flatten(2),
            keys.view(*valid.shape, -1, key.shape[2] * key.shape[3]),
            values.view(*valid.shape, -1, key.shape[2] * key.shape[3]),
            valid,
            affinity=network.read.affinity,
            scale=network.read.scale,
            top_k=network.read.top_k,
            bias=None if bias is None else bias.float() * pinned,
        )
        return found.reshape(*found.shape[:2], *key.shape[2:])

    def decode(recalled: Tensor, value: Tensor, stride4: Tensor, stride8: Tensor, *cues: Tensor) -> Tensor:
        record = FrameFeatures(value, value, value, stride4, stride8, value)  # a decoder looks at no more than these
        return network.decode(recalled, record, _one_video(recalled), *cues)

    def memorise(
        frame: Tensor, key: Tensor, stride4: Tensor, stride8: Tensor, stride16: Tensor, mask: Tensor, others: Tensor
    ) -> Tensor:
        record = FrameFeatures(frame, key, key, stride4, stride8, stride16)
        return network.encode_memory(record, mask, others, _one_video(mask))

    def step(
        name: str, function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: dict[str, Tensor], *outputs: str
    ) -> Stage:
        free = tuple(name for name, tensor in inputs.items() if name not in known and name != "frame")
        return Stage(name, _Step(network, function).eval(), inputs, outputs, free)

    def some(*names: str) -> dict[str, Tensor]:
        return {name: known[name] for name in names}

    frame = {"frame": features.frame}
    templates = template[:, None].repeat(1, memory_size, 1, 1, 1)
    return [
        step("encode", encode, frame, *_FEATURES, *["appearance"] * scored),
        step("read", read, {**some("key"), "templates": templates, "valid": slots, "pinned": ~slots}, "recalled"),
        step("decode", decode, {"recalled": recalled, **some("value", "stride4", "stride8"), **cues}, "logits"),
        step(
            "memorise",
            memorise,
            {**frame, **some("key", "stride4", "stride8", "stride16"), "mask": mask, "others": torch.zeros_like(mask)},
            "template",
        ),
        step("fuse", network.fusion, {"source": template, "target": torch.ones_like(template)}, "fused"),
        step("key", network.read.key, {"template": template}, "template_key"),
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

    Needs onnx and onnxscript, `pip install "stmemory[onnx]"`; onnxruntime runs the files.

    Args:
        network: in eval mode.
        folder: for the files, which is made.
        height: of frames, see `stages`.
        width: of frames.
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
    steps = stages(network, height=height, width=width, memory_size=memory_size)
    paths = [file_path(Path(folder) / f"{stage.name}.onnx") for stage in steps]
    if not force and (there := [path for path in paths if path.exists()]):
        raise FileError(f"{there[0]}: expected a folder without such files; choose another one, or force=True")
    for stage, path in zip(steps, paths, strict=True):
        with _quiet():
            program = torch.onnx.export(
                stage.export(),
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamo=True,
                verbose=False,
            )
        if program is None:
            raise OptionError("export: expected a torch that exports by dynamo, got an older one; update torch")
        with whole_file(path) as part:
            program.save(part, external_data=False)
    return paths


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own parts."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _one_video(rows: Tensor) -> Tensor:
    """The frame that each of the rows `[B, ...]` belongs to, `[B]`: the first and only one."""
    return torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
