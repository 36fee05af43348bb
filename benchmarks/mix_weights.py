"""Mix two checkpoints of one structure: further training gains on new data, and loses less on what was known before.

    python benchmarks/mix_weights.py BEFORE AFTER SHARE OUT       (SHARE 0 = BEFORE, 1 = AFTER)

Every weight of OUT is (1 - SHARE) BEFORE + SHARE AFTER: Wortsman et al., Robust fine-tuning of zero-shot models, 2022.
The types of the numbers and the metadata, licence included, are those of BEFORE.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def mixed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Interpolate floating-point tensors by name; others are taken from `before`.

    Raises:
        SystemExit: the two do not hold the same names and shapes.
    """
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise SystemExit("the two files do not hold the same tensors; mix only a model with one trained from it.")
    mix = {key: torch.lerp(value.float(), after[key].float(), share) for key, value in before.items()}
    return {key: mix[key].to(value.dtype) if value.is_floating_point() else value for key, value in before.items()}


def main() -> None:
    """Read both files and write the mixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float, help="of AFTER, 0 to 1")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with safe_open(args.before, "pt") as file:
        metadata = file.metadata()
    save_file(mixed(load_file(args.before), load_file(args.after), args.share), args.out, metadata)


if __name__ == "__main__":
    main()
