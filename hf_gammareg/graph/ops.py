"""The table: what each ATen op does to the scale of an activation.

Multiply an input of an op by c > 0. What becomes of the factor? Each op that a network's graph may hold has one row
here that answers it, or a function (in `rules`) that gives the row for a call's arguments; one that is several ops in
one is written out (in `rewrite`). An op without a row is answered by nobody: what depends on it is `unknown`, never
guessed. A user's own ops are in `custom`.
"""

from __future__ import annotations

from typing import Any

from hf_gammareg.graph import rules
from hf_gammareg.graph.rows import Effect, Layout, OpRow, Rule
from hf_gammareg.graph.runs import almost_no_eps, far_above, replacing, seeded, unrounded

OPS: dict[str, Rule] = {}
"""Rows by op: ATen's name without overload and without the underscore of in-place variants, others with namespace."""


def _put(ops: str, rule: Rule) -> None:
    for op in ops.split():
        assert op not in OPS, op
        OPS[op] = rule


def _rows(effect: Effect, ops: str, **fields: Any) -> None:
    _put(ops, OpRow(effect=effect, **fields))


# Values are moved or copied, none is changed.
_rows(
    Effect.VIEW,
    "_reshape_alias expand permute transpose t numpy_T matrix_H mT mH adjoint movedim moveaxis swapaxes swapdims ravel "
    "select tensor_split hsplit vsplit dsplit unsafe_split unsafe_split_with_sizes unsafe_chunk unbind lift "
    "lift_fresh_copy detach_copy roll flip fliplr flipud rot90 repeat tile repeat_interleave unfold unfold_copy "
    "as_strided diagonal broadcast_to broadcast_tensors atleast_1d atleast_2d atleast_3d pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle im2col view_as_complex view_as_real real imag conj _conj resolve_conj "
    "resolve_neg narrow_copy slice_copy select_copy permute_copy view_copy expand_copy squeeze_copy unsqueeze_copy "
    "transpose_copy triu tril requires_grad diag diag_embed diagflat linalg_diagonal fft_fftshift fft_ifftshift "
    "_add_batch_dim _remove_batch_dim _lazy_clone conj_physical _conj_physical",
)
_rows(
    Effect.VIEW,
    "contiguous clone alias detach lift_fresh positive slice narrow split split_with_sizes chunk reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _pad_circular",
    layout=Layout.KEPT,
)
_put("getitem", rules.item)
_rows(Effect.VIEW, "view reshape _unsafe_view flatten unflatten squeeze unsqueeze", layout=Layout.RESHAPED)
# They take their shape or dtype from another tensor.
_rows(Effect.VIEW, "view_as reshape_as", layout=Layout.RESHAPED, ignores=("other",))
_rows(Effect.VIEW, "expand_as", ignores=("other",))
_rows(Effect.VIEW, "to _to_copy type_as", layout=Layout.KEPT, ignores=("other",))
_rows(Effect.VIEW, "copy", ignores=("self",))  # overwritten with `src`
# Values are picked out, or ordered; indices are integers and carry nothing.
_rows(
    Effect.VIEW,
    "index index_select gather take take_along_dim masked_select",
    gates=("index", "indices", "mask"),
    reason="an index or a mask only picks",
)
_rows(Effect.VIEW, "embedding", gates=("indices",), reason="indices only pick")
_rows(Effect.VIEW, "sort topk kthvalue msort mode")
_rows(
    Effect.VIEW,
    "_unsafe_index _unsafe_masked_index _pack_padded_sequence _pad_packed_sequence _jagged_to_padded_dense_forward "
    "_padded_dense_to_jagged_forward pad_sequence",
    gates=("indices", "mask", "lengths", "batch_sizes", "offsets"),
    reason="an index, a mask or a length only says where to look",
)
# Sparse tensors hold the same values; indices are integers.
_rows(
    Effect.VIEW,
    "to_dense _to_dense to_sparse _to_sparse to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc coalesce "
    "_coalesce values _values sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor "
    "sparse_compressed_tensor sparse_mask ",
    gates=(
        "mask",
        "indices",
        "crow_indices",
        "ccol_indices",
        "row_indices",
        "col_indices",
        "compressed_indices",
        "plain_indices",
    ),
    reason="an index or a mask only picks",
)
# Sums by group, in what was zeros: what adds to anything else is written out.
_rows(
    Effect.VIEW,
    "index_add scatter_add",
    gates=("index",),
    ignores=("self",),
    statistic="plain",
    reason="an index only says where to add",
)
# Values are kept or zeroed, rescaled by a constant.
_rows(Effect.VIEW, "dropout native_dropout feature_dropout", layout=Layout.FILLED, still=replacing(p=0.0, train=False))
_put("pad constant_pad_nd masked_fill", rules.filled)
_rows(Effect.VIEW, "nan_to_num")
# Resampled with fixed weights, or at points that only steer.
_rows(
    Effect.VIEW,
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d",
    layout=Layout.KEPT,
)
_rows(
    Effect.VIEW,
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa affine_grid_generator",
)
_rows(
    Effect.VIEW,
    "grid_sampler grid_sampler_2d grid_sampler_3d",
    gates=("grid",),
    reason="a grid only says where to look",
)
# Means and maxima over windows are homogeneous.
_rows(
    Effect.POOL,
    "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices "
    "max_pool1d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d",
)
_rows(
    Effect.POOL,
    "embedding_bag _embedding_bag _embedding_bag_forward_only segment_reduce",
    gates=("indices", "offsets", "lengths"),
    reason="indices and lengths only pick",
)
_rows(
    Effect.POOL,
    "torchvision::roi_align torchvision::roi_pool torchvision::ps_roi_align",
    gates=("rois",),
    reason="boxes only say where to look",
)
# Positively homogeneous, of degree one if nothing else is said.
_rows(
    Effect.SCALE,
    "nansum nanmean amin aminmax max min median nanmedian cumsum col2im abs neg relu leaky_relu prelu _prelu_kernel "
    "linalg_norm linalg_matrix_norm frobenius_norm nuclear_norm norm_except_dim trace diff cummax cummin "
    "complex absolute negative _neg_view quantile nanquantile deg2rad rad2deg pdist _pdist_forward linalg_svdvals "
    "linalg_eigvalsh linalg_eigvals sum_to_size _sparse_sum trapezoid trapz cumulative_trapezoid gradient",
)
_rows(Effect.SCALE, "rrelu rrelu_with_noise", still=replacing(training=False))
_rows(Effect.SCALE, "mean sum norm linalg_vector_norm amax", statistic="plain")
_rows(Effect.SCALE, "std std_mean", statistic="centred")
_rows(Effect.SCALE, "var var_mean", power=2.0, statistic="centred")
_rows(Effect.SCALE, "square cov", power=2.0)
_rows(Effect.SCALE, "sqrt linalg_cholesky linalg_cholesky_ex", power=0.5)
_rows(Effect.SCALE, "rsqrt", power=-0.5)
_rows(Effect.SCALE, "reciprocal inverse linalg_inv linalg_inv_ex linalg_pinv pinverse", power=-1.0)
_rows(Effect.SCALE, "copysign", gates=("other",), reason="only a sign is read of it")
_rows(Effect.SCALE, "ldexp", gates=("other",), reason="an exponent")
_rows(Effect.SCALE, "polar", gates=("angle",), reason="an angle")
_put("pow float_power", rules.power)
# These grow with their input, but bend or shift.
_rows(
    Effect.CURVE,
    "gelu silu elu selu celu mish softplus hardswish glu softshrink hardshrink threshold asinh arcsinh renorm",
    exact=False,
)
# Quantisation rounds, and cuts off; what it learns of the range only steers.
_rows(
    Effect.CURVE,
    "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_channel_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
    "_fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_channel_affine "
    "fused_moving_avg_obs_fake_quant _fused_moving_avg_obs_fq_helper",
    exact=False,
    gates=("scale", "zero_point", "running_min", "running_max"),
    reason="a scale of quantisation only says where to round",
    far=unrounded,
)
_rows(Effect.CURVE, "rnn_relu_cell", exact=False)
_rows(Effect.CURVE, "rnn_relu alpha_dropout feature_alpha_dropout", exact=False, still=replacing(train=False))
_rows(Effect.CURVE, "relu6", exact=False, far=far_above)
_put("hardtanh", rules.hard_tanh)
_put("clamp clip clamp_min", rules.clamp)
_rows(Effect.CURVE, "clamp_max", exact=False, gates=("max",), reason="a bound only cuts off")
# Sums of products: linear in each factor.
_rows(
    Effect.MIX,
    "linear conv_tbc matmul mm bmm mv dot vdot inner outer ger kron tensordot einsum bilinear _grouped_mm "
    "transformers::grouped_mm_fallback linalg_multi_dot chain_matmul linalg_matmul linalg_vecdot _trilinear _sparse_mm "
    "_sparse_sparse_matmul smm hspmm _sparse_mm_reduce_impl _scaled_mm _scaled_grouped_mm _weight_int8pack_mm "
    "_weight_int4pack_mm ",
)
_rows(
    Effect.MIX,
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution "
    "_convolution_mode",
    channels=1,
)
_rows(
    Effect.MIX,
    "torchvision::deform_conv2d",
    channels=1,
    gates=("offset", "mask"),
    reason="offsets and masks only steer",
)
# A Fourier transform is linear.
_rows(
    Effect.MIX,
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn fft_hfft fft_ihfft fft_hfft2 fft_ihfft2 fft_hfftn fft_ihfftn stft istft _fft_r2c _fft_c2r _fft_c2c",
)
# The value carries its scale through.
_rows(
    Effect.MIX,
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_fused_attention_overrideable _flash_attention_forward _efficient_attention_forward "
    "higher_order::flex_attention",
    exact=False,
    tokens=True,
    gates=(
        "query",
        "key",
        "bias",
        "attn_mask",
        "attn_bias",
        "block_mask",
        "score_mod_other_buffers",
        "mask_mod_other_buffers",
    ),
    reason="its softmax stops the scale of query and key",
    still=replacing(dropout_p=0.0),
)
_rows(Effect.PRODUCT, "mul multiply cross linalg_cross")
_put("div divide", rules.quotient)
_rows(Effect.QUOTIENT, "true_divide")
_rows(Effect.SUM, "add")
_rows(Effect.DIFFERENCE, "sub subtract rsub")
_rows(
    Effect.CHOICE, "maximum minimum fmax fmin hypot cdist _cdist_forward _euclidean_dist dist pairwise_distance l1_loss"
)
_rows(Effect.CHOICE, "where", gates=("condition",), reason="a condition only chooses")
_rows(Effect.CHOICE, "normal", ignores=("self",), still=seeded)  # a mean plus a deviation times noise
_rows(Effect.JOIN, "cat concat concatenate", layout=Layout.KEPT)
_rows(
    Effect.JOIN,
    "stack hstack vstack dstack column_stack row_stack index_put _unsafe_index_put "
    "index_copy scatter scatter_reduce masked_scatter slice_scatter select_scatter "
    "diagonal_scatter as_strided_scatter index_reduce index_fill put mutate block_diag cartesian_prod meshgrid _stack "
    "flatten_dense_tensors",
    gates=("index", "indices", "mask"),
    reason="an index or a mask only says where to write",
)
# Divided by a statistic of the input.
for kind, ops in {
    "layer_norm": "layer_norm native_layer_norm",
    "group_norm": "group_norm native_group_norm",
    "rms_norm": "rms_norm _fused_rms_norm",
}.items():
    _rows(Effect.NORM, ops, kind=kind, far=almost_no_eps)
