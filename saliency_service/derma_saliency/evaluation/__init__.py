"""Whether the maps are true: ``derma-saliency evaluate``."""
