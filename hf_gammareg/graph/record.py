"""From a model to its program by one real run: for what `torch.export` can't trace.

Ops are recorded as they are called, on the values of the inputs. What the run decides by values (boxes, lengths,
experts) stands as it was decided, so the program is that of one path.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._export.verifier import TrainingIRVerifier
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, make_fx
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.chance import Chance
from hf_gammareg.graph.ops import OPS
from hf_gammareg.graph.rows import Effect, OpRow
from hf_gammareg.graph.writes import storage_of, taken_back, tensors_in, unique, written

FRESH = frozenset({"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"})
"""Ops that make tensors without values: whoever reads one first, something wrote to it."""


def record(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], chance: Chance) -> ExportedProgram:
    """Run a model once and write down its ops, in the mode that it is in.

    It runs on copies of the inputs, on its own parameters: none is copied. What it writes to that was there before
    (running statistics, `.data`, a tensor that it holds) is taken back.

    Args:
        model: any model; on `meta` it has shapes alone, and must not ask for values.
        args, kwargs: example inputs.
        chance: what torch draws, too, where it draws a number or a few: what decides whether a layer runs.

    Raises:
        GammaRegError: if values leave torch and may come back, as NumPy arrays or by a kernel that torch doesn't see.
        Exception: whatever the model raises.
    """
    args, kwargs = copied((args, dict(kwargs)))
    parameters = _named(model.named_parameters(remove_duplicate=False))
    buffers = _named(model.named_buffers(remove_duplicate=False))
    held = {**parameters, **buffers}
    inputs = [tensor for tensor in unique(tensors_in((args, kwargs))) if id(tensor) not in held]
    given = [*(tensor for _, tensor in held.values()), *inputs]
    fake, spec = FakeTensorMode(allow_fallback_kernels=True), None

    def run(*_: Tensor) -> list[Any]:
        nonlocal spec
        for tensor in inputs:
            if tensor.layout is not torch.strided:
                _describe(tensor, fake)
        with _Watched(chance, fake), _module_paths(model):
            leaves, spec = tree_flatten(_plain(model(*args, **kwargs)))
        return leaves

    with torch.compiler.set_stance("force_eager"), tracing(TracingContext(fake)), taken_back(model, inputs) as writes:
        module = make_fx(run, pre_dispatch=True, _error_on_data_dependent_ops=False)(*given)
    _check(module, writes.born)
    assert spec is not None
    return as_program(module, held, set(buffers), inputs, spec)


def copied(values: Any) -> Any:
    """Inputs that may be written over, as they are otherwise: strides, and what lies twice in one storage, too."""
    values = tree_map_only(Tensor, Tensor.detach, values)
    try:
        return copy.deepcopy(values)
    except Exception:
        return tree_map_only(Tensor, copy.deepcopy, values)


def _plain(value: Any) -> Any:
    """What a model returned as containers of tensors: of an object, its attributes."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in getattr(value, "__dict__", {}).items()} or None


