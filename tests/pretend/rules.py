"""What torch's documentation and source say of ATen operations on CUDA, as tables by name."""

import torch

READS_NUMBERS = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::_unique2",
        "aten::allclose",
        "aten::bincount",
        "aten::equal",
        "aten::histc",
        "aten::is_nonzero",
        "aten::item",
        "aten::linalg_eigh",
        "aten::_linalg_eigh",
        "aten::masked_select",
        "aten::nonzero",
        "aten::unique_consecutive",
        "aten::unique_dim",
    }
)
"""The host waits: for a number, or for a result's size."""
NO_LAUNCH = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::_unsafe_view",
        "aten::empty.memory_format",
        "aten::empty_like",
        "aten::empty_strided",
        "aten::new_empty",
        "aten::new_empty_strided",
        "aten::resize_",
        "aten::set_.source_Storage",
        "aten::set_.source_Tensor",
    }
)
"""Allocations, views under another name, and the copy of one number."""
CPU_INDEX_ALLOWED = frozenset(
    {
        "aten::_index_put_impl_",
        "aten::_unsafe_index.Tensor",
        "aten::_unsafe_index_put",
        "aten::index.Tensor",
        "aten::index_put",
        "aten::index_put_",
    }
)
"""A CUDA tensor may be indexed by CPU indices, which are copied to it first."""
CPU_SCALAR_ALLOWED = frozenset(
    {
        "aten::_amp_update_scale_",
        "aten::_foreach_add_.Tensor",
        "aten::_foreach_mul_.Tensor",
        "aten::_fused_adam_",
        "aten::_fused_adamw_",
        "aten::clamp.Tensor",
        "aten::fill_.Tensor",
        "aten::lerp.Tensor",
        "aten::masked_fill.Tensor",
        "aten::masked_fill_.Tensor",
    }
)
"""A CPU scalar tensor may be combined with CUDA tensors; in every pointwise operation as well."""
COPIES = frozenset({"aten::_foreach_copy_", "aten::_to_copy", "aten::copy_", "aten::to.dtype_layout"})
"""From any device to any."""
NOT_DETERMINISTIC = frozenset(
    {
        "aten::_adaptive_avg_pool2d_backward",
        "aten::avg_pool3d_backward",
        "aten::grid_sampler_2d_backward",
        "aten::grid_sampler_3d_backward",
        "aten::histc",
        "aten::kthvalue",
        "aten::max_pool3d_with_indices_backward",
        "aten::reflection_pad1d_backward",
        "aten::reflection_pad2d_backward",
        "aten::replication_pad2d_backward",
        "aten::upsample_bicubic2d_backward",
        "aten::upsample_linear1d_backward",
        "aten::upsample_trilinear3d_backward",
    }
)
"""Raise under torch.use_deterministic_algorithms, says that function's documentation; and cumsum of floats."""
SUMS_IN_FLOAT32 = frozenset(
    {
        "aten::_softmax",
        "aten::_softmax_backward_data",
        "aten::addmm",
        "aten::baddbmm",
        "aten::bmm",
        "aten::convolution",
        "aten::convolution_backward",
        "aten::mm",
        "aten::native_group_norm",
        "aten::native_group_norm_backward",
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
    }
)
"""Half precision on a GPU: float32 inside, rounded at the end."""
HALVES = (torch.float16, torch.bfloat16)
RANDOM = ("aten::rand", "aten::normal", "aten::bernoulli", "aten::multinomial", "aten::uniform")
"""Beginnings of names."""
