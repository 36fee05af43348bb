"""How far threestudio's own YAML files go here: for each, whether it loads, builds and trains two steps, and why not.

    git clone https://github.com/threestudio-project/threestudio
    python benchmarks/threestudio_configs.py threestudio > table.md

Every file runs unchanged but for sizes, an image and small models of random weights, all given as overrides. Files of
`configs/debugging` are left out: they hold a guidance alone, for a notebook.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "helpers"))

from tiny_text_model import save_tiny_stable_diffusion  # noqa: E402
from tiny_threestudio import tiny_words  # noqa: E402

from zero123s.commands.launch import main as launch  # noqa: E402
from zero123s.errors import UserError  # noqa: E402
from zero123s.run.plan import plan_run  # noqa: E402

IMAGE = REPOSITORY / "load" / "images" / "hamburger_rgba.png"
NO_DEPTH = ["system.loss.lambda_depth=0", "system.loss.lambda_depth_rel=0"]


def first_stage(path: Path, folder: Path, text_model: Path) -> Path:
    """Train two steps of a coarse recipe and return its run folder."""
    arguments = tiny_words(yaml.safe_load(path.read_text()), text_model, [], IMAGE, None)
    assert (
        launch(
            ["--config", str(path), "--train", f"exp_root_dir={folder}", "tag=first", "use_timestamp=false", *arguments]
        )
        == 0
    )
    return next(folder.rglob("run.json")).parent


def try_file(path: Path, arguments: list[str], folder: Path) -> tuple[list[str], str]:
    """Return yes or no for loading, building and training, and the reason of the first no."""
    marks: list[str] = []
    try:
        _, plan = plan_run(path, arguments)
        marks.append("yes")
        plan.build()
        marks.append("yes")
    except UserError as error:
        return [*marks, *["no"] * (3 - len(marks))], str(error).split(" (set in ")[0]
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        code = launch(["--config", str(path), "--train", f"exp_root_dir={folder}", *arguments])
    if code == 0:
        return [*marks, "yes"], ""
    return [*marks, "no"], stderr.getvalue().strip().splitlines()[-1].removeprefix("error: ")


def main() -> None:
    """Print the table and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of threestudio, with configs/")
    parser.add_argument("--only", default="", help="files whose path holds this text")
    args = parser.parse_args()
    configs = args.checkout / "configs"
    files = sorted(p for p in configs.rglob("*.yaml") if p.parent.name != "debugging")
    counts, started = [0, 0, 0], time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(temporary)
        text_model = save_tiny_stable_diffusion(folder)
        stage = first_stage(configs / "dreamfusion-sd.yaml", folder / "first", text_model)
        latent = first_stage(configs / "latentnerf.yaml", folder / "latent", text_model)
        rows = []
        for number, path in enumerate(p for p in files if args.only in str(p)):
            content = yaml.safe_load(path.read_text())
            before = latent if "latentnerf" in path.stem else stage
            zero123 = ["system.guidance.pretrained_model_name_or_path=auto"]
            arguments = tiny_words(content, text_model, zero123, IMAGE, before)
            arguments += NO_DEPTH if path.stem == "imagecondition" else []
            marks, reason = try_file(path, arguments, folder / str(number))
            counts = [n + (mark == "yes") for n, mark in zip(counts, marks, strict=True)]
            rows.append(f"| {path.relative_to(configs)} | {' | '.join(marks)} | {reason.replace('|', '/')} |")
            print(rows[-1], file=sys.stderr)
    print("| file | loads | builds | trains two steps | why not |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(
        f"\nOf {len(rows)} files: {counts[0]} load, {counts[1]} build, {counts[2]} train; {time.perf_counter() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
