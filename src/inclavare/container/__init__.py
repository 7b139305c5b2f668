"""Containers: the plan, its executor, the store and the lifecycle."""
