"""The network: build it, load its weights, turn pixels into answers."""
