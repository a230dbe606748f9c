"""Tiny video models of transformers with random weights, and their own streaming session as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.prompts import Prompt

SIDE = 64  # px of the models
KINDS = ("sam2_video", "edgetam_video", "sam3_tracker_video")

_SESSIONS = {
    "sam2_video": "Sam2VideoInferenceSession",
    "edgetam_video": "EdgeTamVideoInferenceSession",
    "sam3_tracker_video": "Sam3TrackerVideoInferenceSession",
}
_CONFIGS = {"sam2_video": "Sam2Video", "edgetam_video": "EdgeTamVideo", "sam3_tracker_video": "Sam3TrackerVideo"}


def tiny_model(kind: str = "sam2_video", *, seed: int = 0, visible: float | None = 9.0, **changes: Any) -> Any:
    """A model with random weights large enough that masks depend on memory.

    Args:
        kind: its model type.
        seed: of the weights.
        visible: bias of the head that says whether the object is there; None leaves it to chance.
        changes: of its config.
    """
    transformers = pytest.importorskip("transformers", reason="needs the extra `sam2`")
    prefix = _CONFIGS[kind]
    if not hasattr(transformers, f"{prefix}Model"):
        pytest.skip(f"this transformers has no {prefix}Model")
    common: dict[str, Any] = {
        "image_size": SIDE,
        "memory_attention_hidden_size": 128,
        "memory_attention_num_layers": 1,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_encoder_hidden_size": 128,
        "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128,
        "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1,
    }
    if kind == "edgetam_video":
        common |= {
            "memory_attention_mlp_hidden_size": 32,
            "memory_attention_rope_k_sizes": [2, 2],
            "perceiver_resampler_num_latents": 4,
            "perceiver_resampler_num_latents_2d": 4,
            "perceiver_resampler_mlp_intermediate_size": 32,
        }
    else:
        common |= {"memory_attention_feed_forward_hidden_size": 32}
    prompts = getattr(transformers, f"{prefix}PromptEncoderConfig")(
        hidden_size=128, image_size=SIDE, mask_input_channels=4, patch_size=16
    )
    decoder = getattr(transformers, f"{prefix}MaskDecoderConfig")(
        hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=_vision(kind), prompt_encoder_config=prompts, mask_decoder_config=decoder, **{**common, **changes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{prefix}Model")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            if visible is not None:
                model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(visible)
    return model


def _vision(kind: str) -> dict[str, Any]:
    """The config of the image encoder; EdgeTAM's own is one of timm, in its place stands that of SAM 2."""
    if kind == "sam3_tracker_video":
        backbone: dict[str, Any] = {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "pretrain_image_size": SIDE,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
        }
        return {
            "model_type": "sam3_vision_model",
            "backbone_config": backbone,
            "fpn_hidden_size": 128,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        }
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
    }
    return {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 128,
    }


class Reference:
    """A streaming session of transformers, which keeps every frame, with the model's own masks.

    Args:
        model: of transformers.
        mean: of its images.
        std: of its images.
    """

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        import transformers

        self.model, self.frames = model, 0
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.session: Any = getattr(transformers, _SESSIONS[model.config.model_type])(dtype=torch.float32)

    def step(
        self, frame: Tensor, prompts: Sequence[Prompt] = (), masks: dict[int, Tensor] | None = None
    ) -> tuple[list[int], Tensor]:
        """Ids and logits `[N, H, W]` of a frame `[3, H, W]`; masks are bool `[H, W]` by id."""
        height, width = frame.shape[1:]
        for prompt in prompts:
            self._points(prompt, height, width)
        for object_id, mask in (masks or {}).items():
            resized = F.interpolate(
                mask.float()[None, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
            )
            self.session.add_mask_inputs(self.session.obj_id_to_idx(object_id), self.frames, (resized >= 0.5).float())
            self.session.obj_with_new_inputs.append(object_id)
        shrinks = height > SIDE or width > SIDE
        pixels = F.interpolate(frame[None], (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=shrinks)
        with torch.inference_mode():
            output = self.model(self.session, frame=(pixels - self.mean) / self.std, frame_idx=self.frames)
            logits = F.interpolate(output.pred_masks.float(), (height, width), mode="bilinear", align_corners=False)
        self.frames += 1
        return list(output.object_ids), logits[:, 0]

    def _points(self, prompt: Prompt, height: int, width: int) -> None:
        box = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
        points = torch.tensor([*box, *prompt.points, *prompt.not_points], dtype=torch.float32)
        labels = [2, 3][: len(box)] + [1] * len(prompt.points) + [0] * len(prompt.not_points)
        points = points * torch.tensor([SIDE / width, SIDE / height])
        number = self.session.obj_id_to_idx(prompt.object_id)
        inputs = {"point_coords": points[None, None], "point_labels": torch.tensor(labels)[None, None]}
        self.session.add_point_inputs(number, self.frames, inputs)
        self.session.obj_with_new_inputs.append(prompt.object_id)
