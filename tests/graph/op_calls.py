"""How to call each op of the table whose factor c enters by `x`, and by `y` where both of its sides carry it."""

import torch
import torchvision

A = torch.ops.aten
assert torchvision.__version__  # its import registers its ops

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.double)


X, Y = draw(2, 4, 6, 6), draw(2, 4, 6, 6)
M, N, V = draw(4, 5), draw(5, 3), draw(5)
W2, W3 = draw(3, 4, 3, 3), draw(3, 4, 3, 3, 3)
INDEX = torch.tensor([0, 2, 1])
MASK = torch.ones(6, 6).tril().bool()
BOXES = torch.tensor([[0.0, 0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 1.0, 4.0, 5.0]], dtype=torch.double)
THREE_D = draw(1, 4, 4, 4, 4)
ONE_D = draw(2, 4, 9)
PER_CHANNEL = [torch.ones(4, dtype=torch.double), torch.zeros(4, dtype=torch.double)]
RUNNING = [torch.zeros(4, dtype=torch.double), torch.ones(4, dtype=torch.double)]
RNN = [draw(7, 4), draw(7, 7), draw(7), draw(7)]
GATED = {"lstm": 4, "gru": 3}
LENGTHS, OFFSET, PLACES = torch.tensor([6, 4, 2, 1]), torch.tensor([0, 1, 3]), torch.tensor([[0, 1, 2], [0, 1, 2]])
GRID = torch.tensor([0.1, 0.2, 0.05, 0.1], dtype=torch.double)


def cell(gates):
    return [draw(7 * gates, 4), draw(7 * gates, 7), draw(7 * gates), draw(7 * gates)]


def batched(x):
    return torch.vmap(lambda one: one)(x)


def sparse(x):
    return x[0, 0].to_sparse()


def positive(x):
    """Symmetric and positive definite, of the size of x."""
    return x.abs().mean() * (Y[0, 0] @ Y[0, 0].T + torch.eye(6))


def observed():
    """The arguments of an observer that is switched off: a range of 0 to 25.5, in steps of 0.1."""
    on, range_ = torch.tensor([0, 1]), [torch.tensor([-12.8]), torch.tensor([12.7]), torch.tensor([0.1])]
    return [on[:1], on[1:], *range_, torch.tensor([0], dtype=torch.int)]


