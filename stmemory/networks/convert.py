"""Other people's checkpoints: files of tensors read without running code, their names turned into ours.

Names are strict both ways: what is missing, unexpected or of another shape is listed, and nothing is taken halfway.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from stmemory.errors import WeightsError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.resnet import ImageNetNormalisation
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.weights.checkpoint import differences, listed
from stmemory.weights.pretrained import fingerprint, load_network, save_network

__all__ = [
    "RESNET_NAMES",
    "Conversion",
    "convert_stcn",
    "convert_stm",
    "read_tensors",
    "renamed",
    "stcn_state",
    "stm_state",
    "translated",
]

# Pieces of our names, and what they are called in torchvision, in timm, and in STM, which is built on torchvision's.
RESNET_NAMES = (
    ("stem.conv", "conv1"),
    ("stem.norm", "bn1"),
    ("reduce.conv", "conv1"),
    ("reduce.norm", "bn1"),
    ("spatial.conv", "conv2"),
    ("spatial.norm", "bn2"),
    ("expand.conv", "conv3"),
    ("expand.norm", "bn3"),
    ("shortcut.conv", "downsample.0"),
    ("shortcut.norm", "downsample.1"),
)

_STM_NAMES = (
    *RESNET_NAMES,
    ("query_encoder.backbone", "Encoder_Q"),
    ("memory_encoder.backbone", "Encoder_M"),
    ("layer1", "res2"),
    ("layer2", "res3"),
    ("layer3", "res4"),
    ("query_encoder.key", "KV_Q_r4.Key"),
    ("query_encoder.value", "KV_Q_r4.Value"),
    ("read.key", "KV_M_r4.Key"),
    ("read.value", "KV_M_r4.Value"),
    ("decoder.mix", "Decoder.convFM"),
    ("decoder.mix_block", "Decoder.ResMM"),
    ("decoder.refine8", "Decoder.RF3"),
    ("decoder.refine4", "Decoder.RF2"),
    ("decoder.predict", "Decoder.pred2"),
    ("skip", "convFS"),
    ("skip_block", "ResFS"),
    ("block", "ResMM"),
    ("first", "conv1"),
    ("second", "conv2"),
)
# One stem of ours is three of STM's, of the frame, the mask and the other masks, side by side.
_STEM = "memory_encoder.backbone.stem.conv.weight"
_STEM_PARTS = {"Encoder_M.conv1.weight": 3, "Encoder_M.conv1_m.weight": 1, "Encoder_M.conv1_o.weight": 1}
_STCN_NAMES = (
    *RESNET_NAMES,
    ("first.conv", "conv1"),
    ("first.norm", "bn1"),
    ("second.conv", "conv2"),
    ("second.norm", "bn2"),
    ("query_encoder.backbone.layer1", "key_encoder.res2"),
    ("query_encoder.backbone", "key_encoder"),
    ("query_encoder.key", "key_proj.key_proj"),
    ("query_encoder.value", "key_comp"),
    ("memory_encoder.backbone", "value_encoder"),
    ("memory_encoder.merge", "value_encoder.fuser.block1"),
    ("memory_encoder.attend.narrow", "value_encoder.fuser.attention.ChannelGate.mlp.1"),
    ("memory_encoder.attend.widen", "value_encoder.fuser.attention.ChannelGate.mlp.3"),
    ("memory_encoder.attend.place", "value_encoder.fuser.attention.SpatialGate.spatial.conv"),
    ("memory_encoder.refine", "value_encoder.fuser.block2"),
    ("decoder.mix", "decoder.compress"),
    ("decoder.up8", "decoder.up_16_8"),
    ("decoder.up4", "decoder.up_8_4"),
    ("decoder.predict", "decoder.pred"),
    ("skip", "skip_conv"),
    ("block", "out_conv"),
    ("first", "conv1"),
    ("second", "conv2"),
    ("shortcut", "downsample"),
)
_VALUE_ENCODER = "memory_encoder.backbone."  # its convolutions have biases in STCN, though a norm follows each
_STCN_STEM = "value_encoder.conv1.weight"
_COUNTER = ".num_batches_tracked"  # torch before 0.4.1 did not write it, and nothing here reads it
_WRAPPER = "module."  # nn.DataParallel's

# How far an untrained cell may move a template at each fusion: after 10,000 of them, 1 % of the way.
_UPDATE = 1e-6


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: the file that was read.
        folder: the folder that was written.
        sha256: of the file.
        parameters: numbers that came from it.
    """

    source: Path
    folder: Path
    sha256: str
    parameters: int