_put(
    "batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional cudnn_batch_norm "
    "miopen_batch_norm _batch_norm_impl_index",
    rules.batch_norm,
)
_rows(Effect.NORM, "_batch_norm_with_update", kind="batch_norm", far=almost_no_eps)
_put("instance_norm", rules.instance_norm)
_rows(Effect.NORM, "_native_batch_norm_legit_no_training", kind="batch_norm", given=True)
for reason, ops in {
    "bounded": "softmax _softmax _safe_softmax special_softmax _masked_softmax _sparse_softmax sigmoid tanh "
    "hardsigmoid erf erfc special_erf special_erfc special_expit special_ndtr atan arctan special_i0e",
    "the logarithm of a probability": "log_softmax _log_softmax special_log_softmax _sparse_log_softmax "
    "log_sigmoid log_sigmoid_forward special_log_ndtr",
    "a factor becomes a phase or an angle": "sin cos tan asin acos arcsin arccos atan2 arctan2 sinc special_sinc angle",
    "a sign, whole numbers or a remainder": "sign sgn heaviside round special_round floor ceil trunc fix frac "
    "fmod remainder floor_divide frexp",
    "a factor becomes a shift or an exponent": "exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 logsumexp "
    "logcumsumexp special_logsumexp xlogy special_xlogy special_xlog1py special_entr sinh cosh acosh arccosh atanh "
    "arctanh special_exp2 special_expm1 special_log1p special_erfcx erfinv special_erfinv special_ndtri logit "
    "special_logit prod cumprod i0 special_i0 special_i1 special_i1e digamma special_digamma special_psi lgamma "
    "special_gammaln polygamma special_polygamma mvlgamma special_multigammaln igamma igammac special_gammainc "
    "special_gammaincc special_zeta "
    "matrix_exp linalg_matrix_exp vander linalg_vander",
    "an index or a count": "searchsorted bucketize histc bincount argmax argmin argsort nonzero _unique _unique2 "
    "unique_dim unique_consecutive torchvision::nms",
    "a determinant, or parts of different powers": "det linalg_det logdet slogdet linalg_slogdet svd linalg_svd "
    "_linalg_svd linalg_eig linalg_eigh _linalg_eigh linalg_qr linalg_lu",
    "a correlation": "corrcoef",
    "a number that decides a path": "item is_nonzero _local_scalar_dense",
    "its gates and tanh saturate": "rnn_tanh_cell",
    "a loss or a similarity": "cross_entropy_loss nll_loss nll_loss_nd nll_loss2d binary_cross_entropy "
    "binary_cross_entropy_with_logits mse_loss smooth_l1_loss huber_loss ctc_loss kl_div cosine_similarity "
    "cosine_embedding_loss nll_loss_forward nll_loss2d_forward _ctc_loss margin_ranking_loss triplet_margin_loss "
    "hinge_embedding_loss multi_margin_loss multilabel_margin_loss multilabel_margin_loss_forward soft_margin_loss "
    "poisson_nll_loss",
}.items():
    _rows(Effect.SQUASH, ops, reason=reason)
_rows(Effect.SQUASH, "lstm gru rnn_tanh", reason="its gates and tanh saturate", still=replacing(train=False))
_rows(Effect.SQUASH, "multinomial poisson binomial _standard_gamma _sample_dirichlet", reason="a sample", still=seeded)
_put("bernoulli", rules.draw)
_rows(
    Effect.NOTHING,
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided zero fill "
    "sym_size sym_numel sym_stride size numel dim _assert_tensor_metadata _assert_async _assert_scalar "
    "is_floating_point result_type zeros ones full empty eye arange linspace",
)
_rows(
    Effect.NOTHING,
    "rand randn rand_like randn_like randint_like uniform normal_functional exponential log_normal random geometric "
    "cauchy",
    still=seeded,
)
