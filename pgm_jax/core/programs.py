"""What a compiled program needs."""


def program_bytes(compiled) -> int | None:
    """Returns the bytes that a compiled program needs at a time on one device.

    Args:
        compiled: result of `jax.jit(f).lower(...).compile()`.

    Returns:
        Arguments, results and scratch, buffers that are both counted once; None where XLA does not say.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(held + memory.temp_size_in_bytes)
