"""From a prompt to text: the cache, the sampler, the compiled loop (chapters 15 and 16)."""
