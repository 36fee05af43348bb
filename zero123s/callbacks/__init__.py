"""Callbacks during training: checkpoints, signals, progress, previews."""
