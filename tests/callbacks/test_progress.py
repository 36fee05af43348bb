"""The progress bar: which losses it shows, and what it does where nobody watches."""

import sys

import torch

from zero123s.callbacks.progress import _Lines, loss_words

METRICS = {
    "loss/total": 3.0,
    "loss/novel/sds": 40.0,
    "loss/novel/opaque": 0.2,
    "loss/reference/opaque": 0.1,
    "loss/reference/rgb": torch.tensor(0.05),
    "loss_weighted/reference/rgb": 25.0,
    "psnr": 20.0,
}


def test_terms_of_one_pass_come_first_and_without_its_name():
    words = "total=3 sds=40 rgb=0.05 novel/opaque=0.2 reference/opaque=0.1"
    assert loss_words(METRICS) == words
    assert loss_words({}) == ""


def test_what_does_not_fit_is_left_out_but_never_the_total():
    assert loss_words(METRICS, width=24) == "total=3 sds=40 rgb=0.05"
    assert loss_words(METRICS, width=0) == "total=3"


def test_unwatched_output_is_made_of_lines(monkeypatch, capsys):
    lines = _Lines()
    for text in ("\r 10%|# |", "\r", "\n"):
        lines.write(text)
    lines.flush()
    assert capsys.readouterr().err == "10%|# |\n"
    assert not sys.stderr.isatty()
