"""Start, supervise and stop the service, and what runs inside Triton."""
