"""SAM 2 of Hugging Face transformers in constant memory: its session keeps every frame, here a bank keeps K of them.

Its memory attention then reads the K templates that policy and fusion kept, in place of the prompted and the last six
frames. Needs transformers: pip install ".[plugins]"
"""

import torch
from torch import Tensor
from transformers import Sam2VideoInferenceSession, Sam2VideoModel
from transformers.utils import ModelOutput

from stmemory.memory import MemoryBank

PROMPTED, TRACKED = "cond_frame_outputs", "non_cond_frame_outputs"  # how a session calls them


class BoundedSam2:
    """Steps one streaming session, and leaves in it what its bank holds. Prompts are added to the session as ever.

    A template is what the attention reads of a frame: the memory map, and the object pointer cut into tokens as wide.
    """

    def __init__(self, model: Sam2VideoModel, *, policy: str = "least_similar") -> None:
        self.model, self.time = model, 0
        self.bank = MemoryBank(model.num_maskmem, policy=policy)  # the model has temporal encodings for no more

    @torch.inference_mode()
    def step(self, session: Sam2VideoInferenceSession, frame: Tensor) -> ModelOutput:
        index, self.time = self.time, self.time + 1
        result = self.model(session, frame=frame, frame_idx=index)  # frame [1, 3, H, W], as its processor makes it
        for row, outputs in session.output_dict_per_obj.items():
            prompted = index in outputs[PROMPTED]
            new = outputs[PROMPTED if prompted else TRACKED][index]
            features, pointer = new["maskmem_features"], new["object_pointer"]  # [h w, 1, C] and [1, 1, p C]
            tokens = torch.cat(
                [features, pointer.reshape(-1, *features.shape[1:]).to(features.device)]
            ).float()  # [h w + p, 1, C]
            if 0 < self.bank.rows <= row:
                self.bank.add_rows(1)  # an object that enters late
            self.bank.write(tokens.permute(1, 2, 0), rows=[row], frame=index, pinned=prompted)
            outputs.update(self._held(row, new))
            for past in (session.frames_tracked_per_obj, session.mask_inputs_per_obj, session.point_inputs_per_obj):
                past[row].pop(index, None)
        session.processed_frames.clear()
        session.cache.clear_all()
        return result

    def _held(self, row: int, new: dict[str, Tensor]) -> dict[str, dict[int, dict[str, Tensor]]]:
        """All that the session holds of an object: pinned slots as prompted frames, the others in the places of the
        latest."""
        held: dict[str, dict[int, dict[str, Tensor]]] = {PROMPTED: {}, TRACKED: {}}
        slots, cells = self.bank.describe(row), len(new["maskmem_features"])
        for slot in slots:  # oldest first
            tokens = self.bank.templates[row, slot.slot].t()[:, None]  # [h w + p, 1, C]
            pointer = tokens[cells:].reshape(new["object_pointer"].shape).type_as(new["object_pointer"])
            younger = sum(other.age < slot.age and not other.pinned for other in slots)
            kind, frame = (PROMPTED, slot.frame) if slot.pinned else (TRACKED, self.time - 1 - younger)
            memory = {"maskmem_features": tokens[:cells], "maskmem_pos_enc": new["maskmem_pos_enc"]}
            held[kind][frame] = {**memory, "object_pointer": pointer}
        return held
