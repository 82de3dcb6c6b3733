"""Engines: what produces model output for one engine call."""
