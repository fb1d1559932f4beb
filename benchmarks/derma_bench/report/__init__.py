"""Results: a JSON file a run, Markdown tables, plots."""