def convert_stm(path: str | Path, folder: str | Path, *, force: bool = False) -> Conversion:
    """Turn STM's published checkpoint into a folder that `VOSPredictor.from_pretrained` reads.

    The fusion cell, which STM has not, is untrained and all but the identity: `FusionCell.start_near_identity`.

    Args:
        path: `STM_weights.pth`, or a safetensors file of the same names.
        folder: made if it is not there.
        force: replace other weights that the folder holds.

    Raises:
        WeightsError: the file is not STM's, is damaged, or needs more than tensors; the folder holds other weights.
    """
    about: dict[str, object] = {
        "base_model": "STM: Oh et al., Video Object Segmentation using Space-Time Memory Networks, ICCV 2019",
        "licence": "CC-BY-NC-SA-4.0",
        "limits": ["for non-commercial use only", "the fusion cell is untrained"],
        "re-hosting": "never put these weights anywhere for others to download",
    }
    return _convert("stm", path, folder, stm_state, about, force=force)


def convert_stcn(path: str | Path, folder: str | Path, *, force: bool = False) -> Conversion:
    """Turn STCN's published checkpoint into a folder that `VOSPredictor.from_pretrained` reads.

    STCN reads from the 20 best memory cells; `TrackingOptions(top_k=20)` does so here. The fusion cell, which STCN has
    not, is as in `convert_stm`.

    Args:
        path: `stcn.pth`, or a safetensors file of the same names.
        folder: made if it is not there.
        force: replace other weights that the folder holds.

    Raises:
        WeightsError: the file is not STCN's, is damaged, or needs more than tensors; the folder holds other weights.
    """
    about: dict[str, object] = {
        "base_model": "STCN: Cheng, Tai and Tang, Rethinking Space-Time Networks with Improved Memory Coverage for "
        "Efficient Video Object Segmentation, NeurIPS 2021",
        "licence": "MIT",
        "limits": ["the fusion cell is untrained", "STCN reads the 20 best memory cells: track with top_k=20"],
    }
    return _convert("stcn", path, folder, stcn_state, about, force=force)


def _convert(
    preset: str,
    path: str | Path,
    folder: str | Path,
    state_of: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    about: Mapping[str, object],
    *,
    force: bool,
) -> Conversion:
    """Write a network of a preset with the tensors of a file, and what is known of it."""
    path, folder = Path(path), Path(folder)
    state = state_of(read_tensors(path))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same file makes the same folder
        network = SegmentationNetwork(NetworkConfig.of(preset)).float()  # whatever torch's default dtype
        network.fusion.start_near_identity(_UPDATE)
        network.load_state_dict({**network.state_dict(), **state})
        if not force:
            _check_folder(folder, network)
        origin = {
            "converted from": {"file": path.name, "sha256": digest},
            "fusion cell": f"untrained; moves a template {_UPDATE:g} of the way at each fusion",
        }
        save_network(network.eval(), folder, about={**about, **origin})
    return Conversion(
        path, folder, digest, sum(t.numel() for n, t in state.items() if t.is_floating_point() and ".running_" not in n)
    )


def stm_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state of STM under the names of `SegmentationNetwork`'s `stm` preset, without its fusion cell.

    Args:
        published: with or without the prefix `module.` that `nn.DataParallel` puts before each name.

    Raises:
        WeightsError: names are missing, unexpected or misshapen, or none is STM's; its ImageNet constants are not ours.
    """
    published, ours = _unwrapped(published), _blank("stm")
    names = {name: translated(name, _STM_NAMES) for name in ours if name != _STEM}
    expected = {theirs: ours[name] for name, theirs in names.items()}
    for name, channels in _STEM_PARTS.items():
        names[name], expected[name] = name, ours[_STEM][:, :channels]
    constants = {
        f"Encoder_{which}.{name}": value.flatten()
        for which in "MQ"
        for name, value in ImageNetNormalisation().named_buffers()
    }
    state = renamed(
        {name: tensor for name, tensor in published.items() if name not in constants}, names, expected, what="STM"
    )
    state[_STEM] = torch.cat([state.pop(name) for name in _STEM_PARTS], dim=1)
    for name, value in constants.items():
        found = published.get(name, value).flatten().float()
        if found.shape != value.shape or not torch.allclose(found, value, atol=1e-6):
            means = [[round(number, 4) for number in tensor[:5].tolist()] for tensor in (value, found)]
            raise WeightsError(
                f"STM: expected {name} to be ImageNet's {means[0]}, got {means[1]}; these weights want other frames"
            )
    return state


def stcn_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state of STCN under the names of `SegmentationNetwork`'s `stcn` preset, without its fusion cell.

    The biases of the value encoder's convolutions are taken off the running means of the norms that follow them, which
    is the same. Of a network that was trained on single objects alone, which knows no other masks, their kernels are
    zero, as in STCN's scripts.

    Args:
        published: with or without the prefix `module.` that `nn.DataParallel` puts before each name. The biases may be
            missing, all of them: STCN's own convolutions have them, those of ResNet-18 have not.

    Raises:
        WeightsError: names are missing, unexpected or misshapen, or none is STCN's.
    """
    published, ours = _unwrapped(published), _blank("stcn")
    stem = published.get(_STCN_STEM)
    if stem is not None and stem.dim() == 4 and stem.shape[1] == 4:
        published = {**published, _STCN_STEM: torch.cat([stem, torch.zeros_like(stem[:, :1])], 1)}
    names = {name: translated(name, _STCN_NAMES) for name in ours}
    means = {  # the running mean that each bias is taken off
        names[name].removesuffix("weight") + "bias": name.removesuffix("conv.weight") + "norm.running_mean"
        for name in ours
        if name.startswith(_VALUE_ENCODER) and name.endswith(".conv.weight")
    }
    biases = {bias: ours[mean] for bias, mean in means.items()} if means.keys() & published.keys() else {}
    expected = {theirs: ours[name] for name, theirs in names.items()} | biases
    state = renamed(published, names | {bias: bias for bias in biases}, expected, what="STCN")
    for bias in biases:
        state[means[bias]] = state[means[bias]] - state.pop(bias)
    return state


