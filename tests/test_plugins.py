"""Facts about the plug-ins: the memory in models that are not ours holds the same bytes, and gives what it should.

The tests of SAM 2 need the extra `plugins`; its weights are random, its sizes tiny.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_sam2 import tiny_model
from torch import Tensor

from stmemory.memory import MemoryBank, memory_tokens
from stmemory.memory.slots import Slots

PLUGINS = Path(__file__).parent.parent / "examples" / "plugins"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PLUGINS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reachable(*roots: object) -> tuple[int, int]:
    """Bytes of all tensors, whole buffers, that can be reached through attributes and containers, and the number of
    objects met."""
    seen: dict[int, object] = {}  # keeps what it met alive, so that no id is given twice
    buffers: dict[int, int] = {}
    waiting = list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or item is None or isinstance(item, str | int | float | type):
            continue
        if isinstance(item, torch.nn.Module) and not isinstance(item, MemoryBank | Slots):
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor):
            buffers[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            waiting += item
        else:
            waiting += vars(item).values() if hasattr(item, "__dict__") else []
    return sum(buffers.values()), len(seen)


def test_every_plugin_is_short() -> None:
    """A plug-in is read on one screen, and none is without a test here."""
    lengths = {path.stem: len(path.read_text().splitlines()) for path in PLUGINS.glob("*.py")}

    assert {"convlstm", "growing_store", "sam2_video", "tokens"} == set(lengths)
    assert max(lengths.values()) <= 80


# A growing key-value store, capped.


def test_a_capped_store_reads_as_the_growing_one_until_it_is_full() -> None:
    """With no more frames than slots, both stores recall the same; afterwards one grows by a frame each, the other by
    nothing."""
    stores = _load("growing_store")
    growing, capped = stores.GrowingStore(), stores.CappedStore(5, key_channels=8)
    sizes = []
    for frame in range(40):
        key, value, query = (torch.randn(2, channels, 3, 4) for channels in (8, 6, 8))
        growing.add(key, value)
        capped.add(key, value)
        assert bool(capped.read(query).isfinite().all())
        if frame < 5:
            torch.testing.assert_close(growing.read(query), capped.read(query), atol=1e-6, rtol=1e-5)
        sizes.append((growing.nbytes, reachable(capped.bank)[0]))

    assert [sizes[0][0] * (frame + 1) for frame in range(40)] == [size for size, _ in sizes]
    assert {capped.bank.nbytes} == {size for _, size in sizes}


def test_a_capped_store_recalls_the_first_frame() -> None:
    """After two hundred frames, queries that are the first frame's keys recall the first frame's values."""
    capped = _load("growing_store").CappedStore(4, key_channels=8)
    first = torch.nn.functional.normalize(torch.randn(1, 8, 3, 4)), torch.randn(1, 6, 3, 4)
    capped.add(*first)
    for _ in range(200):
        capped.add(torch.nn.functional.normalize(torch.randn(1, 8, 3, 4)), torch.randn(1, 6, 3, 4))

    torch.testing.assert_close(first[1], capped.read(1000 * first[0]), atol=1e-3, rtol=0)


def test_growing_store_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    """Run by itself, the example shows both stores side by side."""
    _load("growing_store").main(frames=26)
    first, later = capsys.readouterr().out.splitlines()

    assert first.startswith("frame 4: growing 92,160 bytes, capped") and later.startswith(
        "frame 24: growing 460,800 bytes, capped"
    )
    assert first.split("capped ")[1].split()[0] == later.split("capped ")[1].split()[0]


# SAM 2 of transformers.


@pytest.fixture(scope="module")
def sam2() -> Any:
    """The model, which the tests leave as it is."""
    return tiny_model()


def _session(*objects: int, dtype: torch.dtype = torch.float32, cached: int = 1) -> Any:
    """A streaming session with a mask of each object in the first frame."""
    from transformers import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(
        video_height=64, video_width=64, dtype=dtype, max_vision_features_cache_size=cached
    )
    for number in objects:
        _prompt(session, number, frame=0)
    return session


def _prompt(session: Any, number: int, *, frame: int) -> None:
    """What a processor does with a mask."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 10 * number : 10 * number + 20, 10:40] = 1
    session.add_mask_inputs(session.obj_id_to_idx(number), frame, mask)
    session.obj_with_new_inputs.append(number)


