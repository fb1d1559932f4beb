"""The connection to the service: gRPC, TLS, retries, tracing, logs."""
