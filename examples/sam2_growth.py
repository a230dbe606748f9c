"""The memory of SAM 2 over a long video: the session of transformers, and the same model in stmemory, in one run.

Usage: python sam2_growth.py OUT [--frames 500] [--weights NAME] [--side 256]

Writes OUT/growth.png, and prints the bytes of both. --weights is a folder or a repository; without it the weights are
random, for images of --side pixels, and the masks mean nothing. Needs the extras sam2 and plot.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from stmemory import Prompt, VOSPredictor
from stmemory.evaluation.growth import GrowthReport, draw_growth, measure_growth
from stmemory.evaluation.scenes import render_scene
from stmemory.io.frames import WorkingSize, fit, to_frame
from stmemory.networks.sam2 import Sam2Network


def random_network(side: int) -> Sam2Network:
    """The configuration of SAM 2.1 tiny for smaller images, with random weights."""
    import transformers as hf

    torch.manual_seed(0)
    cells = [[side // stride] * 2 for stride in (4, 8, 16)]
    backbone = {"model_type": "sam2_hiera_det_model", "image_size": [side, side]}
    vision = hf.Sam2VisionConfig(backbone_config=backbone, backbone_feature_sizes=cells)
    sides = {"prompt_encoder_config": {"image_size": side}, "memory_attention_rope_feat_sizes": cells[-1]}
    model = hf.Sam2VideoModel(hf.Sam2VideoConfig(vision_config=vision, image_size=side, **sides))
    return Sam2Network(model, name=f"SAM 2.1 tiny, random weights, {side} px")


def main(out: str, *, frames: int = 500, weights: str | None = None, side: int = 256) -> dict[str, GrowthReport]:
    """Step both through the same frames, one after the other."""
    from transformers import Sam2VideoInferenceSession

    predictor = VOSPredictor.from_pretrained(weights) if weights else VOSPredictor(random_network(side))
    network: Any = predictor.network
    pictures = [to_frame(frame) for frame, _ in render_scene(24, height=240, width=432)]
    size = WorkingSize(240, 432, network.side, network.side, network.side, network.side)
    session = Sam2VideoInferenceSession(dtype=torch.float32)
    centre = {"point_coords": torch.tensor([[[[network.side / 2] * 2]]]), "point_labels": torch.ones(1, 1, 1).long()}
    session.add_point_inputs(session.obj_id_to_idx(1), 0, centre)
    session.obj_with_new_inputs.append(1)
    stream = predictor.start(pictures[0], prompts=Prompt(1, points=[(216, 120)]))
    runs = {}

    def step_session(frame: Tensor) -> None:
        with torch.inference_mode():
            network.model(session, frame=network.normalised(fit(frame, size)[None]))

    def session_bytes() -> int:
        return sum(t.numel() * t.element_size() for t in tree_leaves(vars(session)) if isinstance(t, Tensor))

    ours = ("stmemory", stream.step, lambda: stream.nbytes)
    for name, step, held in (ours, ("transformers", step_session, session_bytes)):
        runs[name] = report = measure_growth(step, itertools.cycle(pictures), steps=frames, bank_bytes=held)
        sizes, seconds = report.bank_bytes[[min(8, frames - 1), -1]] / 1e6, float(np.median(report.seconds))
        print(
            f"{name}: {sizes[0]:.1f} MB after 9 frames, {sizes[1]:.1f} MB after all, {seconds:.2f} s a frame (median)"
        )
    draw_growth(Path(out) / "growth.png", runs, title=f"{network.name}, one object, {torch.get_num_threads()} threads")
    return runs


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    for name, kind, default in (("--frames", int, 500), ("--weights", str, None), ("--side", int, 256)):
        parser.add_argument(name, type=kind, default=default)
    main(**vars(parser.parse_args()))
