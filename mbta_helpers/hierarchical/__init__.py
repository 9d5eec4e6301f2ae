"""Part II: options, feudal agents and skills by discovery, and soft actor-critic under them."""
