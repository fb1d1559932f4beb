"""Saliency maps: the pixels that speak for a text."""
