"""The verbs: starting, waiting, cancelling, running and recovering inferences."""
