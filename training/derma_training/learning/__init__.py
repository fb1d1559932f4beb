"""How weights are learned: configuration, batches, losses, the loop, its checkpoints and its log."""
