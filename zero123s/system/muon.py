"""Muon: orthogonalised momentum for matrices and kernels, AdamW for all other parameters."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from zero123s.diffusion.speed import computes_natively

_lists: Any = torch
"""Its `_foreach_` functions, one launch for many tensors, are not in torch's stubs."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024): singular values come near 1 in a few rounds."""
RMS = 0.2
"""Size of one update's entries, about that of AdamW (Liu et al. 2025), so that its learning rates fit here too."""
SMALLEST_MATRIX = 8
"""Rows; heads of a few channels have no directions to balance."""


class MuonAdamW(Optimizer):
    """Steps of equal size in every direction of a weight matrix; AdamW for biases, norms, vectors and small heads.

    Convolution kernels count as matrices, output channels x all the rest: they are most of a denoiser's weights, and
    `torch.optim.Muon` refuses all but matrices.

    Args:
        params: parameters or groups.
        lr: learning rate of both, in AdamW's sense.
        momentum: of the matrices, Nesterov's.
        betas, eps: of AdamW's part.
        weight_decay: decoupled, for the matrices and for AdamW's part.
        rounds: of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-4,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        rounds: int = 4,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "rounds": rounds})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [parameter for parameter in group["params"] if parameter.grad is not None]
            if learned and learned[0].device.type == "cuda":
                self._joint_updates(learned, group)
                continue
            for parameter in learned:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._matrix_update if _is_matrix(parameter) else self._adam_update
                parameter.add_(update(parameter, group), alpha=-group["lr"])
        return loss

    def _joint_updates(self, learned: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of equal shape together: a GPU takes less time to compute than the host to launch.

        The small Zero123 has 186 matrices of 38 shapes.
        """
        _lists._foreach_mul_(learned, 1 - group["lr"] * group["weight_decay"])
        alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in learned:
            alike[tuple(parameter.shape) if _is_matrix(parameter) else ()].append(parameter)
        for shape, parameters in alike.items():
            updates = self._matrix_updates(parameters, group) if shape else self._adam_updates(parameters, group)
            _lists._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _matrix_updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return `_matrix_update` of parameters of one shape."""
        momenta, grads = [], [_grad(parameter) for parameter in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momenta.append(state["momentum"])
        _lists._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch.stack([ahead.flatten(1) for ahead in _lists._foreach_lerp(grads, momenta, group["momentum"])])
        native = computes_natively(torch.bfloat16, ahead.device)
        update = orthogonalized(ahead, group["rounds"], torch.bfloat16 if native else torch.float32)
        return list((RMS * max(update.shape[1:]) ** 0.5 * update).reshape(len(parameters), *parameters[0].shape))

    def _matrix_update(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, grad = self.state[parameter], _grad(parameter)
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["momentum"], group["momentum"]).flatten(1)
        # Where half precision is native it takes half the time, and the iteration forgives rounding (Jordan et al. 2024).
        native = computes_natively(torch.bfloat16, parameter.device)
        update = orthogonalized(ahead, group["rounds"], torch.bfloat16 if native else torch.float32)
        return (RMS * max(update.shape) ** 0.5 * update).reshape(parameter.shape)

    def _adam_update(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, grad = self.state[parameter], _grad(parameter)
        if not state:
            state |= {"step": torch.tensor(0.0), "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        (beta1, beta2), eps = group["betas"], group["eps"]
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - beta1)
        state["square"].lerp_(grad.square(), 1 - beta2)
        n = float(state["step"])
        return (state["mean"] / (1 - beta1**n)) / ((state["square"] / (1 - beta2**n)).sqrt() + eps)

    def _adam_updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return `_adam_update` of parameters of any shapes."""
        states, grads = [self.state[p] for p in parameters], [_grad(p) for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state |= {"step": torch.tensor(0.0), "mean": torch.zeros_like(parameter)}
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1  # on the CPU: no wait for the device
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        (beta1, beta2), n = group["betas"], [float(state["step"]) for state in states]
        _lists._foreach_lerp_(means, grads, 1 - beta1)
        _lists._foreach_lerp_(squares, _lists._foreach_mul(grads, grads), 1 - beta2)
        sizes = _lists._foreach_sqrt(_lists._foreach_div(squares, [1 - beta2**k for k in n]))
        _lists._foreach_add_(sizes, group["eps"])
        return list(_lists._foreach_div(_lists._foreach_div(means, [1 - beta1**k for k in n]), sizes))


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and len(parameter) >= SMALLEST_MATRIX


def orthogonalized(
    matrix: Float[Tensor, "*B M N"], rounds: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*B M N"]:
    """Approximate U V^T of the singular value decomposition U S V^T, with singular values between 0.7 and 1.2.

    Those below a thousandth of the largest need more than five rounds to get there, and zero stays zero.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    wide = wide.to(dtype)
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if x.shape == matrix.shape else x.mT).to(matrix)