def _unwrapped(published: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the prefix that `nn.DataParallel` puts before each name."""
    if published and all(name.startswith(_WRAPPER) for name in published):
        return {name.removeprefix(_WRAPPER): tensor for name, tensor in published.items()}
    return published


def _blank(preset: str) -> dict[str, Tensor]:
    """The names and shapes of a preset's network without its fusion cell."""
    with torch.device("meta"):
        state = SegmentationNetwork(NetworkConfig.of(preset)).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fusion.")}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a foreign file, on the CPU: safetensors by its suffix, else what `torch.save` wrote. Runs no
    code.

    Raises:
        WeightsError: there is no such file, it is damaged or of another kind, it holds more than tensors, or it would
            run code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a file of weights, got "
            f"{'a folder' if path.is_dir() else 'nothing there'}; check the path"
        )
    found: Any
    try:
        found = load_file(path) if _is_safetensors(path) else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch's readers raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise WeightsError(
                f"{path}: expected tensors alone, got a file that asks to run code when it is read, which is never "
                "done here, or is damaged; download it again, or, where the network is your own, write "
                "torch.save(network.state_dict(), path)"
            ) from error
        first = (str(error).splitlines() or [""])[0]
        raise WeightsError(
            f"{path}: expected a whole file of torch.save or safetensors, got what cannot be read "
            f"({type(error).__name__}: {first[:120]}); "
            "copy or download it again"
        ) from error
    others = (
        [name for name, value in found.items() if not isinstance(value, Tensor)] if isinstance(found, dict) else None
    )
    if others is None or others or not found:
        found = (
            f"a {type(found).__name__}"
            if others is None
            else f"others: {listed(map(str, others))}"
            if others
            else "an empty one"
        )
        raise WeightsError(
            f"{path}: expected a dict of names and tensors, got {found}; write torch.save(network.state_dict(), path)"
        )
    return {str(name): tensor for name, tensor in found.items()}


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, whatever its name: a length of eight bytes, and JSON."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def translated(name: str, table: Iterable[tuple[str, str]]) -> str:
    """A dotted name with each piece that the table knows in its place.

    >>> translated("layer1.0.reduce.norm.bias", RESNET_NAMES)
    'layer1.0.bn1.bias'
    """
    name = f".{name}."
    for ours, theirs in table:
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name[1:-1]


def renamed(
    published: Mapping[str, Tensor], names: Mapping[str, str], expected: Mapping[str, Tensor], *, what: str
) -> dict[str, Tensor]:
    """Published tensors under our names, strictly.

    Args:
        published: all of them.
        names: what each of our tensors is called there.
        expected: by published name, a tensor (on any device) of the shape that it must have.
        what: whose they are, for errors.

    Raises:
        WeightsError: names are missing, unexpected or misshapen.

    >>> published, expected = {"conv1.weight": torch.ones(2)}, {"conv1.weight": torch.empty(2)}
    >>> renamed(published, {"stem.weight": "conv1.weight"}, expected, what="it")
    {'stem.weight': tensor([1., 1.])}
    """
    known = set(names.values())
    if not known & set(published):
        raise WeightsError(
            f"{what}: expected names such as {listed(known)}, got {listed(published)}; the file is of another network"
        )
    wanted = {name: tensor for name, tensor in expected.items() if name in published or not name.endswith(_COUNTER)}
    if changed := differences(published, wanted):
        raise WeightsError(
            f"{what}: expected exactly its published names and shapes, got {changed}; the file is of another network "
            "or version"
        )
    return {ours: published.get(theirs, torch.zeros((), dtype=torch.int64)) for ours, theirs in names.items()}


def _check_folder(folder: Path, network: SegmentationNetwork) -> None:
    """Refuse to replace what is not what would be written."""
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder}: expected a folder or nothing, got a file; choose another")
    if not any((folder / name).exists() for name in ("config.json", "model.safetensors")):
        return
    try:
        same = fingerprint(load_network(folder)) == fingerprint(network)
    except WeightsError:
        same = False
    if not same:
        raise WeightsError(
            f"{folder}: expected a folder without weights, got one with "
            "others; choose another, or replace them with force=True"
        )
