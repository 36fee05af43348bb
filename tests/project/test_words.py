"""Names and prose use the field's standard terms, tests have short names: former private words do not come back."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zero123s"
FILES = sorted(PACKAGE.rglob("*.py"))
PRIVATE_NAMES = {
    "told": "run_command",
    "say": "print_rank_zero",
    "wait_briefly_for_threads": "limit_openmp_spin",
    "Session": "Runner",
    "ShortMemoryModule": "OOMRetry",
    "Phi": "LoRAScore",
    "Watch": "HealthMonitor",
    "Watcher": "RunCallback",
    "hopeless": "fatal",
    "Seen": "StepDiagnostics",
    "vital_signs": "diagnostics",
    "delivers": "available_maps",
    "keep_inputs": "save_inputs",
    "Intake": "InputImage",
    "DoubtfulCutOut": "LowConfidenceMaskError",
    "pose_gates": "pose_sensitivity",
    "likeness": "embedding_similarity",
    "look": "render",
    "beside_the_silhouette": "outside_visual_hull",
    "membrane": "screened_poisson_fill",
    "_bury": "_replace_worker",
    "GATE_TIMESTEP": "SENSITIVITY_TIMESTEP",
    "Picture": "ImageLike",
    "picture": "image",
    "picture_of": "render_view",
    "reference_picture": "reference_thumbnail",
    "read_picture": "read_on_white",
    "depth_picture": "depth_image",
    "normal_picture": "normal_map_file",
    "draw_picture": "generate_image",
    "shown_in": "with_steps_saved_at",
    "sees_squares": "resizes_to_square",
    "ever": "is_ever_used",
    "judges_normals": "guidance_uses_normals",
    "settled": "refine_vertices",
    "widened": "float32_weight",
    "tell": "report",
    "remember_as_last": "record_last_started",
    "starts_anew": "starts_new_run",
    "loss_words": "format_losses",
    "model_words": "describe_model",
    "seen_from_outside": "visible_from_outside",
    "seen": "visible, observed, rendered, field_output",
    "seen_along": "view_dirs",
    "is_wanted": "is_required",
    "asked": "requested",
    "judge": "evaluate, score",
    "judged": "output",
    "_light": "_transmittance",
    "_earned": "_grad_of_weights",
    "words": "overrides, dotlist, arguments, text",
    "override_words": "to_dotlist",
    "run_words": "run_overrides",
    "limits_in_words": "describe_limits",
    "type_in_words": "describe_type",
    "sentence": "message, summary",
    "wanted": "expected, target",
    "wants": "reference_maps",
    "ours": "rendered, own",
    "theirs": "reference, expected",
    "mine": "own",
    "images_of": "reference_images",
    "rgba_of": "to_rgba",
    "elevation_of": "estimate_elevation",
    "straightened": "linearize_density",
    "is_wound": "has_consistent_winding",
    "is_doubtful": "is_uncertain",
    "whole_record": "finished_record",
    "left_out": "skipped",
    "network_asked": "network_tried",
    "draw_with": "text_to_image_model",
    "DrawnCandidates": "GeneratedCandidates",
    "LOOKS": "VIEW_MODES",
    "FOG_TERMS": "VOLUMETRIC_TERMS",
    "FEWEST_OF_MODEL": "MODEL_SIZE_DIVISOR",
    "TRUSTED": "MIN_CONFIDENCE",
    "_look_up": "_sample_targets",
    "_take_over_colors": "_copy_colors",
    "_take_over_nodes": "_copy_nodes",
}
PRIVATE_PROSE = {
    r"\btold\b": "given, reported, conditioned on",
    r"\b[Aa] pictures?\b(?![-_.=\[/])": "an image",
    r"\b(the|this|each|these|that|all|two|several|other|your|input) pictures?\b(?![-_.=\[/])": "image",
    r"(?<!there )(?<!There )(?<!where )\b(is|are) no (?!more\b|longer\b|such\b)\w": "is not a",
    r"\bopinion about\b": "a loss on",
    r"\bwhat it makes of\b": "its prediction for",
    r"\bwhat (?:\w+ )?says of\b": "the entry of",
    r"\b(?:an?|the) sentence (?:becomes|that describes|to a mesh)\b": "a prompt",
    r"\bnobody (?:looks|sees)\b|\bsomebody (?:looks|sees|has)\b": "is (not) visible; the user",
    r"\bhalf[- ](?:written )?(?:file|shard)s?\b": "partial file",
    r"\bwhole or not at all\b": "atomically",
    r"\b(?:[Mm]odel|[Nn]etworks?|[Zz]ero123|[Gg]uidance) (?:sees?|looks? at|judges?|has seen)\b": "input resolution, conditioned on",
    r"\bis asked\b": "runs, is used",
    r"\bfed by strangers\b|\bcome from strangers\b": "untrusted input",
    r"\b(?:that|when|where|what) nobody (?:watches|asked)\b|\bnobody watches\b": "not requested; not a terminal",
    r"\b(?:looked at|looked for)\b": "evaluated, examined, searched",
    r"\b[Jj]udges? (?:its|their|a|the|them)\b": "checks, scores",
    r"\b[Tt]ells? (?:the )?(?:elevation|depth|direction|sizes)\b": "determines",
    r"\b[Bb]eside\b": "next to, compared with, in parallel to",
    r"\bwants\b|\bwanted\b": "needs, expected",
    r"(?<!when )\basked\b|\basks\b": "requested, needs",
    r"\bknows\b": "has, supports, was trained on",
    r"\b(?:nobody|somebody|whoever)\b": "name the caller, the user or the process",
    r"\b[Ww]hat (?:\w+ ){0,2}(?:says|makes) of\b": "the entry of; its prediction",
}
RETIRED = PRIVATE_NAMES.keys() - {"words", "sentence", "ours", "theirs", "mine", "left_out"}
OUTSIDE = sorted(path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def defined_names(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def prose(text: str):
    """Yield comments and strings with their line numbers."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.start[0], token.string


