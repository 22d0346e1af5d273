"""Eight simulated CPU devices, strict rank promotion, a compilation cache, and a float64 fixture for every test."""

import gc
import os
import pathlib

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# Queued programs with collectives can starve each other on simulated devices and abort the process.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_numpy_rank_promotion", "raise")
# A second run of the suite compiles almost nothing.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
    cache.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

import pytest  # noqa: E402


@pytest.fixture
def x64():
    """Runs a test in float64, for closed forms and convergence orders."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


_MAPPINGS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Frees compiled programs before Linux' limit of 65,530 memory mappings, at which a process is killed."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()
