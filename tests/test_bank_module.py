"""A bank as a module of torch: what is learned trains, moves and is saved; what is remembered moves and is not."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stmemory.errors import OptionError, ShapeError
from stmemory.memory import FusionCell, LearnedPolicy, MemoryBank, ReadCache, SpaceTimeRead, policy_names
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork


class Model(nn.Module):
    """A model of a user's: a layer, a read and a bank."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.read = SpaceTimeRead(nn.Conv2d(4, 2, 1), nn.Conv2d(4, 5, 1))
        self.bank = MemoryBank(3, policy="oldest", fusion=FusionCell(4), key=self.read.key, borrow=("key",))

    def forward(self, frame: Tensor) -> Tensor:
        template = self.layer(frame)
        self.bank.write(template)
        recalled: Tensor = self.read(self.read.key(template), self.bank)
        return recalled


def used(model: Model, frames: int = 5) -> Model:
    """The model after some frames in inference."""
    with torch.no_grad():
        for seed in range(frames):
            parameter = next(model.parameters())
            model(torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)).to(parameter))
    return model


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_the_parameters_of_a_model_are_those_of_its_bank_too() -> None:
    """The fusion cell's are there, each once, also where read and bank share the key head."""
    model = Model()
    mine = dict(model.named_parameters())
    assert {f"bank.fusion.{name}" for name, _ in model.bank.fusion.named_parameters()} == {
        name for name in mine if name.startswith("bank.")
    }
    assert len({id(p) for p in mine.values()}) == len(mine)


