"""An update policy that keeps templates evenly spread over time, compared with other policies on a rendered clip."""

import numpy as np
import torch

from stmemory import TrackingOptions, VOSPredictor
from stmemory.evaluation.metrics import region_similarity
from stmemory.evaluation.scenes import render_scene
from stmemory.memory import BankView, Decision


class EvenlySpread:
    """Fuses the template with the closest neighbours in time into the nearest one that may change."""

    name = "evenly_spread"
    uses_similarity = False  # it uses only ages, so the bank computes no similarities

    def decide(self, view: BankView) -> Decision:
        age, far = view.age, torch.iinfo(view.age.dtype).max // 4
        older = age[:, None, :] - age[:, :, None]  # [B, K, K]: by how much slot j is older than slot i
        before = torch.where(older > 0, older, far).amin(2)  # [B, K]: to the neighbour before; the oldest has none
        # [B, K]: to the neighbour after; the new template comes after the newest
        after = torch.where(older < 0, -older, age[:, :, None] + 1).amin(2)
        goes = (before + after).masked_fill(~view.movable, 2 * far).argmin(1)  # [B]; pinned slots stay
        remove = torch.nn.functional.one_hot(goes, age.shape[1]).float()
        others = view.movable & (remove == 0)
        apart = older.abs()[torch.arange(len(age)), goes].masked_fill(~others, far)  # [B, K]
        into = torch.nn.functional.one_hot(apart.argmin(1), age.shape[1]) * others.any(1, keepdim=True)
        return Decision(remove, into.float())


def main(frames: int = 48, *, height: int = 180, width: int = 320) -> dict[str, float]:
    found = {}
    for policy in (EvenlySpread(), "least_similar", "drop"):
        options = TrackingOptions(policy=policy, memory_size=4, memory_every=1)
        predictor = VOSPredictor.from_pretrained(options=options)
        clip = list(render_scene(frames, height=height, width=width))
        results = list(predictor.track((frame for frame, _ in clip), clip[0][1]))
        pairs = [(result.ids.numpy(), truth) for result, (_, truth) in zip(results, clip, strict=True)][1:]
        regions = [region_similarity(ids == i, truth == i) for ids, truth in pairs for i in (1, 2)]
        name = policy if isinstance(policy, str) else policy.name
        found[name] = 100 * float(np.mean(regions))
        print(f"{name}: J {found[name]:.1f} over {frames} frames")
    return found


if __name__ == "__main__":
    main()
