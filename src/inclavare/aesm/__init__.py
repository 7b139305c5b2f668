"""Intel's architectural enclave service (AESM): its messages, a client, and a daemon's side of the protocol."""