CALLS = {
    # moved, copied, dropped, cast
    "view": lambda x: A.view(x, [8, 36]),
    "reshape": lambda x: A.reshape(x, [8, 36]),
    "_reshape_alias": lambda x: A._reshape_alias(x, [8, 36], [36, 1]),
    "_unsafe_view": lambda x: A._unsafe_view(x, [8, 36]),
    "view_copy": lambda x: A.view_copy(x, [8, 36]),
    "expand": lambda x: A.expand(x[:, :1], [2, 4, 6, 6]),
    "expand_copy": lambda x: A.expand_copy(x[:, :1], [2, 4, 6, 6]),
    "broadcast_to": lambda x: A.broadcast_to(x[:, :1], [2, 4, 6, 6]),
    "broadcast_tensors": lambda x: A.broadcast_tensors([x, x[:1]]),
    "permute": lambda x: A.permute(x, [3, 1, 0, 2]),
    "permute_copy": lambda x: A.permute_copy(x, [3, 1, 0, 2]),
    "transpose": lambda x: A.transpose(x, 1, 2),
    "transpose_copy": lambda x: A.transpose_copy(x, 1, 2),
    "t": lambda x: A.t(x[0, 0]),
    "numpy_T": lambda x: A.numpy_T(x[0, 0]),
    "matrix_H": lambda x: A.matrix_H(x[0, 0]),
    "movedim": lambda x: A.movedim(x, 0, 1),
    "moveaxis": lambda x: A.moveaxis(x, 0, 1),
    "swapaxes": lambda x: A.swapaxes(x, 0, 1),
    "swapdims": lambda x: A.swapdims(x, 0, 1),
    "unsqueeze": lambda x: A.unsqueeze(x, 0),
    "unsqueeze_copy": lambda x: A.unsqueeze_copy(x, 0),
    "unflatten": lambda x: A.unflatten(x, 1, [2, 2]),
    "select": lambda x: A.select(x, 1, 2),
    "select_copy": lambda x: A.select_copy(x, 1, 2),
    "narrow": lambda x: A.narrow(x, 1, 1, 2),
    "narrow_copy": lambda x: A.narrow_copy(x, 1, 1, 2),
    "split": lambda x: A.split(x, 2, 1),
    "split_with_sizes": lambda x: A.split_with_sizes(x, [1, 3], 1),
    "unsafe_split": lambda x: A.unsafe_split(x, 2, 1),
    "unsafe_split_with_sizes": lambda x: A.unsafe_split_with_sizes(x, [1, 3], 1),
    "chunk": lambda x: A.chunk(x, 2, 1),
    "unsafe_chunk": lambda x: A.unsafe_chunk(x, 2, 1),
    "tensor_split": lambda x: A.tensor_split(x, 2, 1),
    "hsplit": lambda x: A.hsplit(x, 2),
    "vsplit": lambda x: A.vsplit(x, 2),
    "dsplit": lambda x: A.dsplit(x, 2),
    "roll": lambda x: A.roll(x, [1], [2]),
    "flip": lambda x: A.flip(x, [2]),
    "repeat": lambda x: A.repeat(x, [1, 2, 1, 1]),
    "tile": lambda x: A.tile(x, [2]),
    "repeat_interleave": lambda x: A.repeat_interleave(x, 2, 1),
    "unfold": lambda x: A.unfold(x, 2, 3, 1),
    "unfold_copy": lambda x: A.unfold_copy(x, 2, 3, 1),
    "as_strided": lambda x: A.as_strided(x, [3, 3], [1, 2]),
    "pixel_shuffle": lambda x: A.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: A.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: A.channel_shuffle(x, 2),
    "native_channel_shuffle": lambda x: A.native_channel_shuffle(x, 2),
    "im2col": lambda x: A.im2col(x, [3, 3], [1, 1], [1, 1], [1, 1]),
    "view_as_complex": lambda x: A.view_as_complex(x.reshape(-1, 2)),
    "view_as_real": lambda x: A.view_as_real(torch.complex(x, x)),
    "real": lambda x: A.real(torch.complex(x, 2 * x)),
    "imag": lambda x: A.imag(torch.complex(x, 2 * x)),
    "conj": lambda x: A.conj(torch.complex(x, 2 * x)),
    "_conj": lambda x: A._conj(torch.complex(x, 2 * x)),
    "diag": lambda x: A.diag(x[0, 0]),
    "requires_grad": lambda x: A.requires_grad_(x.clone(), False),
    "index": lambda x: A.index(x, [None, INDEX]),
    "index_select": lambda x: A.index_select(x, 1, INDEX),
    "gather": lambda x: A.gather(x[0, 0], 1, INDEX[None]),
    "take": lambda x: A.take(x, INDEX),
    "take_along_dim": lambda x: A.take_along_dim(x[0, 0], INDEX[None], 1),
    "masked_select": lambda x: A.masked_select(x, MASK),
    "index_add": lambda x: A.index_add(torch.zeros_like(X), 1, INDEX, x[:, :3]),
    "scatter_add": lambda x: A.scatter_add(torch.zeros_like(M), 1, INDEX[None], x[0, 0]),
    "embedding": lambda x: A.embedding(x[0, 0], INDEX),
    "to": lambda x: A.to(x, torch.float64),
    "type_as": lambda x: A.type_as(x, Y),
    "reshape_as": lambda x: A.reshape_as(x, Y.flatten(1)),
    "view_as": lambda x: A.view_as(x, Y.flatten(1)),
    "expand_as": lambda x: A.expand_as(x[:, :1], Y),
    "copy": lambda x: A.copy(torch.zeros_like(Y), x),
    "dropout": lambda x: A.dropout(x, 0.3, True),
    "native_dropout": lambda x: A.native_dropout(x, 0.3, True)[0],
    "feature_dropout": lambda x: A.feature_dropout(x, 0.3, True),
    "reflection_pad1d": lambda x: A.reflection_pad1d(x[0], [1, 2]),
    "reflection_pad2d": lambda x: A.reflection_pad2d(x, [1, 2, 1, 1]),
    "reflection_pad3d": lambda x: A.reflection_pad3d(x, [1, 2, 1, 1, 1, 1]),
    "replication_pad1d": lambda x: A.replication_pad1d(x[0], [1, 2]),
    "replication_pad2d": lambda x: A.replication_pad2d(x, [1, 2, 1, 1]),
    "replication_pad3d": lambda x: A.replication_pad3d(x, [1, 2, 1, 1, 1, 1]),
    "_pad_circular": lambda x: A._pad_circular(x, [1, 2, 1, 1]),
    "topk": lambda x: A.topk(x, 3),
    "kthvalue": lambda x: A.kthvalue(x, 3),
    "upsample_nearest1d": lambda x: A.upsample_nearest1d(x[0], [9]),
    "upsample_nearest2d": lambda x: A.upsample_nearest2d(x, [9, 9]),
    "upsample_nearest3d": lambda x: A.upsample_nearest3d(x[None], [5, 9, 9]),
    "_upsample_nearest_exact1d": lambda x: A._upsample_nearest_exact1d(x[0], [9]),
    "_upsample_nearest_exact2d": lambda x: A._upsample_nearest_exact2d(x, [9, 9]),
    "upsample_linear1d": lambda x: A.upsample_linear1d(x[0], [9], False),
    "upsample_bilinear2d": lambda x: A.upsample_bilinear2d(x, [9, 9], False),
    "upsample_bicubic2d": lambda x: A.upsample_bicubic2d(x, [9, 9], False),
    "upsample_trilinear3d": lambda x: A.upsample_trilinear3d(x[None], [5, 9, 9], False),
    "_upsample_bilinear2d_aa": lambda x: A._upsample_bilinear2d_aa(x, [3, 3], False),
    "_upsample_bicubic2d_aa": lambda x: A._upsample_bicubic2d_aa(x, [3, 3], False),
    "affine_grid_generator": lambda x: A.affine_grid_generator(x[0, :2, :2, :3], [2, 1, 4, 4], False),
    "grid_sampler": lambda x: A.grid_sampler(x, Y[:, 0, :, :2][:, None].tanh(), 0, 0, False),
    "grid_sampler_2d": lambda x: A.grid_sampler_2d(x, Y[:, 0, :, :2][:, None].tanh(), 0, 0, False),
    "grid_sampler_3d": lambda x: A.grid_sampler_3d(x[:, None], Y[:, 0, :, :3][:, None, None].tanh(), 0, 0, False),
    "diagflat": lambda x: A.diagflat(x[0, 0, 0]),
    "_add_batch_dim": batched,
    "_remove_batch_dim": batched,
    "_unsafe_index": lambda x: A._unsafe_index(x, [None, INDEX]),
    "_unsafe_masked_index": lambda x: A._unsafe_masked_index(x[0, 0, 0], MASK[0, :3], [INDEX], 0.0),
    "_pack_padded_sequence": lambda x: A._pack_padded_sequence(x[0], LENGTHS, True)[0],
    "_pad_packed_sequence": lambda x: A._pad_packed_sequence(x[0, 0], torch.tensor([3, 2, 1]), True, 0.0, 3)[0],
    "_jagged_to_padded_dense_forward": lambda x: A._jagged_to_padded_dense_forward(x[0, 0], [OFFSET], [4]),
    "_padded_dense_to_jagged_forward": lambda x: A._padded_dense_to_jagged_forward(x[0, :2], [OFFSET]),
    "pad_sequence": lambda x: A.pad_sequence([x[0, 0], x[0, 0, :3]]),
    # sparse, and back
    "to_dense": lambda x: A.to_dense(sparse(x)),
    "_to_dense": lambda x: A._to_dense(sparse(x)),
    "to_sparse": lambda x: A.to_sparse(x).to_dense(),
    "_to_sparse": lambda x: A._to_sparse(x).to_dense(),
    "to_sparse_csr": lambda x: A.to_sparse_csr(x[0, 0]).to_dense(),
    "to_sparse_csc": lambda x: A.to_sparse_csc(x[0, 0]).to_dense(),
    "to_sparse_bsr": lambda x: A.to_sparse_bsr(x[0, 0], [2, 2]).to_dense(),
    "to_sparse_bsc": lambda x: A.to_sparse_bsc(x[0, 0], [2, 2]).to_dense(),
    "coalesce": lambda x: A.coalesce(sparse(x)).to_dense(),
    "_coalesce": lambda x: A._coalesce(
        torch.sparse_coo_tensor(PLACES, x[0, 0, 0, :3], check_invariants=False)
    ).to_dense(),
    "values": lambda x: A.values(sparse(x).coalesce()),
    "_values": lambda x: A._values(sparse(x)),
    "sparse_coo_tensor": lambda x: A.sparse_coo_tensor(PLACES, x[0, 0, 0, :3], [3, 3]).to_dense(),
    "sparse_csr_tensor": lambda x: A.sparse_csr_tensor(
        OFFSET, PLACES[1], x[0, 0, 0, :3], [2, 3], dtype=x.dtype
    ).to_dense(),
    "sparse_csc_tensor": lambda x: A.sparse_csc_tensor(
        OFFSET, PLACES[1], x[0, 0, 0, :3], [3, 2], dtype=x.dtype
    ).to_dense(),
    "sparse_compressed_tensor": lambda x: A.sparse_compressed_tensor(
        OFFSET, PLACES[1], x[0, 0, 0, :3], [2, 3], dtype=x.dtype, layout=torch.sparse_csr
    ).to_dense(),
    "sparse_mask": lambda x: A.sparse_mask(x[0, 0], MASK.double().to_sparse()).to_dense(),
    "_upsample_nearest_exact3d": lambda x: A._upsample_nearest_exact3d(x[None], [5, 9, 9]),
    # pooled
    "fractional_max_pool3d": lambda x: A.fractional_max_pool3d(x, [2, 2, 2], [2, 3, 3], Y[:1, :2, 0, :3].sigmoid()),
    "max_unpool3d": lambda x: A.max_unpool3d(*A.max_pool3d_with_indices(x, [2]), [4, 6, 6], [2, 2, 2], [0, 0, 0]),
    **{
        op: lambda x, op=op: getattr(A, op)(x[0, 0], INDEX, torch.tensor([0, 2]))[0]
        for op in ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
    },
    "segment_reduce": lambda x: A.segment_reduce(x[0, 0], "mean", lengths=torch.tensor([2, 4])),
    "avg_pool1d": lambda x: A.avg_pool1d(x[0], [2]),
    "avg_pool2d": lambda x: A.avg_pool2d(x, [2]),
    "avg_pool3d": lambda x: A.avg_pool3d(x, [2]),
    "max_pool1d": lambda x: A.max_pool1d(x[0], [2]),
    "max_pool2d": lambda x: A.max_pool2d(x, [2]),
    "max_pool3d": lambda x: A.max_pool3d(x, [2]),
    "max_pool2d_with_indices": lambda x: A.max_pool2d_with_indices(x, [2]),
    "max_pool1d_with_indices": lambda x: A.max_pool1d_with_indices(x[0], [2]),
    "max_pool3d_with_indices": lambda x: A.max_pool3d_with_indices(x, [2]),
    "adaptive_avg_pool1d": lambda x: A.adaptive_avg_pool1d(x[0], [2]),
    "adaptive_avg_pool2d": lambda x: A.adaptive_avg_pool2d(x, [2, 2]),
    "adaptive_avg_pool3d": lambda x: A.adaptive_avg_pool3d(x, [2, 2, 2]),
    "_adaptive_avg_pool2d": lambda x: A._adaptive_avg_pool2d(x, [2, 2]),
    "_adaptive_avg_pool3d": lambda x: A._adaptive_avg_pool3d(x, [2, 2, 2]),
    "adaptive_max_pool1d": lambda x: A.adaptive_max_pool1d(x[0], [2]),
    "adaptive_max_pool2d": lambda x: A.adaptive_max_pool2d(x, [2, 2]),
    "adaptive_max_pool3d": lambda x: A.adaptive_max_pool3d(x, [2, 2, 2]),
    "fractional_max_pool2d": lambda x: A.fractional_max_pool2d(x, [2, 2], [3, 3], Y[:, :, 0, :2].sigmoid()),
    "max_unpool2d": lambda x: A.max_unpool2d(*A.max_pool2d_with_indices(x, [2]), [6, 6]),
    "torchvision::roi_align": lambda x: torch.ops.torchvision.roi_align(x, BOXES, 1.0, 2, 2, 2, False),
    "torchvision::roi_pool": lambda x: torch.ops.torchvision.roi_pool(x, BOXES, 1.0, 2, 2)[0],
    "torchvision::ps_roi_align": lambda x: torch.ops.torchvision.ps_roi_align(x, BOXES, 1.0, 2, 2, 2)[0],
    # homogeneous
    "cumsum": lambda x: A.cumsum(x, 1),
    "cummax": lambda x: A.cummax(x, 1),
    "cummin": lambda x: A.cummin(x, 1),
    "col2im": lambda x: A.col2im(x.reshape(2, 36, 4), [4, 4], [3, 3], [1, 1], [0, 0], [1, 1]),
    "prelu": lambda x: A.prelu(x, Y[0, :, 0, 0]),
    "_prelu_kernel": lambda x: A._prelu_kernel(x, Y[:1, :, :1, :1]),
    "rrelu": lambda x: A.rrelu(x, 0.1, 0.3, True),
    "rrelu_with_noise": lambda x: A.rrelu_with_noise(x, torch.zeros_like(x), 0.1, 0.3, True),
    "frobenius_norm": lambda x: A.frobenius_norm(x, [2, 3]),
    "trace": lambda x: A.trace(x[0, 0]),
    "complex": lambda x, y: A.complex(x, y),
    "var_mean": lambda x: A.var_mean(x, [1])[0],  # the mean beside it is told apart in `scale`
    "sqrt": lambda x: A.sqrt(x.abs()),
    "rsqrt": lambda x: A.rsqrt(x.abs()),
    "norm_except_dim": lambda x: A.norm_except_dim(x, 2, 0),
    "quantile": lambda x: A.quantile(x, 0.3),
    "nanquantile": lambda x: A.nanquantile(x, 0.3),
    "pdist": lambda x: A.pdist(x[0, 0]),
    "_pdist_forward": lambda x: A._pdist_forward(x[0, 0]),
    "sum_to_size": lambda x: A.sum_to_size(x, [1, 4, 1, 6]),
    "_sparse_sum": lambda x: A._sparse_sum(sparse(x)),
    "cov": lambda x: A.cov(x[0, 0]),
    "linalg_cholesky": lambda x: A.linalg_cholesky(positive(x)),
    "linalg_cholesky_ex": lambda x: A.linalg_cholesky_ex(positive(x)),
    "linalg_eigvalsh": lambda x: A.linalg_eigvalsh(positive(x)),
    "copysign": lambda x: A.copysign(x, Y),
    "ldexp": lambda x: A.ldexp(x, Y),
    "polar": lambda x: A.polar(x, Y),
    # bent
    "renorm": lambda x: A.renorm(x, 2, 1, 5.0),
    **{
        op: lambda x, op=op: getattr(A, op)(x, 0.1, 0, -128, 127)
        for op in ("fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine_cachemask")
    },
    **{
        op: lambda x, op=op: getattr(A, op)(x, GRID.float(), INDEX[[0, 0, 0, 0]].int(), 1, -128, 127)
        for op in ("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask")
    },
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": (
        lambda x: A._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
            x, GRID[0].float(), INDEX[0].int(), torch.tensor([1]), -128, 127
        )
    ),
    "_fake_quantize_learnable_per_tensor_affine": lambda x: A._fake_quantize_learnable_per_tensor_affine(
        x, GRID[:1], 0 * GRID[:1], -128, 127
    ),
    "_fake_quantize_learnable_per_channel_affine": lambda x: A._fake_quantize_learnable_per_channel_affine(
        x.float(), GRID.float(), 0 * GRID.float(), 1, -128, 127
    ),
    **{
        op: lambda x, op=op: getattr(A, op)(x.float(), *observed(), 0.01, -128, 127, -1)
        for op in ("fused_moving_avg_obs_fake_quant", "_fused_moving_avg_obs_fq_helper")
    },
    "rnn_relu_cell": lambda x: A.rnn_relu_cell(x[0, 0, :, :4], torch.zeros(6, 7).double(), *RNN),
    "threshold": lambda x: A.threshold(x, 0.5, 0.0),
    "alpha_dropout": lambda x: A.alpha_dropout(x, 0.3, True),
    "feature_alpha_dropout": lambda x: A.feature_alpha_dropout(x, 0.3, True),
    "rnn_relu": lambda x: A.rnn_relu(
        x[0].permute(1, 2, 0), torch.zeros(1, 6, 7).double(), RNN, True, 1, 0.0, True, False, False
    ),
    "clamp_max": lambda x: A.clamp_max(x, 0.5),
    # products that mix
    "linear": lambda x: A.linear(x, draw_once(3, 6)),
    "conv1d": lambda x: A.conv1d(x[:, :, 0], draw_once(3, 4, 3)),
    "conv2d": lambda x: A.conv2d(x, W2),
    "conv3d": lambda x: A.conv3d(x[0, 0, 0, 0] * THREE_D, W3),
    "conv_transpose1d": lambda x: A.conv_transpose1d(x[:, :, 0], draw_once(4, 3, 3)),
    "conv_transpose2d": lambda x: A.conv_transpose2d(x, W2.transpose(0, 1)),
    "conv_transpose3d": lambda x: A.conv_transpose3d(x[0, 0, 0, 0] * THREE_D, W3.transpose(0, 1)),
    "convolution": lambda x: A.convolution(x, W2, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "_convolution": lambda x: A._convolution(
        x, W2, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, True
    ),
    "conv_tbc": lambda x: A.conv_tbc(x[0], draw_once(3, 6, 2), draw_once(2) * 0),
    "matmul": lambda x: A.matmul(x, Y),
    "mm": lambda x: A.mm(x[0, 0], Y[0, 0]),
    "bmm": lambda x: A.bmm(x[0], Y[0]),
    "mv": lambda x: A.mv(x[0, 0], Y[0, 0, 0]),
    "dot": lambda x: A.dot(x[0, 0, 0], Y[0, 0, 0]),
    "vdot": lambda x: A.vdot(x[0, 0, 0], Y[0, 0, 0]),
    "inner": lambda x: A.inner(x, Y),
    "outer": lambda x: A.outer(x[0, 0, 0], V),
    "ger": lambda x: A.ger(x[0, 0, 0], V),
    "kron": lambda x: A.kron(x[0, 0], M),
    "tensordot": lambda x: A.tensordot(x, Y, [3], [2]),
    "einsum": lambda x: A.einsum("bcij,bcjk->bcik", [x, Y]),
    "bilinear": lambda x: A.bilinear(x[0, 0], Y[0, 0], draw_once(3, 6, 6)),
    "linalg_multi_dot": lambda x: A.linalg_multi_dot([x[0, 0, :, :4], M, N]),
    "chain_matmul": lambda x: A.chain_matmul([x[0, 0, :, :4], M, N]),
    "linalg_matmul": lambda x: A.linalg_matmul(x, Y),
    "linalg_vecdot": lambda x: A.linalg_vecdot(x, Y),
    "_trilinear": lambda x: A._trilinear(x[0, 0], Y[0, 0], Y[0, 1], [], [], [], [1]),
    "_sparse_mm": lambda x: A._sparse_mm(Y[0, 0].to_sparse(), x[0, 0]),
    "_sparse_sparse_matmul": lambda x: A._sparse_sparse_matmul(Y[0, 0].to_sparse(), sparse(x)).to_dense(),
    "smm": lambda x: A.smm(Y[0, 0].to_sparse(), x[0, 0]).to_dense(),
    "hspmm": lambda x: A.hspmm(Y[0, 0].to_sparse(), x[0, 0]).to_dense(),
    "_sparse_mm_reduce_impl": lambda x: A._sparse_mm_reduce_impl(Y[0, 0].to_sparse_csr(), x[0, 0], "sum")[0],
    "_convolution_mode": lambda x: A._convolution_mode(x, W2, None, [1, 1], "same", [1, 1], 1),
    "_scaled_dot_product_attention_math": lambda x: A._scaled_dot_product_attention_math(Y, Y.flip(-1), x)[0],
    "stft": lambda x: A.stft(x[0, 0, 0], 4, 2, 4, None, False, True, True),
    "istft": lambda x: A.istft(torch.complex(x, 2 * x)[0, 0, :3], 4, 2, 4, torch.ones(4).double()),
    "fft_irfft": lambda x: A.fft_irfft(torch.complex(x, x), 6),
    "fft_irfft2": lambda x: A.fft_irfft2(torch.complex(x, x), [6, 6]),
    "fft_irfftn": lambda x: A.fft_irfftn(torch.complex(x, x)),
    "_fft_r2c": lambda x: A._fft_r2c(x, [3], 0, True),
    "_fft_c2r": lambda x: A._fft_c2r(torch.complex(x, x), [3], 0, 6),
    "_fft_c2c": lambda x: A._fft_c2c(torch.complex(x, x), [3], 0, True),
    "scaled_dot_product_attention": lambda x: A.scaled_dot_product_attention(Y, Y.flip(-1), x),
    "_scaled_dot_product_flash_attention_for_cpu": lambda x: A._scaled_dot_product_flash_attention_for_cpu(
        Y, Y.flip(-1), x
    )[0],
    "torchvision::deform_conv2d": lambda x: torch.ops.torchvision.deform_conv2d(
        x, W2, OFFSETS, MASKS, torch.zeros(3).double(), 1, 1, 1, 1, 1, 1, 1, 1, True
    ),
    # products
    "cross": lambda x, y: A.cross(x[:, :3], y[:, :3], 1),
    "linalg_cross": lambda x, y: A.linalg_cross(x[:, :3], y[:, :3], dim=1),
    # sums and choices
    "where": lambda x, y: A.where(MASK, x, y),
    "normal": lambda x, y: A.normal(x, y.abs()),
    "cdist": lambda x, y: A.cdist(x, y),
    "_cdist_forward": lambda x, y: A._cdist_forward(x, y, 2.0, None),
    "pairwise_distance": lambda x, y: A.pairwise_distance(x, y, 2.0, 0.0),
    # side by side
    "as_strided_scatter": lambda x, y: A.as_strided_scatter(x, y[0, 0], [6, 6], [6, 1]),
    "put": lambda x, y: A.put(x, INDEX, y[0, 0, 0, :3]),
    "meshgrid": lambda x, y: A.meshgrid([x[0, 0, 0], y[0, 0, 0]]),
    "index_put": lambda x, y: A.index_put(x, [INDEX[:1]], y[:1]),
    "_unsafe_index_put": lambda x, y: A._unsafe_index_put(x, [INDEX[:1]], y[:1]),
    "index_copy": lambda x, y: A.index_copy(x, 1, INDEX, y[:, :3]),
    "scatter": lambda x, y: A.scatter(x[0, 0], 1, INDEX[None], y[0, 0]),
    "scatter_reduce": lambda x, y: A.scatter_reduce(x[0, 0], 1, INDEX[None], y[0, 0], "sum"),
    "index_reduce": lambda x, y: A.index_reduce(x, 1, INDEX, y[:, :3], "amax"),
    "masked_scatter": lambda x, y: A.masked_scatter(x, MASK, y),
    "slice_scatter": lambda x, y: A.slice_scatter(x, y[:, :2], 1, 1, 3),
    "select_scatter": lambda x, y: A.select_scatter(x, y[:, 0], 1, 2),
    "diagonal_scatter": lambda x, y: A.diagonal_scatter(x[0, 0], y[0, 0, 0]),
    "index_fill": lambda x, y: A.index_fill(x, 1, INDEX, 0.0),
    "block_diag": lambda x, y: A.block_diag([x[0, 0], y[0, 0]]),
    "cartesian_prod": lambda x, y: A.cartesian_prod([x[0, 0, 0], y[0, 0, 0]]),
    # norms
    "_batch_norm_with_update": lambda x: A._batch_norm_with_update(x, *PER_CHANNEL, *RUNNING, 0.1, 1e-12)[0],
    "layer_norm": lambda x: A.layer_norm(x, [6], None, None, 1e-12),
    "native_layer_norm": lambda x: A.native_layer_norm(x, [6], None, None, 1e-12)[0],
    "group_norm": lambda x: A.group_norm(x, 2, *PER_CHANNEL, 1e-12),
    "native_group_norm": lambda x: A.native_group_norm(x, *PER_CHANNEL, 2, 4, 36, 2, 1e-12)[0],
    "_native_batch_norm_legit_no_training": lambda x: A._native_batch_norm_legit_no_training(
        x, *PER_CHANNEL, *RUNNING, 0.1, 1e-12
    )[0],
    "rms_norm": lambda x: A.rms_norm(x, [6], None, 1e-12),
    "_fused_rms_norm": lambda x: A._fused_rms_norm(x, [6], None, 1e-12)[0],
    # saturated
    "softmax": lambda x: A.softmax(x, 1),
    "_softmax": lambda x: A._softmax(x, 1, False),
    "_safe_softmax": lambda x: A._safe_softmax(x, 1),
    "log_softmax": lambda x: A.log_softmax(x, 1),
    "_log_softmax": lambda x: A._log_softmax(x, 1, False),
    "special_softmax": lambda x: A.special_softmax(x, 1),
    "special_log_softmax": lambda x: A.special_log_softmax(x, 1),
    "_masked_softmax": lambda x: A._masked_softmax(x, ~MASK.expand(2, 4, 6, 6), 3),
    "_sparse_softmax": lambda x: A._sparse_softmax(sparse(x), 1).to_dense(),
    "_sparse_log_softmax": lambda x: A._sparse_log_softmax(sparse(x), 1).to_dense(),
    "log_sigmoid_forward": lambda x: A.log_sigmoid_forward(x)[0],
    **{
        op: lambda x, op=op: getattr(A, op)(x, Y)
        for op in [
            "atan2",
            "arctan2",
            "fmod",
            "remainder",
            "floor_divide",
            "heaviside",
            "logaddexp",
            "logaddexp2",
            "mse_loss",
            "smooth_l1_loss",
            "huber_loss",
            "cosine_similarity",
            "kl_div",
        ]
    },
    **{op: lambda x, op=op: getattr(A, op)(Y, x.abs()) for op in ("xlogy", "special_xlogy", "special_xlog1py")},
    **{op: lambda x, op=op: getattr(A, op)(1, x.abs()) for op in ("polygamma", "special_polygamma")},
    **{op: lambda x, op=op: getattr(A, op)(x.abs() + 2, 2) for op in ("mvlgamma", "special_multigammaln")},
    **{
        op: lambda x, op=op: getattr(A, op)(x.abs() + 1, Y.abs() + 1)
        for op in ("igamma", "igammac", "special_gammainc", "special_gammaincc", "special_zeta")
    },
    **{op: lambda x, op=op: getattr(A, op)(x[0, 0, 0]) for op in ("vander", "linalg_vander")},
    "corrcoef": lambda x: A.corrcoef(x[0, 0] + torch.eye(6)),
    "item": lambda x: A.item(x[0, 0, 0, 0]),
    "is_nonzero": lambda x: A.is_nonzero(x[0, 0, 0, 0]),
    "_local_scalar_dense": lambda x: A._local_scalar_dense(x[0, 0, 0, 0]),
    **{op: lambda x, op=op: getattr(A, op)(positive(x)) for op in ("linalg_eigh", "_linalg_eigh")},
    "margin_ranking_loss": lambda x: A.margin_ranking_loss(x, Y, torch.ones(6)),
    "triplet_margin_loss": lambda x: A.triplet_margin_loss(x, Y, Y.flip(0)),
    "hinge_embedding_loss": lambda x: A.hinge_embedding_loss(x, Y.sign()),
    "soft_margin_loss": lambda x: A.soft_margin_loss(x, Y.sign()),
    "multi_margin_loss": lambda x: A.multi_margin_loss(x[0, 0], INDEX.repeat(2)),
    "multilabel_margin_loss": lambda x: A.multilabel_margin_loss(x[0, 0], INDEX.repeat(6, 2)),
    "multilabel_margin_loss_forward": lambda x: A.multilabel_margin_loss_forward(x[0, 0], INDEX.repeat(6, 2), 1)[0],
    "poisson_nll_loss": lambda x: A.poisson_nll_loss(x, Y.abs(), True, False, 1e-8, 1),
    "binomial": lambda x: A.binomial(torch.full_like(x, 9), x.sigmoid()),
    "_standard_gamma": lambda x: A._standard_gamma(x.abs()),
    "_sample_dirichlet": lambda x: A._sample_dirichlet(x.abs()),
    **{op: lambda x, op=op: getattr(A, op)(x.abs() / 20) for op in ("logit", "special_logit")},
    "acos": lambda x: A.acos(x / 10),
    "asin": lambda x: A.asin(x / 10),
    "logsumexp": lambda x: A.logsumexp(x, [1]),
    "special_logsumexp": lambda x: A.special_logsumexp(x, [1]),
    "logcumsumexp": lambda x: A.logcumsumexp(x, 1),
    "cumprod": lambda x: A.cumprod(x, 1),
    "multinomial": lambda x: A.multinomial(x[0, 0].abs(), 2),
    "poisson": lambda x: A.poisson(x.abs()),
    "searchsorted": lambda x: A.searchsorted(Y[0, 0, 0].sort().values, x),
    "bucketize": lambda x: A.bucketize(x, Y[0, 0, 0].sort().values),
    "bincount": lambda x: A.bincount((x.abs() * 3).long().flatten()),
    "unique_dim": lambda x: A.unique_dim(x, 1)[1:],
    "_unique": lambda x: A._unique(x)[1:],
    "_unique2": lambda x: A._unique2(x)[1:],
    "unique_consecutive": lambda x: A.unique_consecutive(x)[1:],
    "torchvision::nms": lambda x: torch.ops.torchvision.nms(BOXES[:, 1:], x[0, 0, 0, :2], 0.5),
    "lstm": lambda x: A.lstm(
        x[0].permute(1, 2, 0), [torch.zeros(1, 6, 7).double()] * 2, cell_once(4), True, 1, 0.0, True, False, False
    ),
    "gru": lambda x: A.gru(
        x[0].permute(1, 2, 0), torch.zeros(1, 6, 7).double(), cell_once(3), True, 1, 0.0, True, False, False
    ),
    "rnn_tanh": lambda x: A.rnn_tanh(
        x[0].permute(1, 2, 0), torch.zeros(1, 6, 7).double(), RNN, True, 1, 0.0, True, False, False
    ),
    "rnn_tanh_cell": lambda x: A.rnn_tanh_cell(x[0, 0, :, :4], torch.zeros(6, 7).double(), *RNN),
    "cross_entropy_loss": lambda x: A.cross_entropy_loss(x[0, 0], INDEX.repeat(2)),
    "binary_cross_entropy": lambda x: A.binary_cross_entropy(x.sigmoid(), Y.sigmoid()),
    "binary_cross_entropy_with_logits": lambda x: A.binary_cross_entropy_with_logits(x, Y.sigmoid()),
    "cosine_embedding_loss": lambda x: A.cosine_embedding_loss(x[0, 0], Y[0, 0], torch.ones(6)),
    # nothing carried
    "full_like": lambda x: A.full_like(x, 2.0),
    "randint_like": lambda x: A.randint_like(x, 9),
    "new_zeros": lambda x: A.new_zeros(x, [3]),
    "new_ones": lambda x: A.new_ones(x, [3]),
    "new_full": lambda x: A.new_full(x, [3], 2.0),
    "fill": lambda x: A.fill(x, 2.0),
    "geometric": lambda x: A.geometric(x, 0.3),
}
ONCE: dict = {}
OFFSETS, MASKS = draw(2, 18, 6, 6), draw(2, 9, 6, 6).sigmoid()


