"""Ways from a JPEG to the model's pixels: how long they take, and what they change."""
