"""What happens beside training: checkpoints, signals, progress, images."""
