"""Training an embedding: objectives, epochs, callbacks, checkpoints."""
