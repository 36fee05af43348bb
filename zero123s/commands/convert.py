"""`zero123s convert IN OUT`: between the original layout (`.ckpt`, `.safetensors`) and diffusers folders."""

import argparse
import sys
from collections.abc import Sequence

from zero123s.diffusion.checkpoint.diffusers_folder import PROJECTIONS, write_folder
from zero123s.diffusion.checkpoint.load_zero123 import DTYPES, load_zero123, save_zero123
from zero123s.errors import ConfigError, UserError
from zero123s.runtime.files import user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="zero123s convert", description=__doc__)
    parser.add_argument("source", metavar="IN", type=user_path)
    parser.add_argument("target", metavar="OUT", type=user_path)
    parser.add_argument("--to", choices=("original", "diffusers"), required=True)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--ema", action=argparse.BooleanOptionalAction, default=True, help="take the moving average")
    parser.add_argument(
        "--config", type=user_path, help="the checkpoint's YAML, if it has another size than the original"
    )
    parser.add_argument("--family", default="auto")
    parser.add_argument(
        "--projection",
        choices=tuple(PROJECTIONS),
        default="cc_projection",
        help="the projection's name in a folder: kxic's pipelines read cc_projection, Zero123Pipeline the other",
    )
    arguments = parser.parse_args(argv)
    try:
        _convert(arguments)
    except UserError as error:
        print(f"zero123s convert: {error}", file=sys.stderr)
        return 2
    print(arguments.target)
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    source, target = arguments.source, arguments.target
    if target.exists():
        raise ConfigError(f"{target} exists already: name another file or folder.")
    model = load_zero123(source, arguments.config, arguments.family, arguments.ema, arguments.dtype)
    try:
        if arguments.to == "original":
            save_zero123(model, target, DTYPES[arguments.dtype])
        else:
            write_folder(model, target, arguments.projection)
    except OSError as error:
        raise ConfigError(f"Cannot write {target}: {error}.") from error