def draw_once(*shape):
    return ONCE.setdefault(shape, draw(*shape))


def cell_once(gates):
    return ONCE.setdefault(("cell", gates), cell(gates))


def bounds(x, y):
    return [
        {"self": x, "min": -0.5, "max": 0.5},
        {"self": x, "min": -0.5},
        {"self": x, "min": 0.5},
        {"self": x, "min": 0.0},
        {"self": x, "max": 0.5},
        {"self": x, "min": 0.0, "max": 6.0},
        {"self": x, "min": Y},
    ]


def powers(x, y):
    fixed = [{"self": x.abs(), "exponent": exponent} for exponent in (-1, -0.5, 0.5, 2, 3, 0)]
    return [*fixed, {"self": x.abs(), "exponent": Y}, {"self": 2.0, "exponent": x}]


def quotients(x, y):
    modes = ({}, {"rounding_mode": None}, {"rounding_mode": "trunc"}, {"rounding_mode": "floor"})
    return [{"self": x, "other": y, **mode} for mode in modes]


def fills(x, y):
    return [{"self": x, "mask": MASK, "value": value} for value in (0.0, 1.0, torch.tensor(0.0), torch.tensor(1.0))]


def pads(x, y):
    return [{"self": x, "pad": [1, 2], **value} for value in ({}, {"value": 0.0}, {"value": 1.0})]


