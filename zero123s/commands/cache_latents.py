"""`zero123s cache-latents`: encode rendered views once, so that training steps skip the frozen encoders."""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.checkpoint.weights_file import sha256_of
from zero123s.errors import ConfigError
from zero123s.runtime.files import user_path
from zero123s.scenes.latents import cache_latents
from zero123s.scenes.renders import open_renders

EPILOG = """example:
  zero123s render data/toys --procedural 0:2000
  zero123s cache-latents data/toys data/toys-latents --checkpoint load/zero123/stable_zero123.ckpt
  python launch.py --config configs/train-zero123.yaml --train data.root=data/toys data.latents=data/toys-latents \\
    system.checkpoint=load/zero123/stable_zero123.ckpt

A killed run resumes with the next file. Latents of another autoencoder are computed again, never mixed."""


def main(argv: Sequence[str]) -> int:
    """Run `zero123s cache-latents`."""
    parser = argparse.ArgumentParser(
        prog="zero123s cache-latents",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "views", type=user_path, help="folder of `zero123s render`, or in the original Zero123's layout"
    )
    parser.add_argument("out", type=user_path, help="folder of latents; made if missing, continued if begun")
    parser.add_argument("--checkpoint", default="auto", help="whose autoencoder and image encoder (auto)")
    parser.add_argument(
        "--config", type=user_path, help="the checkpoint's YAML, if it has another size than the original"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(list(argv))
    if args.out.resolve() == args.views.resolve():
        raise ConfigError(f"{args.out}: latents need a folder of their own, next to the renders.")
    path = locate_checkpoint(args.checkpoint).path
    views = open_renders(args.views)
    model = load_zero123(path, args.config, dtype="fp32", device=args.device, decoder=False)

    def encode(rgb: Tensor) -> dict[str, Tensor]:
        rgb = rgb.to(args.device)
        return {"latents": model.encode_image(rgb), "embeddings": model.embed_image(rgb)}

    digest = model.info["sha256"] or sha256_of(path / "model_index.json")
    with tqdm(total=len(views), unit="object", desc="encode") as bar:
        cache_latents(views, args.out, encode, digest, bar.update)
    print(f"{len(views)} objects: {args.out}")
    return 0
