"""The progress bar: which losses it shows, and what it prints without a terminal."""

import sys

import torch

from zero123s.callbacks.progress import StageProgress, _Lines, format_losses

METRICS = {
    "loss/total": 3.0,
    "loss/novel/sds": 40.0,
    "loss/novel/opaque": 0.2,
    "loss/reference/opaque": 0.1,
    "loss/reference/rgb": torch.tensor(0.05),
    "loss_weighted/reference/rgb": 25.0,
    "psnr": 20.0,
}


def test_terms_of_one_pass_come_first_unprefixed():
    overrides = "total=3 sds=40 rgb=0.05 novel/opaque=0.2 reference/opaque=0.1"
    assert format_losses(METRICS) == overrides
    assert format_losses({}) == ""


def test_the_total_stays_when_terms_do_not_fit():
    assert format_losses(METRICS, width=24) == "total=3 sds=40 rgb=0.05"
    assert format_losses(METRICS, width=0) == "total=3"


def test_unwatched_output_is_made_of_lines(monkeypatch, capsys):
    lines = _Lines()
    for text in ("\r 10%|# |", "\r", "\n"):
        lines.write(text)
    lines.flush()
    assert capsys.readouterr().err == "10%|# |\n"
    assert not sys.stderr.isatty()


def test_stages_are_one_line_only_in_a_terminal(monkeypatch, capsys):
    def export():
        bar = StageProgress("export")
        bar("unwrap", 0.5)
        bar("unwrap (3 s of at most 60)", 0.6)
        bar("texture", 0.8)
        bar.close()
        return capsys.readouterr().err

    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert export() == "export: unwrap\nexport: texture\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = export()
    assert "export: unwrap (3 s of at most 60):  60%|" in shown
    assert shown.count("\n") == 1
