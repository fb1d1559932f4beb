"""Rolling a new version out to a running service, and back. `derma-rollout` is its command."""
