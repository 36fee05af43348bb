"""Generators that depend on (seed, step, purpose) alone, so that a resumed run draws what an uninterrupted one would."""

import hashlib

import torch


def generator_for(seed: int, step: int, purpose: str, rank: int = 0, micro_step: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose ("cameras", "render", "guidance"...) of one step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}/{rank}/{micro_step}".encode(), digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator


def generator_on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator of `device`, seeded by the next number of a CPU generator; on a CPU that generator itself.

    A million numbers drawn on the CPU cost a GPU more time than a million samples; one seed costs it nothing.
    """
    if generator is None or generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def world_size() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
