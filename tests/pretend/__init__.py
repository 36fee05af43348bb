"""A pretended CUDA device for a torch that was built without CUDA.

It finds tensors and generators on the wrong device, and counts launches, bytes, copies and waits of the host, by line:

    python tests/pretend launch.py --config configs/stable-zero123.yaml --train --gpu 0 trainer.max_steps=3

Tensors on it are a wrapper subclass that reports `cuda:0` and holds its numbers on the CPU. Not emulated: speed, memory,
rounding of kernels, streams, NCCL. Needs g++. See `pretend.device` for the rules it checks.
"""
