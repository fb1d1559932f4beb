"""Which pixels speak for a text."""
