"""Whether kernels compute on this machine what their definition computes, tried at their first use."""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from zero123s.ops.memory import is_out_of_memory

logger = logging.getLogger(__name__)

POINTS = 20_000
"""More than the programs of a large GPU take in one round, so that each goes through its loop several times."""


@torch.inference_mode(False)
@torch.enable_grad()
def results_agree(
    kernels: str,
    device: torch.device,
    found: Callable[[], Mapping[str, Tensor]],
    expected: Callable[[], Mapping[str, Tensor]],
    tolerance: float,
) -> bool:
    """Compare what kernels return with what their definition returns.

    Args:
        kernels: subject and verb of the warning: "The kernels that ... are".
        device: where they run.
        found: returns their results and gradients by name.
        expected: returns the same from plain torch, or from kernels that are compared with it elsewhere.
        tolerance: largest norm of a difference over the expected norm.

    Returns:
        True where they agree; otherwise, or where they cannot be compiled, False after one warning.

    Example:
        >>> import torch
        >>> from zero123s.ops.agreement import results_agree
        >>> one = lambda: {"the result": torch.ones(1)}
        >>> results_agree("The kernels of the example are", torch.device("cpu"), one, one, 1e-3)
        True
    """
    try:
        with torch.autocast(device.type, enabled=False):
            results, definition = found(), expected()
        errors = {name: float(((results[name] - y).norm() / y.norm()).detach()) for name, y in definition.items()}
    except Exception as error:  # what a compiler or driver raises
        if is_out_of_memory(error):
            raise
        problem = f"they do not run ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
    else:
        wrong = [name for name, error in errors.items() if not error <= tolerance]  # NaN is wrong, too
        if not wrong:
            return True
        problem = f"{wrong[0]} differs from what it is by definition by {errors[wrong[0]]:.1%} of its norm"
    logger.warning("%s not used on %s: %s; slower operations run instead.", kernels, device, problem)
    return False
