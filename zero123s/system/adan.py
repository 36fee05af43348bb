"""Adan (Xie et al. 2022, algorithm 1): Adam with a momentum of gradient differences."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adan(Optimizer):
    """Adaptive Nesterov momentum.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: how much of gradients, of their differences and of their squares is kept.
        eps: added to the root of the squares.
        weight_decay: share of the weights that a step takes away, times lr.
        max_grad_norm: largest norm of all gradients together; 0 = no limit.
        no_prox: decay before the step in place of after it.
        foreach: accepted, without effect.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        foreach: bool = True,
    ) -> None:
        if not (lr >= 0 and eps >= 0 and max_grad_norm >= 0 and len(betas) == 3 and all(0 <= b < 1 for b in betas)):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}, max_grad_norm={max_grad_norm} are not settings of Adan"
            )
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "max_grad_norm": max_grad_norm, "no_prox": no_prox})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._clip_scale()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad * scale, group)
        return loss

    def _clip_scale(self) -> Tensor | float:
        """Return the factor that keeps the norm of all gradients within max_grad_norm."""
        limit = self.defaults["max_grad_norm"]
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not limit or not gradients:
            return 1.0
        norm = torch.stack([g.norm() for g in gradients]).norm()
        return (limit / (norm + self.param_groups[0]["eps"])).clamp(max=1.0)

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state |= {name: torch.zeros_like(p) for name in ("mean", "mean_difference", "mean_square")}
            state["last"] = grad.clone()
        state["step"] += 1
        b1, b2, b3 = group["betas"]
        difference = grad - state["last"]
        state["last"] = grad.clone()
        state["mean"].lerp_(grad, 1 - b1)
        state["mean_difference"].lerp_(difference, 1 - b2)
        state["mean_square"].lerp_((grad + b2 * difference).square(), 1 - b3)
        c1, c2, c3 = (1 - b ** state["step"] for b in (b1, b2, b3))
        size = (state["mean_square"] / c3).sqrt() + group["eps"]
        update = (state["mean"] / c1 + b2 * state["mean_difference"] / c2) / size
        lr, decay = group["lr"], group["lr"] * group["weight_decay"]
        if group["no_prox"]:
            p.mul_(1 - decay).sub_(lr * update)
        else:
            p.sub_(lr * update).div_(1 + decay)
