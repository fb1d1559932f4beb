"""Measures of saliency maps: ``derma-saliency evaluate``."""
