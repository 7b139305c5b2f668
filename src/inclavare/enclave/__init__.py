"""Enclave containers: their configuration and what they need of the host."""
