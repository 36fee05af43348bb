"""Generators that depend on (seed, step, purpose) alone, so that a resumed run draws what an uninterrupted one would."""

import hashlib

import torch


def generator_for(seed: int, step: int, purpose: str, rank: int = 0, micro_step: int = 0) -> torch.Generator:
    """Return a generator that depends on the arguments alone.

    Args:
        seed: of the run.
        step: global optimiser step.
        purpose: what is drawn: "cameras", "render", "guidance", ...
        rank: number of the process among those that train together.
        micro_step: number of the batch within an optimiser step that accumulates several.

    Returns:
        A CPU generator; equal arguments give equal draws.

    Example:
        >>> import torch
        >>> from zero123s.randomness import generator_for
        >>> a, b = (torch.rand(3, generator=generator_for(0, 5, "cameras")) for _ in range(2))
        >>> torch.equal(a, b)
        True
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}/{rank}/{micro_step}".encode(), digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator


def generator_on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator of `device`, seeded by the next number of a CPU generator; on a CPU that generator itself.

    Large draws on the CPU and their transfer would take a GPU longer than evaluating the samples.

    Args:
        device: where the numbers are needed.
        generator: of the CPU, or of that device; None gives None.

    Returns:
        A generator of `device`, or None.
    """
    if generator is None or generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def world_size() -> int:
    """Return how many processes train together.

    Returns:
        1 without torch.distributed.
    """
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