def batch_norms(x, y, mode="training", **more):
    named = zip(("weight", "bias", "running_mean", "running_var"), PER_CHANNEL + RUNNING, strict=True)
    fixed = {"input": x, **dict(named), "momentum": 0.1, "eps": 1e-12, **more}
    return [{**fixed, mode: by_the_batch} for by_the_batch in (True, False)]


VARIANTS = {
    **dict.fromkeys(
        [
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_functional",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ],
        batch_norms,
    ),
    "batch_norm": lambda x, y: batch_norms(x, y, cudnn_enabled=False),
    "_batch_norm_impl_index": lambda x, y: batch_norms(x, y, cudnn_enabled=False),
    "instance_norm": lambda x, y: batch_norms(x, y, "use_input_stats", cudnn_enabled=False),
    "clamp": bounds,
    "clip": bounds,
    "clamp_min": lambda x, y: [{"self": x, "min": low} for low in (-0.5, 0.0, 0.5, Y)],
    "hardtanh": lambda x, y: [
        {"self": x},
        {"self": x, "min_val": -2.0, "max_val": 2.0},
        {"self": x, "min_val": 0.0, "max_val": 6.0},
    ],
    "pow": powers,
    "float_power": powers,
    "div": quotients,
    "divide": quotients,
    "pad": lambda x, y: [*pads(x, y), {"self": x, "pad": [1, 2, 1, 1], "mode": "reflect"}],
    "constant_pad_nd": pads,
    "masked_fill": fills,
    "bernoulli": lambda x, y: [{"self": x.sigmoid()}, {"self": x, "p": 0.3}],
}
"""Where the row is a function of the arguments: calls with several."""
