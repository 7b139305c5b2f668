"""The OCI runtime-spec as typed values. No I/O."""
