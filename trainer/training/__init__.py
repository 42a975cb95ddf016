"""The training core: what one replica does (`step`), exact evaluation, checkpoints, and the loop around them."""
