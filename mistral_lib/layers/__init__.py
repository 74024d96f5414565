"""What a Transformer block is made of, one part a module (chapters 3 to 11)."""