def test_an_optimiser_step_moves_the_fusion_cell() -> None:
    """A loss after the first fusion reaches the cell through the bank, and the optimiser of the model changes it."""
    model = Model()
    before = copy.deepcopy(model.bank.fusion.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(5):
        loss = model(torch.rand(1, 3, 4, 5)).square().sum()
    loss.backward()
    optimiser.step()
    assert not any(torch.equal(before[name], t) for name, t in model.bank.fusion.state_dict().items())


def test_the_state_dict_holds_what_is_learned_alone() -> None:
    """It has no slots, is the same before and after a video, and is loaded strictly into a model that saw another."""
    model, other = Model(), used(Model(), 2)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    used(model)
    assert {"layer", "read", "bank"} == {name.split(".")[0] for name in before}
    assert all(name.startswith("bank.fusion.") for name in before if name.startswith("bank"))
    assert equal(before, model.state_dict())
    told = [
        str(loaded)
        for loaded in (
            other.load_state_dict(before),
            model.bank.load_state_dict(
                {name.removeprefix("bank."): t for name, t in before.items() if name.startswith("bank.")}
            ),
        )
    ]
    assert ["<All keys matched successfully>"] * 2 == told
    assert equal(model.state_dict(), other.state_dict())
    assert [2, 2] == other.bank.count.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_a_cast_reaches_parameters_and_templates(dtype: torch.dtype) -> None:
    """Templates and keys are of the new dtype, similarities stay float32 and numbers whole; the video goes on."""
    model = used(Model())
    before, similarity = model.bank.contents(), model.bank.similarity()
    {torch.float64: model.double, torch.float16: model.half, torch.bfloat16: model.bfloat16}[dtype]()
    after = model.bank.contents()
    assert {dtype} == {p.dtype for p in model.parameters()} | {after[name].dtype for name in ("templates", "keys")}
    assert all(after[name].dtype == t.dtype for name, t in before.items() if name not in ("templates", "keys"))
    assert torch.equal(similarity, after["similarity"])
    torch.testing.assert_close(before["templates"].to(dtype), after["templates"])
    used(model)
    assert dtype == model.bank.templates.dtype and bool(model.bank.templates.isfinite().all())


def test_a_move_takes_the_slots_along() -> None:
    """To another device, here the one without values, go parameters and all buffers, and no state is left behind."""
    model = used(Model()).to("meta")
    assert {"meta"} == {t.device.type for t in (*model.parameters(), *model.bank.contents().values())}
    assert set(model.bank.contents().values()) == set(model.buffers())


def test_a_cache_of_before_a_cast_is_not_used() -> None:
    """Keys and values are made again of the templates that were cast."""
    model, cache = used(Model()), ReadCache()
    query = torch.rand(2, 2, 4, 5)
    with torch.no_grad():
        before = model.read(query, model.bank, cache)
        model.double()
        after = model.read(query.double(), model.bank, cache)
    assert torch.float64 == after.dtype
    torch.testing.assert_close(before.double(), after, atol=1e-6, rtol=1e-6)


def test_a_cast_that_changes_nothing_changes_nothing() -> None:
    """`.float()` of a float32 bank keeps its tensors and its caches."""
    bank = used(Model()).bank
    before, identity = bank.contents(), bank.identity
    bank.float().cpu()
    assert all(before[name] is t for name, t in bank.contents().items()) and identity is bank.identity


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_of_a_model_goes_its_own_way(copied: Callable[[Model], Model]) -> None:
    """Weights and contents are copied, what read and bank shared they share again, and nothing ties it to the first."""
    model = used(Model())
    twin = copied(model)
    assert equal(model.state_dict(), twin.state_dict()) and equal(model.bank.contents(), twin.bank.contents())
    assert twin.bank.key is twin.read.key is not model.read.key and twin.bank.fusion is not model.bank.fusion
    before = {name: t.clone() for name, t in model.bank.contents().items()}
    used(twin, 3)
    assert equal(before, model.bank.contents())
    assert equal(used(model, 3).bank.contents(), twin.bank.contents())


def test_a_model_is_saved_and_loaded_as_any_other() -> None:
    """Through `torch.save` of its `state_dict()`."""
    model, file = used(Model()), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = Model()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert equal(model.state_dict(), other.state_dict())
    assert 0 == other.bank.rows


def test_training_and_eval_mode_reach_a_learned_policy() -> None:
    """A policy that the bank owns draws in training and decides in eval mode; its weights are the bank's."""
    bank = MemoryBank(3, policy=LearnedPolicy())
    assert isinstance(bank.policy, LearnedPolicy)
    assert bank.eval().policy.training is False and bank.train().policy.training is True
    assert {f"policy.{name}" for name in bank.policy.state_dict()} == set(bank.state_dict())


def test_a_networks_bank_owns_nothing() -> None:
    """A model that holds a network and a bank of it lists and saves the network's weights once, and a move of the bank
    leaves the network where it is."""
    network, policy = SegmentationNetwork(NetworkConfig.of("lite")), LearnedPolicy()
    bank = network.new_bank(3, policy=policy)
    model = nn.ModuleDict({"network": network, "bank": bank})
    assert [] == list(bank.parameters()) == list(bank.state_dict())
    assert {f"network.{name}" for name in network.state_dict()} == set(model.state_dict())
    assert (bank.fusion, bank.key, bank.policy) == (network.fusion, network.read.key, policy)
    bank.double()
    bank.eval()
    assert {torch.float32} == {p.dtype for p in network.parameters()} and network.fusion.training
    twin = copy.deepcopy(model)
    assert twin["bank"].fusion is twin["network"].fusion is not network.fusion
    assert "policy.remove_score.0.weight" in network.new_bank(3, policy="learned").state_dict()


def test_a_fork_owns_nothing() -> None:
    """It shares the parts of the first bank, which stays their owner."""
    bank = used(Model()).bank
    fork = bank.fork()
    assert ([], bank.fusion, bank.key) == (list(fork.parameters()), fork.fusion, fork.key)


def test_only_parts_can_be_borrowed() -> None:
    """Another name is an error that lists them."""
    for borrow in (("slots",), "key"):
        with pytest.raises(OptionError, match="fusion"):
            MemoryBank(3, borrow=borrow)


def test_modules_that_cannot_be_called_say_what_to_call() -> None:
    """A bank and a network are no layers, and name their methods."""
    with pytest.raises(OptionError, match=r"bank\.write"):
        MemoryBank(3)(torch.rand(1, 4, 5))
    with pytest.raises(OptionError, match="encode_query.*recall.*decode.*encode_memory"):
        SegmentationNetwork(NetworkConfig.of("lite"))(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "wrong",
    [torch.rand(2, 4, 5, 6).numpy(), torch.ones(2, 4, 5, 6, dtype=torch.int64), [1.0], None],
    ids=["array", "int64", "list", "None"],
)
def test_a_read_and_a_fusion_cell_take_tensors_of_floats(wrong: object) -> None:
    """An array, whole numbers or nothing are errors of ours that say what was expected."""
    model = used(Model())
    with pytest.raises(ShapeError, match="query_key"):
        model.read(wrong, model.bank)
    for pair in ((wrong, torch.rand(2, 4, 5, 6)), (torch.rand(2, 4, 5, 6), wrong)):
        with pytest.raises(ShapeError, match="FusionCell: (source|target)"):
            FusionCell(4)(*pair)


# Compiled.


@pytest.mark.parametrize(
    ("policy", "backend"), [*((name, "eager") for name in policy_names()), ("least_similar", "aot_eager")]
)
def test_a_compiled_write_and_read_do_what_eager_ones_do(policy: str, backend: str) -> None:
    """Each is one graph; after pinned, provisional and plain writes the contents are equal, numbers exactly."""
    torch._dynamo.reset()
    read = SpaceTimeRead(nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 1)).eval()
    eager, compiled = (MemoryBank(3, policy=policy, fusion=FusionCell(4), key=read.key).eval() for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    write = torch.compile(compiled.write, fullgraph=True, backend=backend)
    recall = torch.compile(lambda query: read(query, compiled), fullgraph=True, backend=backend)
    with torch.inference_mode():
        for frame in range(12):
            template, query = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 6)
            for store in (eager.write, write):
                store(template, frame=frame, pinned=frame == 0, provisional=frame % 4 == 2)
            torch.testing.assert_close(read(query, eager), recall(query))
    for name, expected in eager.contents().items():
        if name not in ("similarity", "compared"):  # eager banks compare only what a decision needs
            torch.testing.assert_close(expected, compiled.contents()[name], msg=name)
    torch.testing.assert_close(eager.similarity(), compiled.similarity())


