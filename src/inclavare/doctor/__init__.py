"""What a host can do with containers and enclaves, and what to do about each lack. Reads; changes nothing."""
