"""Quantised layers have the roles around them that plain ones have; what is not quantised is left alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hf_gammareg import GammaRegError, analyse, find_gammas, verify
from hf_gammareg.model.quantised import is_quantised, plain_layers
from hf_gammareg.watch.probe import ResidualProbe

WIDTH = 8


ASKED = {"__get__", "dim", "numel", "element_size", "is_floating_point", "is_complex"}
"""What may be asked of a weight: shape, type and device."""


class Unread(nn.Parameter):
    """A weight that nobody may compute with, convert or copy; it has attributes and no wish to be made fake."""

    def __new__(cls, data, **attributes):
        made = torch.Tensor._make_subclass(cls, data, False)
        vars(made).update(attributes)
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in {
            "__get__",
            "dim",
            "numel",
            "element_size",
            "is_floating_point",
            "is_complex",
        }:
            return super().__torch_function__(func, types, args, kwargs or {})
        raise AssertionError(f"a packed weight was read by {func}")

    def __deepcopy__(self, memo):
        raise AssertionError("a packed weight was copied")


class OfItsOwnClass(nn.Linear):
    """As bitsandbytes does it: the weight is packed and of a class of its own, with its scales beside it."""

    def __init__(self, features, outputs, bias=True):
        super().__init__(features, outputs, bias)
        packed = torch.zeros(features * outputs // 2, 1, dtype=torch.uint8)
        self.weight = Unread(packed, scales=torch.ones(outputs))

    def forward(self, x):
        raise AssertionError("a quantised layer was run")


class OfLogicalShape(nn.Linear):
    """As torchao does it: torch's own layer, whose weight says it is of floating point."""

    def __init__(self, features, outputs, bias=True):
        super().__init__(features, outputs, bias)
        self.weight = Unread(self.weight.detach())


