"""The table: what each ATen op does to the scale of an activation, and why.

Multiply an input of an op by c > 0. What becomes of the factor? Each op that a network's graph may hold has one row
here that answers it. An op without a row is answered by nobody: what depends on it is `unknown`, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto


class Effect(StrEnum):
    """The kinds of answer."""

    VIEW = auto()
    """The output holds the input's values, moved, copied, dropped or cast: c stays c."""
    POOL = auto()
    """Averages or maxima over a window: c stays c."""
    SCALE = auto()
    """Positively homogeneous: f(cx) = c f(x), or c to a fixed power."""
    CURVE = auto()
    """Grows with its input but bends: f(cx) is c f(x) only roughly."""
    MIX = auto()
    """A product that mixes positions or channels: linear, convolution, matmul, attention, Fourier transform."""
    PRODUCT = auto()
    """An elementwise product: powers of c add up."""
    QUOTIENT = auto()
    """An elementwise quotient: powers of c subtract; equal powers cancel, which is what a norm does."""
    POWER = auto()
    """x to a power read from the arguments."""
    SUM = auto()
    """A sum, or a choice between operands, at each position: c survives where every side carries it."""
    JOIN = auto()
    """Operands side by side: c survives in its own part."""
    NORM = auto()
    """A normalization: c is cancelled."""
    SQUASH = auto()
    """Saturates, or turns a factor into something else (a shift, a phase, a probability): c ends here."""
    NOTHING = auto()
    """Reads a shape, dtype or device, not a value: nothing is carried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One op's answer. Every tensor argument is read unless `gates` or `ignores` names it."""

    effect: Effect
    reason: str
    exact: bool = True
    """The answer holds to rounding."""
    power: float = 1.0
    """The power of c that comes out for c to the first."""
    gates: tuple[str, ...] = ()
    """Arguments that only steer (a softmax, a mask, an offset): c ends there."""
    ignores: tuple[str, ...] = ()
    """Arguments read for shape or dtype, or overwritten: nothing is carried."""


OPS: dict[str, Row] = {}
"""Rows by op: ATen's name without overload and without the underscore of in-place variants."""


def _rows(effect: Effect, ops: str, reason: str, **options: object) -> None:
    for op in ops.split():
        assert op not in OPS, op
        OPS[op] = Row(effect=effect, reason=reason, **options)  # type: ignore[arg-type]


