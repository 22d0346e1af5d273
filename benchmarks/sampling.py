"""Sampling throughput beside PyTorch: python benchmarks/sampling.py --help (the same as `pgm bench sampling`)."""

import sys

from pgm_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "sampling", *sys.argv[1:]]))