class InBuffers(nn.Module):
    """As GPTQ and AWQ do it: integers, scales and zeros, and nothing of torch's layer."""

    dtype = torch.int32

    def __init__(self, features, outputs, bias=True):
        super().__init__()
        self.in_features, self.out_features = features, outputs
        each = 8 * torch.empty(0, dtype=self.dtype).element_size() // 4
        self.register_buffer("qweight", torch.zeros(features * outputs // each, dtype=self.dtype))
        self.register_buffer("scales", torch.ones(2, outputs))
        self.register_buffer("bias", torch.ones(outputs) if bias else None)

    def forward(self, x):
        raise AssertionError("a quantised layer was run")


class AsAttribute(InBuffers):
    """As some do it: a tensor that is no buffer."""

    def __init__(self, features, outputs, bias=True):
        super().__init__(features, outputs, bias)
        del self.qweight
        self.weight = torch.zeros(features * outputs, dtype=torch.int8)


class Float8(InBuffers):
    dtype = torch.float8_e4m3fn


class Packed(nn.Embedding):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight = Unread(torch.zeros(self.weight.numel() // 2, dtype=torch.uint8))

    def forward(self, ids):
        raise AssertionError("a quantised layer was run")


class Network(nn.Module):
    """Token to logits: a pre-norm block and a post-norm, which have the roles `last`, `absorbed` and `final`."""

    def __init__(self, linear=nn.Linear, embedding=nn.Embedding):
        super().__init__()
        self.tokens, self.norm = embedding(10, WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.inner, self.down = (
            linear(WIDTH, 2 * WIDTH),
            nn.LayerNorm(2 * WIDTH),
            linear(2 * WIDTH, WIDTH, False),
        )
        self.out, self.head = nn.LayerNorm(WIDTH), linear(WIDTH, 10)

    def forward(self, ids):
        x = self.tokens(ids)
        x = x + self.down(self.inner(self.up(self.norm(x))))
        return self.head(self.out(x))


IDS = torch.zeros(2, 3, dtype=torch.long)
LAYERS = [OfItsOwnClass, OfLogicalShape, InBuffers, AsAttribute, Float8]


def everything(model):
    """What a model's layers hold, and which objects these are."""
    own = ("_parameters", "_buffers", "_modules")
    return [
        (name, id(value))
        for module in model.modules()
        for name, value in [*vars(module).items(), *(item for kind in own for item in vars(module)[kind].items())]
    ]


@pytest.mark.parametrize("linear", LAYERS)
def test_the_roles_are_those_of_plain_layers(linear):
    model = Network(linear, Packed)
    before = everything(model)
    found, plain = analyse(model, IDS).gammas, analyse(Network(), IDS).gammas
    assert found.counts == {"absorbed": 1, "last": 1, "final": 1}
    assert found == plain
    assert everything(model) == before


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_of_the_type_of_the_network_and_take_no_memory(device, dtype):
    model = Network(InBuffers).to(device, dtype)
    with plain_layers(model):
        assert model.up.weight.shape == (2 * WIDTH, WIDTH)
        assert model.up.weight.device.type == device
        assert model.up.weight.untyped_storage().nbytes() <= 8
        assert "qweight" not in dict(model.up.named_buffers())
        # Whatever type the input has, the output has: what quantised layers do.
        assert model.up(torch.ones(1, WIDTH, device=device, dtype=torch.float16)).dtype is torch.float16
        assert model.down(torch.ones(1, 2 * WIDTH, device=device, dtype=dtype)).dtype is dtype
    assert found_roles(model) == found_roles(Network())


def found_roles(model):
    return {gamma.name: gamma.role for gamma in find_gammas(model, IDS)}


def test_what_is_trained_is_still():
    model = Network(OfItsOwnClass, Packed)
    model.norm.requires_grad_(False)
    assert [gamma.name for gamma in find_gammas(model, IDS) if gamma.trainable] == ["inner.weight", "out.weight"]
    assert not any(parameter.requires_grad for parameter in model.norm.parameters())


class Masked(nn.Linear):
    def __init__(self):
        super().__init__(WIDTH, WIDTH)
        self.register_buffer("mask", torch.ones(WIDTH, WIDTH, dtype=torch.int8))

    def forward(self, x):
        return functional.linear(x, self.weight * self.mask, self.bias)


class Bent(nn.Module):
    """Says the sizes that a linear layer has, and is none."""

    def __init__(self):
        super().__init__()
        self.in_features = self.out_features = WIDTH
        self.knots = nn.Parameter(torch.ones(WIDTH, 3))
        self.register_buffer("order", torch.arange(WIDTH))
        self.register_buffer("used", torch.ones(WIDTH, WIDTH, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.int32))

    def forward(self, x):
        return torch.tanh(x[..., self.order])


class Complex(nn.Linear):
    def __init__(self):
        super().__init__(WIDTH, WIDTH, dtype=torch.complex64)


class Adapter(nn.Module):
    """Says the sizes of the layer that it adapts."""

    def __init__(self):
        super().__init__()
        self.in_features, self.out_features, self.base = WIDTH, WIDTH, nn.Linear(WIDTH, WIDTH)


@pytest.mark.parametrize("layer", [Masked, Bent, Complex, Adapter, nn.LayerNorm, nn.LazyLinear])
def test_what_is_not_quantised_stays_what_it_is(layer):
    made = layer(WIDTH) if layer in (nn.LayerNorm, nn.LazyLinear) else layer()
    assert not is_quantised(made)
    before = everything(made)
    with plain_layers(made):
        assert everything(made) == before


def test_a_model_that_fails_leaves_its_layers_packed():
    model = Network(OfItsOwnClass)
    before = everything(model)
    with pytest.raises(ZeroDivisionError), plain_layers(model):
        raise ZeroDivisionError
    assert everything(model) == before


def test_what_was_traced_by_shapes_is_not_measured():
    model = Network(OfItsOwnClass)
    for measure in (lambda: verify(model, IDS), ResidualProbe(model, IDS).measure):
        with pytest.raises(GammaRegError, match="Expected a model of plain weights"):
            measure()


def test_bitsandbytes():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    for kind in (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.LinearNF4):
        options = {"has_fp16_weights": False} if kind is bitsandbytes.nn.Linear8bitLt else {}
        model = Network(lambda *given, kind=kind, options=options: kind(*given, **options))
        model.load_state_dict(Network().state_dict())
        model = model.to("cpu")  # which packs them
        assert model.up.weight.dtype in (torch.uint8, torch.int8)
        found = analyse(model, IDS)
        assert (found.gammas, found.gammas.source) == (analyse(Network(), IDS).gammas, "export (train mode)")


def test_torchao():
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    for kind in (quantization.Int8WeightOnlyConfig, quantization.Int8DynamicActivationInt8WeightConfig):
        model = Network()
        quantization.quantize_(model, kind())
        assert type(model.up.weight) is not nn.Parameter
        assert find_gammas(model, IDS) == find_gammas(Network(), IDS)


def test_hqq():
    quantize = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed")
    model = Network()
    for name in ("up", "down", "head"):
        config = quantize.BaseQuantizeConfig(nbits=4, group_size=8)
        packed = quantize.HQQLinear(getattr(model, name), config, compute_dtype=torch.float32, device="cpu")
        setattr(model, name, packed)
    assert model.up.W_q.dtype is torch.uint8
    assert find_gammas(model, IDS) == find_gammas(Network(), IDS)