_rows(
    Effect.VIEW,
    "view reshape _reshape_alias _unsafe_view expand permute transpose t numpy_T matrix_H mT mH adjoint movedim "
    "moveaxis swapaxes swapdims squeeze unsqueeze flatten unflatten ravel slice select narrow split "
    "split_with_sizes unsafe_split unsafe_split_with_sizes unsafe_chunk chunk tensor_split hsplit vsplit dsplit "
    "unbind getitem contiguous clone alias lift_fresh lift_fresh_copy lift detach detach_copy roll flip fliplr "
    "flipud rot90 repeat tile repeat_interleave unfold unfold_copy as_strided diagonal broadcast_to "
    "broadcast_tensors atleast_1d atleast_2d atleast_3d pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle im2col view_as_complex view_as_real real imag conj _conj resolve_conj resolve_neg "
    "narrow_copy slice_copy select_copy permute_copy view_copy expand_copy squeeze_copy unsqueeze_copy "
    "transpose_copy triu tril requires_grad positive diag diag_embed",
    "moves or copies values, changes none",
)
_rows(
    Effect.VIEW,
    "index index_select gather take take_along_dim masked_select",
    "picks values out",
    gates=("index", "indices", "mask"),
)
_rows(Effect.VIEW, "embedding", "picks rows of its weight", gates=("indices",))
_rows(Effect.VIEW, "to _to_copy type_as", "changes dtype or device", ignores=("other",))
_rows(Effect.VIEW, "reshape_as view_as expand_as", "takes its shape from the other", ignores=("other",))
_rows(
    Effect.VIEW,
    "dropout native_dropout feature_dropout",
    "keeps or zeroes values, rescaled by a constant",
)
_rows(
    Effect.VIEW,
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d _pad_circular masked_fill nan_to_num",
    "puts constants or copies beside the values",
    gates=("mask",),
)
_rows(Effect.VIEW, "sort topk kthvalue msort", "orders values; indices are integers and carry nothing")
_rows(
    Effect.VIEW,
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa affine_grid_generator",
    "resamples with fixed weights",
)
_rows(
    Effect.POOL,
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices "
    "max_pool1d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "fractional_max_pool2d max_unpool2d",
    "means and maxima over windows are homogeneous",
)
_rows(
    Effect.POOL,
    "torchvision::roi_align torchvision::roi_pool torchvision::ps_roi_align",
    "means over boxes",
    gates=("rois",),
)
_rows(Effect.VIEW, "grid_sampler grid_sampler_2d grid_sampler_3d", "interpolates at given points", gates=("grid",))
_rows(
    Effect.SCALE,
    "mean sum nansum nanmean amax amin aminmax max min median nanmedian cumsum col2im abs neg relu leaky_relu "
    "prelu _prelu_kernel rrelu rrelu_with_noise norm linalg_vector_norm linalg_norm linalg_matrix_norm "
    "frobenius_norm std std_mean trace diff cummax cummin complex",
    "positively homogeneous of degree one",
)
_rows(Effect.SCALE, "var var_mean square", "a square: homogeneous of degree two", power=2.0)
_rows(Effect.SCALE, "sqrt", "a root: homogeneous of degree one half", power=0.5)
_rows(Effect.SCALE, "rsqrt", "homogeneous of degree minus one half", power=-0.5)
_rows(Effect.SCALE, "reciprocal", "homogeneous of degree minus one", power=-1.0)
_rows(
    Effect.CURVE,
    "gelu silu elu selu celu mish softplus hardswish relu6 glu softshrink hardshrink threshold clamp clamp_min "
    "clamp_max clip alpha_dropout feature_alpha_dropout rnn_relu",
    "grows with its input, but bends or shifts",
    exact=False,
    gates=("min", "max"),
)
_rows(
    Effect.CURVE,
    "hardtanh",
    "ReLU6 is spelled so; from -1 to 1 it saturates on both sides, see `squashes`",
    exact=False,
)
_rows(
    Effect.MIX,
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution "
    "conv_tbc matmul mm bmm mv dot vdot inner outer ger kron tensordot einsum bilinear _grouped_mm "
    "transformers::grouped_mm_fallback linalg_multi_dot chain_matmul addmm addbmm baddbmm addmv addr _addmm_activation",
    "a sum of products: linear in each factor",
)
_rows(
    Effect.MIX,
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn fft_hfft fft_ihfft stft istft _fft_r2c _fft_c2r _fft_c2c",
    "a Fourier transform is linear",
)
_rows(Effect.VIEW, "fft_fftshift fft_ifftshift", "moves values")
_rows(
    Effect.MIX,
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention flex_attention",
    "softmax stops the scale of query and key; value carries it",
    exact=False,
    gates=("query", "key", "attn_mask", "attn_bias"),
)
_rows(
    Effect.MIX,
    "torchvision::deform_conv2d",
    "a convolution at offsets that only steer",
    gates=("offset", "mask"),
)
_rows(Effect.PRODUCT, "mul multiply", "powers of c add up")
_rows(Effect.QUOTIENT, "div divide true_divide", "powers of c subtract")
_rows(Effect.POWER, "pow float_power", "reads its exponent")
_rows(
    Effect.SUM,
    "add sub subtract rsub where maximum minimum fmax fmin lerp hypot cdist",
    "homogeneous where every side is",
    gates=("condition", "weight"),
)
_rows(Effect.SUM, "normal", "a mean plus a deviation times noise", ignores=("self",))
_rows(Effect.SUM, "addcmul addcdiv", "a term plus a product")
_rows(
    Effect.JOIN,
    "cat concat concatenate stack hstack vstack dstack column_stack row_stack index_put _unsafe_index_put "
    "index_add index_copy scatter scatter_add scatter_reduce masked_scatter slice_scatter select_scatter "
    "diagonal_scatter index_reduce index_fill mutate block_diag cartesian_prod",
    "operands side by side",
    gates=("index", "indices", "mask"),
)
_rows(Effect.VIEW, "copy", "overwrites its first argument with the second", ignores=("self",))
_rows(
    Effect.NORM,
    "batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional cudnn_batch_norm "
    "miopen_batch_norm _batch_norm_impl_index _batch_norm_with_update layer_norm native_layer_norm group_norm "
    "native_group_norm instance_norm rms_norm _fused_rms_norm",
    "divides by a statistic of its input",
)
_rows(
    Effect.SQUASH,
    "softmax _softmax _safe_softmax log_softmax _log_softmax sigmoid tanh hardsigmoid erf erfc "
    "special_expit log_sigmoid log_sigmoid_forward sign sgn sin cos tan asin acos atan atan2 arctan arctan2 sinc "
    "round floor ceil trunc frac fmod remainder floor_divide heaviside angle",
    "bounded, or blind to scale",
)
_rows(
    Effect.SQUASH,
    "exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 logsumexp logcumsumexp xlogy special_xlogy "
    "special_entr sinh cosh logit special_logit prod cumprod",
    "turns a factor into a shift or an exponent: the scale is not carried",
)
_rows(
    Effect.SQUASH,
    "bernoulli multinomial poisson searchsorted bucketize histc bincount argmax argmin argsort nonzero "
    "_unique _unique2 unique_dim unique_consecutive "
    "torchvision::nms",
    "an index, a sample or a comparison",
)
_rows(
    Effect.SQUASH,
    "lstm gru rnn_tanh lstm_cell gru_cell rnn_tanh_cell",
    "its gates and tanh saturate",
)
_rows(
    Effect.SQUASH,
    "cross_entropy_loss nll_loss nll_loss_nd nll_loss2d binary_cross_entropy binary_cross_entropy_with_logits "
    "mse_loss smooth_l1_loss huber_loss ctc_loss kl_div cosine_similarity cosine_embedding_loss",
    "a loss or similarity of its input, not its scale",
)
_rows(Effect.SUM, "l1_loss", "a distance between its operands")
_rows(
    Effect.NOTHING,
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_full "
    "new_empty new_empty_strided zero fill uniform exponential log_normal random geometric "
    "cauchy sym_size sym_numel sym_stride size numel dim _assert_tensor_metadata _assert_async _assert_scalar "
    "is_floating_point result_type zeros ones full empty eye arange linspace rand randn",
    "reads a shape or dtype, not a value",
)

