"""Iterators: epochs without loss, exact resume, and the same batch from any number of processes."""

import json
from collections import Counter

import jax
import numpy as np
import pytest

from pgm_jax.data import batches, grain_batches, patches, process_rows
from pgm_jax.parallel import make_mesh, shard_batch


def arrays(count=10):
    x0 = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    return {"x0": x0, "cond": {"class": np.arange(count)}}


def slices():
    """Images whose values say where they come from: 1000 image + 30 row + column."""
    sizes = [(9, 12), (16, 5), (5, 5)]
    return [1000 * i + 30 * np.arange(h)[:, None] + np.arange(w) for i, (h, w) in enumerate(sizes)]


def grain_map(count=10, repeat=True):
    grain = pytest.importorskip("grain")
    dataset = grain.MapDataset.range(count).shuffle(seed=3).map(lambda i: {"x0": np.full((2,), i)})
    return dataset.repeat() if repeat else dataset


def grain_stream(**options):
    """The same without threads, which would read far ahead in every test."""
    dataset = grain_map(**options)
    return dataset.to_iter_dataset(
        pytest.importorskip("grain").ReadOptions(num_threads=0, prefetch_buffer_size=0)
    )


MAKERS = {
    "batches": lambda size, **process: batches(arrays(), size, seed=1, **process),
    "unshuffled": lambda size, **process: batches(arrays(), size, seed=1, shuffle=False, **process),
    "patches": lambda size, **process: patches(slices(), size, (4, 5), seed=1, **process),
    "grain map": lambda size, **process: grain_batches(grain_map(), size, **process),
    "grain stream": lambda size, **process: grain_batches(grain_stream(), size, **process),
}
every_kind = pytest.mark.parametrize("make", list(MAKERS.values()), ids=list(MAKERS))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@every_kind
@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_give_the_batch_of_one(make, count):
    whole = take(make(4), 6)
    parts = [take(make(4, process_index=p, process_count=count), 6) for p in range(count)]
    same(whole, jax.tree.map(lambda *rows: np.concatenate(rows), *parts))


@every_kind
def test_resume_is_exact_also_with_other_processes(make):
    first = make(4)
    take(first, 3)
    state = json.loads(json.dumps(first.get_state()))
    later = take(first, 4)
    resumed = make(4)
    take(resumed, 1)
    resumed.set_state(state)
    same(take(resumed, 4), later)
    half = make(4, process_index=1, process_count=2)
    half.set_state(state)
    same(take(half, 4), jax.tree.map(lambda rows: rows[2:], later))


def test_the_global_batch_is_the_one_that_parallel_assembles():
    batch = next(batches(arrays(), 8, seed=0))
    placed = shard_batch(make_mesh(data=4, devices=jax.devices()[:4]), batch)
    same(batch, jax.tree.map(np.asarray, placed))


