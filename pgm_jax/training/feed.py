"""Batches on their way to the devices."""

import jax

from pgm_jax import parallel


class Feed:
    """Batches on the mesh, checked so that every one fits the compiled step.

    Attributes:
        rows: rows of a whole batch, known after the first is drawn.
    """

    def __init__(self, batches, mesh, accumulate):
        self.iterator = iter(batches)
        self.mesh, self.accumulate, self.first = mesh, accumulate, None

    def draw(self, number: int):
        """Draws the batch of a step.

        Args:
            number: number of the step, for messages.

        Returns:
            Dict of global arrays, see `parallel.shard_batch`.

        Raises:
            ValueError: if the batches end, or one has other shapes than the first or does not divide.
        """
        try:
            host = next(self.iterator)
        except StopIteration:
            raise ValueError(
                f"the batches ended before step {number}: give an iterator that repeats"
            ) from None
        batch = parallel.shard_batch(self.mesh, host)
        pairs = jax.tree_util.tree_leaves_with_path(batch)
        name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
        shapes = {name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in pairs}
        if self.first is None:
            self._check_rows(batch)
            self.first = shapes
        for leaf in self.first | shapes:
            was, now = self.first.get(leaf, "absent"), shapes.get(leaf, "absent")
            if was != now:
                raise ValueError(
                    f"{leaf} is {now} in the batch of step {number} and was {was} in the first: one compiled "
                    "step takes batches of one shape; drop the last one or fill it up"
                )
        return batch

    def _check_rows(self, batch):
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self.rows = jax.tree.leaves(batch)[0].shape[0]
        if self.rows % (parts * self.accumulate):
            raise ValueError(
                f"a batch of {self.rows} rows does not divide over {parts} parts of the mesh times "
                f"accumulate={self.accumulate}; use a multiple of {parts * self.accumulate}"
            )