def test_a_compiled_write_keeps_its_tensors_and_its_graph() -> None:
    """The first write is a graph, all others are another, whatever the frame; the buffers stay where they are."""
    torch._dynamo.reset()
    bank, graphs = MemoryBank(4), []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    write = torch.compile(bank.write, fullgraph=True, backend=counting)
    with torch.no_grad():
        write(torch.rand(2, 4, 5), frame=0)
        places = {name: t.data_ptr() for name, t in bank.contents().items()}
        for frame in range(1, 20):
            write(torch.rand(2, 4, 5), frame=frame)
    assert places == {name: t.data_ptr() for name, t in bank.contents().items()}
    assert len(graphs) <= 3


@pytest.mark.parametrize("rows", [[1], torch.tensor([1])], ids=["list", "tensor"])
def test_a_compiled_write_to_some_rows_leaves_the_others(rows: list[int] | Tensor) -> None:
    """As an eager write does."""
    torch._dynamo.reset()
    banks = [MemoryBank(3, policy="drop") for _ in range(2)]
    write = torch.compile(banks[1].write, fullgraph=True, backend="eager")
    with torch.no_grad():
        for frame in range(6):
            template = torch.rand(2 if frame == 0 else 1, 4, 5)
            for store in (banks[0].write, banks[1].write if frame == 0 else write):
                store(template, rows=None if frame == 0 else rows, frame=frame)
    assert equal(banks[0].contents(), banks[1].contents())


def test_a_model_with_a_bank_is_exported() -> None:
    """`torch.export` takes a model that writes and reads, its slots being buffers that the program changes."""
    model = used(Model().eval(), 1)
    twin, frames = copy.deepcopy(model), torch.rand(6, 2, 3, 4, 5)
    with torch.no_grad():
        program = torch.export.export(model, (frames[0],)).module()
        for frame in frames:
            torch.testing.assert_close(twin(frame), program(frame))
