"""Load on a service: how requests are sent, when, from how many processes, and what came back."""
