"""Latent world models: World Models, PlaNet, Dreamer, DreamerV2 and DreamerV3 (Part III)."""