@pytest.mark.parametrize("size", [3, 4, 10, 25])
def test_every_sample_comes_once_an_epoch_and_rows_stay_together(size):
    iterator, source = batches(arrays(), size, seed=2), arrays()
    stream = take(iterator, 60 // size + 1)
    labels = np.concatenate([batch["cond"]["class"] for batch in stream])
    for epoch in range(6):
        assert sorted(labels[10 * epoch : 10 * epoch + 10]) == list(range(10))
        expected = np.random.default_rng((2, epoch)).permutation(10)
        np.testing.assert_array_equal(labels[10 * epoch : 10 * epoch + 10], expected)
    np.testing.assert_array_equal(np.concatenate([batch["x0"] for batch in stream]), source["x0"][labels])


def test_order_is_kept_without_shuffling_and_changes_with_the_seed():
    labels = lambda **options: np.concatenate(
        [batch["cond"]["class"] for batch in take(batches(arrays(), 4, **options), 5)]
    )
    np.testing.assert_array_equal(labels(seed=0, shuffle=False), np.arange(20) % 10)
    assert not np.array_equal(labels(seed=0), labels(seed=1))


def test_state_counts_epochs_and_samples():
    iterator = batches(arrays(), 4, seed=0)
    states = [iterator.get_state() for _ in range(4) if next(iterator)]
    assert states == [{"epoch": e, "position": p} for e, p in [(0, 4), (0, 8), (1, 2), (1, 6)]]


def test_transform_and_memory_maps(tmp_path):
    np.save(tmp_path / "x.npy", arrays()["x0"])
    mapped = {"x0": np.load(tmp_path / "x.npy", mmap_mode="r")}
    double = lambda batch: {"x0": 2 * batch["x0"].astype(np.float64)}
    batch = next(batches(mapped, 4, seed=0, transform=double))
    plain = next(batches({"x0": arrays()["x0"]}, 4, seed=0))
    np.testing.assert_array_equal(batch["x0"], 2 * plain["x0"])
    assert batch["x0"].dtype == np.float64 and type(plain["x0"]) is np.ndarray


def test_patches_are_windows_of_the_images():
    images = slices()
    got = np.concatenate([batch["x0"] for batch in take(patches(images, 16, (4, 5), seed=7), 40)])[..., 0]
    origin = Counter()
    for patch in got:
        number, rest = divmod(int(patch[0, 0]), 1000)
        row, column = divmod(rest, 30)
        np.testing.assert_array_equal(patch, images[number][row : row + 4, column : column + 5])
        origin[number, row, column] += 1
    # 640 draws of 3 images with 48, 13 and 2 positions: all seen, images equally often (4 standard errors).
    assert len(origin) > 48 * 0.9 + 13 + 2
    shares = [sum(n for (i, *_), n in origin.items() if i == image) / 640 for image in range(3)]
    np.testing.assert_allclose(shares, 1 / 3, atol=4 * np.sqrt(2 / 9 / 640))


def test_a_patch_depends_on_seed_and_sample_number_only():
    stream = lambda size, seed=7: np.concatenate(
        [batch["x0"] for batch in take(patches(slices(), size, (4, 5), seed=seed), 24 // size)]
    )
    np.testing.assert_array_equal(stream(4), stream(12))
    assert not np.array_equal(stream(4), stream(4, seed=8))


def test_patches_follow_the_weights_and_take_volumes():
    got = next(patches(slices(), 600, (5, 5), seed=0, weights=[0, 1, 3]))["x0"]
    share = np.bincount(got[:, 0, 0, 0] // 1000, minlength=3) / 600
    np.testing.assert_allclose(share, [0, 0.25, 0.75], atol=4 * np.sqrt(3 / 16 / 600))
    volumes = [np.ones((4, 6, 5, 2), np.complex64), np.zeros((3, 3, 3, 2), np.complex64)]
    batch = next(patches(volumes, 2, (3, 3, 3), seed=0))["x0"]
    assert batch.shape == (2, 3, 3, 3, 2) and batch.dtype == np.complex64


def test_grain_streams_end_with_the_last_full_batch():
    for dataset in (grain_map(repeat=False), grain_stream(repeat=False)):
        labels = [batch["x0"][:, 0] for batch in grain_batches(dataset, 4)]
        assert [len(rows) for rows in labels] == [4, 4] and len(set(np.concatenate(labels))) == 8


def test_rows_of_a_process():
    assert process_rows(12, 2, 3) == slice(8, 12) and process_rows(5) == slice(0, 5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: batches(arrays(), 5, seed=0, process_index=0, process_count=2), "5 rows.*2 processes"),
        (lambda: batches(arrays(), 4, seed=0, process_index=2, process_count=2), "process 2 of 2"),
        (lambda: batches({}, 4, seed=0), "no samples"),
        (lambda: batches({"x0": np.ones((0, 3))}, 4, seed=0), "'x0': 0"),
        (lambda: batches({"x0": np.ones(3), "cond": {"a": np.ones(4)}}, 4, seed=0), "'cond/a': 4"),
        (lambda: batches({"x0": np.float32(1)}, 4, seed=0), "x0 is not an array"),
        (lambda: batches(arrays(), 4, seed=0).set_state({"epoch": 0, "position": 10}), "epoch of 10 samples"),
        (lambda: batches(arrays(), 4, seed=0).set_state({"next_index": 3}), "next_index"),
        (lambda: patches(slices(), 4, (6, 6), seed=0), r"\(6, 6\) out of an image of shape \(16, 5"),
        (lambda: patches([np.ones((4, 4)), np.ones((4, 4, 2))], 4, (2, 2), seed=0), "2 kinds"),
        (lambda: patches(slices(), 4, (2,) * 4, seed=0), "1 to 3 spatial axes"),
        (lambda: patches([], 4, (2, 2), seed=0), "0 kinds"),
        (lambda: patches(slices(), 4, (2, 2), seed=0, weights=[1, 2]), "3 images"),
        (lambda: grain_batches(grain_map(repeat=False), 12), "fewer than a batch"),
    ],
)
def test_bad_input_is_one_clear_line(make, match):
    with pytest.raises(ValueError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_grain_refuses_what_is_no_pipeline():
    pytest.importorskip("grain")
    with pytest.raises(TypeError, match="use batches"):
        grain_batches(arrays(), 4)
