"""Callbacks for the training loops of other libraries: one module each, which imports its own."""