NORM_KINDS = {
    "batch_norm": "batch_norm",
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm",
    "_native_batch_norm_legit_functional": "batch_norm",
    "_batch_norm_with_update": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "miopen_batch_norm": "batch_norm",
    "_batch_norm_impl_index": "batch_norm",
    "layer_norm": "layer_norm",
    "native_layer_norm": "layer_norm",
    "group_norm": "group_norm",
    "native_group_norm": "group_norm",
    "instance_norm": "instance_norm",
    "rms_norm": "rms_norm",
    "_fused_rms_norm": "rms_norm",
}
"""The kind of gamma that each norm op has."""


def _names(ops: str) -> frozenset[str]:
    return frozenset(ops.split())


CHANNELWISE = _names(
    "contiguous clone alias detach lift_fresh to _to_copy type_as positive slice narrow split split_with_sizes chunk "
    "getitem reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "_pad_circular upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d"
)
"""Ops of effect VIEW that leave every value in its channel, and a constant constant."""
RESHAPES = _names("view reshape _unsafe_view flatten unflatten squeeze unsqueeze view_as reshape_as")
"""The same where the first two dimensions come out as they were."""
FILLS = _names("dropout feature_dropout pad constant_pad_nd masked_fill")
"""Ops of effect VIEW that put constants, mostly 0, in the place of values or beside them."""
