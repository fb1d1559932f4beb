"""What becomes of figures: a JSON file a run, Markdown tables, plots."""