def test_bounded_sam2_holds_the_same_bytes(sam2: Any) -> None:
    """Over 40 frames the unmodified session gains a frame at each; the bounded one holds the same bytes in as many
    objects."""
    plain, bounded = _session(1, 2), _session(1, 2, cached=100)
    stream = _load("sam2_video").BoundedSam2(sam2)
    growing, flat = [], []
    for _ in range(40):
        frame = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            sam2(plain, frame=frame)
        masks = stream.step(bounded, frame).pred_masks
        assert (2, 1, 16, 16) == masks.shape and bool(masks.isfinite().all())
        growing.append(reachable(plain)[0])
        flat.append(reachable(bounded, stream.bank))

    full = sam2.num_maskmem
    assert {flat[full]} == set(flat[full:])
    assert all(after - before >= frame.nbytes for before, after in itertools.pairwise(growing))
    assert growing[-1] > 5 * flat[-1][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bounded_sam2_gives_the_same_masks_until_the_bank_is_full(sam2: Any, dtype: torch.dtype) -> None:
    """To the bit, for two objects of which one enters late; then policy and fusion make a difference."""
    sam2 = copy.deepcopy(sam2).to(dtype)
    plain, bounded = _session(1, dtype=dtype), _session(1, dtype=dtype)
    stream = _load("sam2_video").BoundedSam2(sam2)
    equal = []
    for index in range(sam2.num_maskmem + 4):
        if index == 2:
            _prompt(plain, 2, frame=index)
            _prompt(bounded, 2, frame=index)
        frame = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            expected = sam2(plain, frame=frame, frame_idx=index).pred_masks
        equal.append(torch.equal(expected, stream.step(bounded, frame).pred_masks))

    assert [True] * (sam2.num_maskmem + 1) + [False] * 3 == equal


def test_bounded_sam2_that_drops_is_sam2(sam2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the policy `drop` the bank keeps SAM 2's own window: with as short a window of pointers, the same masks for
    good."""
    monkeypatch.setattr(sam2.config, "max_object_pointers_in_encoder", sam2.num_maskmem)
    plain, bounded = _session(1), _session(1)
    stream = _load("sam2_video").BoundedSam2(sam2, policy="drop")
    for _ in range(20):
        frame = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            expected = sam2(plain, frame=frame).pred_masks
        assert torch.equal(expected, stream.step(bounded, frame).pred_masks)


def test_bounded_sam2_reads_the_bank_and_no_more(sam2: Any) -> None:
    """Its attention is given the map and the pointer of K templates, among them that of the prompted frame as it
    was."""
    read: list[Tensor] = []
    hook = sam2.memory_attention.register_forward_pre_hook(
        lambda _, args, given: read.append(given["memory"]), with_kwargs=True
    )
    stream, session = _load("sam2_video").BoundedSam2(sam2), _session(1)
    try:
        stream.step(session, torch.rand(1, 3, 64, 64))
        first = stream.bank.templates[0, 0].clone()  # [C, h w + p]
        for _ in range(20):
            stream.step(session, torch.rand(1, 3, 64, 64))
    finally:
        hook.remove()

    cells, pointer = 4 * 4, 128 // 64
    assert [frames * (cells + pointer) for frames in range(1, 7)] + [7 * (cells + pointer)] * 14 == [
        len(memory) for memory in read
    ]
    assert torch.equal(first[:, :cells].t(), read[-1][:cells, 0])


# Tokens.


def test_a_tower_reads_the_tokens_of_all_frames_until_its_bank_is_full() -> None:
    """As with a list of all tokens so far, for as many frames as there are slots; finite and of the same bytes
    afterwards."""
    tower = _load("tokens").RememberingTower().eval()
    bank, all_tokens, sizes = tower.new_bank(slots=4), [], []
    with torch.no_grad():
        for index in range(30):
            frame = torch.rand(2, 3, 32, 48)
            tokens = tower(frame, bank)
            assert (2, 24, 32) == tokens.shape and bool(tokens.isfinite().all())
            seen = tower.first(tower.patches(frame).flatten(2).transpose(1, 2) + tower.places)
            past = torch.cat(all_tokens, 1) if all_tokens else None
            recalled = 0 if past is None else tower.recall(seen, past, past)[0]
            if index <= 4:
                torch.testing.assert_close(tower.last(seen + recalled), tokens, atol=1e-5, rtol=1e-5)
            all_tokens.append(seen)
            sizes.append(reachable(bank)[0])

    assert {bank.nbytes} == set(sizes)


def test_memory_tokens_are_the_templates() -> None:
    """Slot by slot and cell by cell, with the cells of empty slots marked; gradients come through."""
    bank = MemoryBank(3)
    template = torch.randn(2, 5, 2, 4, requires_grad=True)
    bank.write(template)
    tokens, empty = memory_tokens(bank)

    assert (2, 3 * 8, 5) == tokens.shape
    assert torch.equal(template[1, :, 1, 3], tokens[1, 1 * 4 + 3])
    assert [[False] * 8 + [True] * 16] * 2 == empty.tolist()
    tokens.sum().backward()
    assert template.grad is not None and bool((template.grad == 1).all())


# A ConvLSTM.


def test_convlstm_holds_the_same_bytes_and_stays_finite() -> None:
    """Rolled out on its own predictions, its bank and cache hold the same bytes from the second frame on."""
    model = _load("convlstm").RememberingConvLSTM().eval()
    (bank, cache), frame, sizes = model.new_memory(), torch.rand(2, 3, 8, 12), []
    state = model.new_state(frame)
    with torch.inference_mode():
        for _ in range(60):
            frame, state = model(frame, state, bank, cache)
            sizes.append(reachable(bank._slots.tensors, cache)[0])

    assert 1 == len(set(sizes[1:]))
    assert (2, 3, 8, 12) == frame.shape and bool(frame.isfinite().all())


def test_convlstm_predicts_as_with_all_states_until_its_bank_is_full() -> None:
    """With five slots as with fifty, for as many frames as there are slots; afterwards they differ."""
    model = _load("convlstm").RememberingConvLSTM().eval()
    runs = []
    with torch.no_grad():
        for slots in (5, 50):
            (bank, cache), state = model.new_memory(slots), model.new_state(torch.zeros(1, 3, 8, 12))
            predicted = []
            for frame in torch.rand(9, 1, 3, 8, 12, generator=torch.Generator().manual_seed(1)):
                frame, state = model(frame, state, bank, cache)
                predicted.append(frame)
            runs.append(predicted)

    assert [True] * 6 + [False] * 3 == [torch.allclose(few, many, atol=1e-6) for few, many in zip(*runs, strict=True)]


def test_convlstm_learns_through_its_memory() -> None:
    """Two frames that take turns are learned in a few steps, and gradients reach the heads of the read and the fusion
    cell."""
    model = _load("convlstm").RememberingConvLSTM()
    frames = torch.rand(2, 1, 3, 8, 12)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        (bank, cache), state, loss = model.new_memory(3), model.new_state(frames[0]), torch.zeros(())
        for time in range(8):
            predicted, state = model(frames[time % 2], state, bank, cache)
            loss = loss + (predicted - frames[(time + 1) % 2]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.5 * losses[0]
    moved = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and 0 < float(p.grad.abs().sum()) < float("inf")
    ]
    assert [name for name, _ in model.named_parameters()] == moved


@pytest.mark.parametrize("name", ["tokens", "convlstm"])
def test_an_example_says_how_it_went(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run by itself, it prints the bytes that it held: the same from the second frame on."""
    sizes = _load(name).main(frames=8)

    assert 1 == len(set(sizes[1:]))
    assert "8 frames" in capsys.readouterr().out