def _named(tensors: Iterable[tuple[str, Tensor]]) -> dict[int, tuple[str, Tensor]]:
    """Tensors with their names, the first of each, by identity."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in tensors:
        found.setdefault(id(tensor), (name, tensor))
    return found


_DATA: Any = Tensor.data
_SET_DATA = _DATA.__set__  # made anew by each look: to be compared, not to be identical


class _Watched(TorchFunctionMode):
    """What would pass by the record: `.data`, arrays of NumPy, and random numbers that decide."""

    def __init__(self, chance: Chance, fake: FakeTensorMode) -> None:
        super().__init__()
        self.chance, self.fake = chance, fake
        self.moved: list[tuple[Tensor, Tensor]] = []

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for tensor, data in self.moved:
            tensor.data = data

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _SET_DATA:
            return self._set_data(*args)
        if func in LEAVES and args[0].is_floating_point() and args[0].numel() > 1 and _of_network(args[0]):
            raise GammaRegError(
                "Expected a forward whose activations stay torch's tensors, found one that reads them by "
                f"Tensor.{func.__name__}. Compute that with torch, or look at its roles by hand."
            )
        made = func(*args, **kwargs)
        if isinstance(made, Tensor) and made.layout is not torch.strided:
            _describe(made, self.fake)
        if func in DRAWS and isinstance(made, Tensor) and made.dim() <= 1 and made.is_floating_point():
            made.fill_(self.chance.value)
            self.chance.asked = True
        return made

    def _set_data(self, tensor: Tensor, data: Tensor) -> None:
        if tensor.shape == data.shape and tensor.dtype == data.dtype and tensor.device == data.device:
            tensor.detach().copy_(data)
            return
        with torch._C.DisableTorchFunction():
            self.moved.insert(0, (tensor, tensor.data))
            tensor.data = data


LEAVES = frozenset({Tensor.numpy, Tensor.__array__, Tensor.tolist})
"""How the values of a tensor leave torch."""

DRAWS = frozenset({torch.rand, torch.rand_like, torch.bernoulli, Tensor.uniform_, Tensor.bernoulli_, Tensor.bernoulli})
"""How torch draws what decides, by one number or a few: whether a layer is left out."""


def _describe(tensor: Tensor, fake: FakeTensorMode) -> None:
    """Writes down the shape and type of a sparse tensor, which the record leaves out."""
    if node := _node(tensor):
        node.meta["val"] = fake.from_tensor(tensor)


def _node(tensor: Tensor) -> fx.Node | None:
    mode = get_proxy_mode()
    found: Any = get_proxy_slot(tensor, mode.tracer, None) if mode else None
    return found.proxy.node if found else None


def _of_network(tensor: Tensor) -> bool:
    """Whether a tensor of the run was computed from inputs or parameters."""
    node = _node(tensor)
    stack = [node] if node else []
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node.op == "placeholder":
            return True
        stack += [read for read in node.all_input_nodes if read not in seen]
        seen.update(stack)
    return False


@contextmanager
def _module_paths(model: nn.Module) -> Iterator[None]:
    """Writes down of each op the module in whose forward it was called."""
    mode = get_proxy_mode()
    assert mode is not None
    graph = mode.tracer.graph
    names: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, name)
    stack: list[nn.Module] = [model]
    last = next(iter(reversed(graph.nodes)))

    def note() -> None:
        nonlocal last
        here = {str(id(module)): (names[module], type(module)) for module in stack}
        end = next(iter(reversed(graph.nodes)))
        for node in reversed(graph.nodes):
            if node is last:
                break
            node.meta["nn_module_stack"] = here
        last = end

    def enter(module: nn.Module, _: Any) -> None:
        if module in names:
            note()
            stack.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        if module in stack[1:]:
            note()
            while stack.pop() is not module:
                pass

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield
        note()
    finally:
        for handle in handles:
            handle.remove()


def _check(module: fx.GraphModule, born: Collection[Any]) -> None:
    """Refuse a record with a hole: something computed that comes back as a constant, or memory nobody filled."""
    for node in module.graph.nodes:
        path = list(node.meta.get("nn_module_stack", {"": ("",)}).values())[-1][0] or "the model's own forward"
        if node.op == "get_attr" and _is_hole(getattr(module, str(node.target)), born):
            raise GammaRegError(
                f"Expected a forward of torch's ops, found one that gets by others at what it computed, in {path}. "
                "Trace it on its own, or look at its roles by hand."
            )
        if _op(node) in FRESH and node.users and not _filled(node):
            raise GammaRegError(
                f"Expected kernels that torch knows, found one in {path} that writes to memory by itself. Register it "
                "(torch.library.custom_op) and give it a rule (hf_gammareg.add_op)."
            )


def _is_hole(constant: Any, born: Collection[Any]) -> bool:
    if not isinstance(constant, Tensor):
        return False
    key = storage_of(constant)
    return torch._C._functorch.is_functorch_wrapped_tensor(constant) or (key is not None and key in born)


def _op(node: fx.Node) -> str:
    return node.target.overloadpacket.__name__ if isinstance(node.target, torch._ops.OpOverload) else ""


def _filled(node: fx.Node) -> bool:
    """Whether an op wrote to this memory, or to a view of it, before one read it."""
    value = node.meta.get("val")
    if isinstance(value, Tensor) and not value.numel():
        return True
    for user in node.users:
        if not isinstance(user.target, torch._ops.OpOverload):
            continue
        given = dict(zip((argument.name for argument in user.target._schema.arguments), user.args, strict=False))
        if any((given | user.kwargs).get(name) is node for _, name in written(user.target)):
            return True
        returns = user.target._schema.returns
        if returns and returns[0].alias_info is not None:
            if any(written(reader.target) or not _filled(user) for reader in user.users if reader.op != "output"):
                return _filled(user)
            continue
        if not (isinstance(row := OPS.get(_op(user)), OpRow) and row.effect is Effect.NOTHING):
            return False
    return True


def as_program(
    module: fx.GraphModule,
    held: Mapping[int, tuple[str, Tensor]],
    buffers: Collection[int],
    inputs: list[Tensor],
    spec: TreeSpec,
) -> ExportedProgram:
    """What was recorded as `torch.export` would give it: constants are inputs, the model's parameters its state."""
    graph, specs, constants = module.graph, [], {}
    first = next(iter(graph.nodes))
    for node in graph.find_nodes(op="get_attr"):
        constants[node.name] = getattr(module, str(node.target))
        with graph.inserting_before(first):
            holder = graph.placeholder(node.name)
        holder.meta = node.meta
        node.replace_all_uses_with(holder)
        graph.erase_node(node)
        specs.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(holder.name), node.name))
    holders = graph.find_nodes(op="placeholder")[len(specs) :]
    for node, (key, (name, _)) in zip(holders, held.items(), strict=False):
        kind = InputKind.BUFFER if key in buffers else InputKind.PARAMETER
        specs.append(InputSpec(kind, TensorArgument(node.name), name, True if key in buffers else None))
    for node in holders[len(held) :]:
        specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None))
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.item.default):
        if not node.users:  # Python has asked: the answer is part of the path
            graph.erase_node(node)
    for node in [node for node in graph.nodes if node.op == "call_function"]:
        node.meta.setdefault("val", None)
        if node.target is torch._C._set_grad_enabled:
            graph.erase_node(node)
    output: Any = graph.output_node()
    returned = [
        OutputSpec(
            OutputKind.USER_OUTPUT, TensorArgument(v.name) if isinstance(v, fx.Node) else ConstantArgument("", v), None
        )
        for v in output.args[0]
    ]
    whole = ModuleCallSignature(
        inputs=[s.arg for s in specs if s.kind is InputKind.USER_INPUT],
        outputs=[s.arg for s in returned],
        in_spec=tree_flatten((tuple(inputs), {}))[1],
        out_spec=spec,
    )
    return ExportedProgram(
        root=module,
        graph=graph,
        graph_signature=ExportGraphSignature(specs, returned),
        state_dict=dict(held.values()),
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", whole)],
        example_inputs=(tuple(inputs), {}),
        constants=constants,
        verifiers=[TrainingIRVerifier],
    )
