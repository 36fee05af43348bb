"""Batches of images on a Ray cluster: `zero123s batch`."""
