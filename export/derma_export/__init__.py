"""From a bundle to a model that Triton serves: graph, gate, repository."""
