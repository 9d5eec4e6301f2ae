"""Part III: world models in a latent space, learnt from pictures, and agents that act in them."""
