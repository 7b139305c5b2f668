"""Signatures of enclaves by a key that is kept elsewhere: a server that holds it, and a client that asks it."""
