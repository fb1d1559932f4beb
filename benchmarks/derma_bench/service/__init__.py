"""Our service beside others and beside the bare engine, by turns."""
