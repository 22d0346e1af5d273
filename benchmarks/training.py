"""Training throughput beside PyTorch: python benchmarks/training.py --help (the same as `pgm bench training`)."""

import sys

from pgm_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "training", *sys.argv[1:]]))
