"""The event log as watchers see it: appending, live fan-out, subscriptions, and the fold of events to blocks."""
