"""One of two processes of `test_cli_train_multiprocess`: takes the port, its number and a folder."""

import sys

import jax

from pgm_jax.cli import main as cli

WORDS = (
    "--size 16 16 --network drunet --batch 8 --warmup 2 --rate 1e-3 --framing patches --decay cosine --flip 1 "
    "--ema half_life_5 --process pfgmpp --D 64 --log-every 5 --steps 10 --sample-every 1000 "
    "--options widths=8,8 encoder=1,1 decoder=1, embedding=8 patch=1"
).split()


def main(port, process, folder):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    others = ["--distributed", f"127.0.0.1:{port},2,{process}"]
    assert (
        cli.main(["train", "--data", f"{folder}/atlas.npy", "--out", f"{folder}/two", *WORDS, *others]) == 0
    )
    print("passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
