"""One memory network, one clip: the time and the memory of its last frames as JSON; peer_speed.py starts it for each.

Usage: python one.py NAME DIR OBJECTS FRAMES

NAME is stmemory, stm, stcn or xmem, DIR the checkout ("" for stmemory).
"""

import json
import sys
import time
from collections.abc import Callable

import torch
import torch.utils.model_zoo
from torch import Tensor
from torch.utils._pytree import tree_leaves

from stmemory import VOSPredictor
from stmemory.evaluation.speed import coloured_boxes
from stmemory.io.frames import to_frame

COUNTED = 15  # frames: whole cycles of all four, which memorise every third or every fifth


def run_stmemory(frames: Tensor, masks: Tensor, mark: Callable[[], None]) -> int:
    """Track frames [T, 3, H, W] from masks [1 + N, H, W] of the first on; call mark before each; give bytes held."""
    stream = VOSPredictor.from_pretrained().new_stream()
    for index, frame in enumerate(frames):
        mark()
        stream.step(frame, None if index else masks.argmax(0))
    return stream.nbytes


def run_stm(frames: Tensor, masks: Tensor, mark: Callable[[], None]) -> int:
    """The loop of its paper, around its network: all that is kept and the frame before are read."""
    from model import STM

    network, objects, probabilities = STM().eval(), torch.tensor([len(masks) - 1]), masks[None]
    kept: list[list[Tensor]] = [[], []]
    for index, frame in enumerate(frames):
        mark()
        if index:
            last = network(frames[index - 1][None], probabilities, objects)  # key, value: [1, 1 + N, C, 1, h, w]
            memory = [torch.cat([*old, new], dim=3) for old, new in zip(kept, last, strict=True)]
            probabilities = network(frame[None], *memory, objects).softmax(1)
            kept = [[part] for part in memory] if index % 5 == 1 else kept
    return bytes_of([part[:, 1:] for part in memory])  # without the background's row, which is empty


def run_stcn(frames: Tensor, masks: Tensor, mark: Callable[[], None]) -> int:
    """Its inference core with its own defaults, which are those of its evaluation."""
    from inference_core import InferenceCore
    from model.eval_network import STCN

    core = InferenceCore(STCN().eval(), frames[None], len(masks) - 1)
    encode = core.encode_key  # the first that it does with a frame
    core.encode_key = lambda index: (mark(), encode(index))[1]
    core.interact(masks[1:, None], 0, len(frames))
    return bytes_of(vars(core.mem_bank))


def run_xmem(frames: Tensor, masks: Tensor, mark: Callable[[], None]) -> int:
    """Its inference core with the defaults of its evaluation."""
    from inference.inference_core import InferenceCore
    from model.network import XMem

    config = {"mem_every": 5, "deep_update_every": -1, "top_k": 30, "enable_long_term": True, "num_prototypes": 128}
    config |= {"max_mid_term_frames": 10, "min_mid_term_frames": 5, "max_long_term_elements": 10_000}
    config["enable_long_term_count_usage"] = len(frames) / 5 * 128 >= 10_000
    network = XMem(config).eval()  # adds its sizes to `config`
    core, other = InferenceCore(network, config), InferenceCore(network, config)
    for one in (core, other):
        one.set_all_labels(list(range(1, len(masks))))
    try:
        other.step(frames[0], masks[1:])
    except NotImplementedError:  # its first version takes [1, 3, H, W]
        frames = frames[:, None]
    for index, frame in enumerate(frames):
        mark()
        core.step(frame, None if index else masks[1:])
    return bytes_of([vars(core.memory.work_mem), vars(core.memory.long_mem), core.memory.hidden])


def bytes_of(tree: object) -> int:
    """Of all tensors in it."""
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def stay_here() -> None:
    """Until the process ends, ask for no GPU, and fetch no pretrained weights: the random ones stay."""
    zeros = torch.zeros
    torch.zeros = lambda *size, device=None, **options: zeros(*size, **options)
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.hub.load_state_dict_from_url = torch.utils.model_zoo.load_url = lambda *_, **__: {}
    torch.nn.Module.load_state_dict = lambda *_, **__: None


@torch.no_grad()
def main(name: str, folder: str, objects: int, frames: int) -> None:
    """Print milliseconds a frame and bytes, as the last line."""
    clip, ids = coloured_boxes(objects, 480, 854)
    shown = [*clip, *clip[-2:0:-1]]  # forth and back
    pictures = torch.stack([to_frame(shown[index % len(shown)]) for index in range(frames)])
    masks = torch.nn.functional.one_hot(torch.from_numpy(ids).long()).permute(2, 0, 1).float()
    runs = {"stmemory": run_stmemory, "stm": run_stm, "stcn": run_stcn, "xmem": run_xmem}
    marks: list[float] = []
    if folder:
        sys.path.insert(0, folder)
        stay_here()
    torch.manual_seed(0)
    try:
        size = runs[name](pictures, masks, lambda: marks.append(time.perf_counter()))
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{name}: {error}. Expected the checkout in {folder!r}, and that all that its code imports, such as "
            f"torchvision, is installed here: its requirements are not those of stmemory"
        ) from error
    counted = min(COUNTED, frames - 1)
    seconds = (time.perf_counter() - marks[-counted]) / counted
    print(json.dumps({"ms": 1000 * seconds, "bytes": size, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