def private_words(path: Path) -> list[str]:
    """Return the names and prose of a file of the package that have better words."""
    text = path.read_text(encoding="utf-8")
    names = [name for name in defined_names(ast.parse(text)) if name in PRIVATE_NAMES]
    found = [f"name '{name}' -> {PRIVATE_NAMES[name]}" for name in names]
    found += [
        f"line {line}: '{match[0]}' -> {better}"
        for line, words in prose(text)
        for pattern, better in PRIVATE_PROSE.items()
        if (match := re.search(pattern, words))
    ]
    return [f"{path.relative_to(ROOT)}: {sentence}" for sentence in found]


def test_names_and_prose_are_the_field_s():
    found = [sentence for path in FILES for sentence in private_words(path)]
    assert not found, "\n".join(found)


def test_tests_and_benchmarks_use_standard_names():
    found = [
        f"{path.relative_to(ROOT)}: '{name}' -> {PRIVATE_NAMES[name]}"
        for path in OUTSIDE
        for name in defined_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in RETIRED
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_use_the_field_s_words(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
    found = [f"'{match[0]}' -> {better}" for p, better in PRIVATE_PROSE.items() for match in re.finditer(p, text)]
    assert not found, f"{path.name}: {found}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_comments_of_configs_use_the_field_s_words(path):
    comments = " ".join(line.partition("#")[2] for line in path.read_text(encoding="utf-8").splitlines())
    found = [f"'{match[0]}' -> {better}" for p, better in PRIVATE_PROSE.items() for match in re.finditer(p, comments)]
    assert not found, f"{path.name}: {found}"


def test_private_words_are_found():
    assert "look" in set(defined_names(ast.parse("def look(): pass")))
    assert any(re.search(pattern, "what the model is told") for pattern in PRIVATE_PROSE)


MAX_WORDS = 8


def test_tests_are_named_in_at_most_eight_words():
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if node.name.removeprefix("test_").count("_") >= MAX_WORDS
    ]
    assert not long, f"name the behaviour that is checked in {MAX_WORDS} words: {long}"
